"""Libraries, flags and positions as people have them."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from visium import HIRES, Visium

import sthisto as sth
from sthisto._sdata.sections import read_sections


def concatenated(names=("A", "B"), uns_merge: str | None = "unique", label: str = "sample") -> ad.AnnData:
    tables = {name: Visium(n_rows=6 + 2 * i, seed=i).adata(name) for i, name in enumerate(names)}
    return ad.concat(tables, label=label, index_unique="-", uns_merge=uns_merge)


def images_of(names=("A", "B")) -> dict:
    return {name: Visium(n_rows=6 + 2 * i, seed=i).image for i, name in enumerate(names)}


def test_flags_beside_the_libraries_are_none(adata, visium):
    adata.uns["spatial"] = {"is_single": True, "liver": adata.uns["spatial"]["liver"]}
    adata.uns["spatial"]["liver"]["images"]["fullres"] = visium.image
    for options in ({}, {"library_id": "liver"}, {"library_id": ["liver"], "image": "fullres"}):
        sdata = sth.io.from_anndata(adata, **options)
        assert list(sdata.images) == ["liver_image"]
    (section,) = read_sections(sdata)
    np.testing.assert_array_equal(section.image.levels[0].read(0, 40, 0, 50), visium.image[:40, :50])


def test_images_without_a_library_around_them_are_read(adata):
    adata.uns["spatial"] = adata.uns["spatial"]["liver"]
    assert list(sth.io.from_anndata(adata).images) == ["section_image"]


@pytest.mark.parametrize(
    "options", [{}, {"library_id": "B"}, {"library_key": "sample"}, {"library_key": "sample", "library_id": "B"}]
)
def test_libraries_that_a_subset_left_behind_are_left_aside(options):
    merged = concatenated()
    one = merged[merged.obs["sample"] == "B"].copy()
    sdata = sth.io.from_anndata(one, **options)
    (section,) = read_sections(sdata)
    assert section.name == "B_spots"
    assert len(section) == one.n_obs


@pytest.mark.parametrize("library_id", [None, ["A", "B"]])
def test_libraries_that_only_a_column_names_are_read(library_id):
    merged = concatenated(uns_merge=None)
    sdata = sth.io.from_anndata(
        merged, image=images_of(), library_key="sample", library_id=library_id, spot_diameter=26
    )
    assert [len(section) for section in read_sections(sdata)] == [72, 96]


def test_samples_whose_libraries_were_lost_are_not_put_on_one_image(visium):
    merged = concatenated(uns_merge=None)
    with pytest.raises(ValueError, match=r"72 spots of library 'section' .*several samples.*Pass library_key"):
        sth.io.from_anndata(merged, image=visium.image, spot_diameter=26)
    with pytest.raises(ValueError, match=r"'A' and 'B' .*several samples.*with an image of each"):
        sth.io.from_anndata(merged, image=visium.image, library_key="sample", spot_diameter=26)


def test_two_parts_of_one_slide_may_share_its_image(visium, adata):
    adata.obs["area"] = np.where(adata.obs["array_row"] < 4, 1, 2)
    adata.uns["spatial"] = {}
    sdata = sth.io.from_anndata(adata, image=visium.image, library_key="area", spot_diameter=26)
    assert [len(section) for section in read_sections(sdata)] == [48, 72]


def test_samples_without_a_library_are_left_out_with_a_warning(caplog):
    merged = concatenated()
    del merged.uns["spatial"]["A"]
    with caplog.at_level(logging.WARNING, "sthisto"):
        sdata = sth.io.from_anndata(merged, library_key="sample")
    assert list(sdata.images) == ["B_image"]
    assert "their 72 spots are left out" in caplog.text


@pytest.mark.parametrize("kind", [int, float, str, "category", "Int64"])
@pytest.mark.parametrize("library_id", [None, [1, 2], ["1", "2"], np.array([1, 2])])
def test_names_are_compared_as_text(kind, library_id):
    merged = concatenated(("1", "2"))
    merged.obs["sample"] = merged.obs["sample"].astype(int).astype(kind)
    images = {1: images_of()["A"], "2": images_of()["B"]}
    sdata = sth.io.from_anndata(merged, image=images, library_key="sample", library_id=library_id)
    assert sorted(sdata.images) == ["1_image", "2_image"]
    assert [len(section) for section in read_sections(sdata)] == [72, 96]


def test_names_of_any_script_are_kept_apart(tmp_path):
    merged = concatenated(("肝脏", "печень 2"))
    sdata = sth.io.from_anndata(merged, library_key="sample")
    assert list(sdata.images) == ["肝脏_image", "печень_2_image"]
    sdata.write(tmp_path / "liver.zarr")


@pytest.mark.parametrize("other", ["a", "A "])
def test_names_that_become_one_are_refused(other):
    merged = concatenated(("A", other) if other == "a" else ("A_", other))
    with pytest.raises(ValueError, match="are both named"):
        sth.io.from_anndata(merged, library_key="sample")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"library_key": "nothing"}, "`library_key`='nothing'"),
        ({"library_key": "sample", "library_id": "C"}, "`library_id`='C'"),
        ({"library_key": "sample", "image": {"A": np.zeros((9, 9, 3), "u1")}}, "`image` has no entry for library 'B'"),
        ({"library_key": "in_tissue"}, "have no library in common"),
    ],
)
def test_errors_name_what_was_passed(options, error):
    with pytest.raises(KeyError, match=error):
        sth.io.from_anndata(concatenated(), **options)


def test_what_is_no_anndata_is_refused():
    with pytest.raises(TypeError, match=r"must be an AnnData, found str\. Read a file with anndata\.read_h5ad"):
        sth.io.from_anndata("section.h5ad")


def test_an_anndata_on_disk_is_read(adata, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    sdata = sth.io.from_anndata(ad.read_h5ad(tmp_path / "a.h5ad", backed="r"))
    np.testing.assert_array_equal(sdata["table"].X.toarray(), adata.X.toarray())


@pytest.mark.parametrize("value", [str, lambda x: np.array([x]), lambda x: np.float32(x)])
def test_scale_factors_are_numbers_whatever_their_type(adata, value):
    factors = adata.uns["spatial"]["liver"]["scalefactors"]
    adata.uns["spatial"]["liver"]["scalefactors"] = {key: value(number) for key, number in factors.items()}
    (section,) = read_sections(sth.io.from_anndata(adata))
    assert section.diameter == pytest.approx(26 * HIRES)


def test_counts_in_raw_become_a_layer(adata, caplog):
    counts = adata.X.copy()
    adata.raw = adata[:, ::-1].copy()
    adata.X = sp.csr_matrix(np.log1p(counts.toarray()))
    with caplog.at_level(logging.WARNING, "sthisto"):
        table = sth.io.from_anndata(adata)["table"]
    assert "those of adata.raw are layers['counts']" in caplog.text
    np.testing.assert_array_equal(table.layers["counts"].toarray(), counts.toarray())


def test_raw_that_holds_no_counts_adds_nothing(adata):
    adata.X = sp.csr_matrix(np.log1p(adata.X.toarray()))
    adata.raw = adata.copy()
    assert "counts" not in sth.io.from_anndata(adata)["table"].layers


def test_positions_with_holes_tell_the_um_of_the_rest(adata):
    for name in ("array_row", "array_col"):
        column = adata.obs[name].astype(str)
        adata.obs[name] = pd.Categorical(column.where(adata.obs["array_row"].astype(str) != "0", "NA"))
    assert sth.io.from_anndata(adata).attrs["sthisto"]["um_per_unit"]["liver"] == pytest.approx(2.5)
