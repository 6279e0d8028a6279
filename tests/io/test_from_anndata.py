"""AnnData with spots and images in its slots."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pytest
from PIL import Image
from spatialdata import SpatialData, read_zarr
from visium import PITCH_PX, SPOT_DIAMETER_PX, Visium

import sthisto as sth
from sthisto._sdata.sections import read_sections

UM_PER_PX = 100 / PITCH_PX


def darkness_in_center(section, size: int = 9) -> np.ndarray:
    (patches,) = section.patches(sth.models.PatchSpec(size=size, um_per_px=section.um_per_px))
    return patches.read()[:, size // 2, size // 2].mean(axis=-1)


def test_names_follow_the_library(adata):
    sdata = sth.io.from_anndata(adata)
    assert list(sdata.images) == ["liver_image"]
    assert list(sdata.shapes) == ["liver_spots"]
    assert list(sdata.tables) == ["table"]
    assert sdata.coordinate_systems == ["liver"]


def test_spots_lie_on_their_marks_in_the_hires_image(adata):
    (section,) = read_sections(sth.io.from_anndata(adata))
    assert (darkness_in_center(section, 3) < 200).all()


def test_spots_lie_on_their_marks_in_a_full_resolution_array(adata, visium):
    (section,) = read_sections(sth.io.from_anndata(adata, image=visium.image))
    np.testing.assert_allclose(section.centers, visium.xy)
    assert (darkness_in_center(section) < 80).all()


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_image_is_read_from_a_file(adata, visium, tmp_path, suffix):
    path = tmp_path / f"he{suffix}"
    Image.fromarray(visium.image).save(path)
    sdata = sth.io.from_anndata(adata, image=path)
    np.testing.assert_array_equal(sdata["liver_image"].to_numpy().transpose(1, 2, 0), visium.image)


def test_circles_have_the_diameter_of_the_scale_factors(adata):
    sdata = sth.io.from_anndata(adata)
    assert (sdata["liver_spots"]["radius"] == SPOT_DIAMETER_PX / 2).all()


def test_um_per_px_come_from_the_array_of_visium(adata):
    sdata = sth.io.from_anndata(adata)
    assert sdata.attrs["sthisto"]["um_per_unit"]["liver"] == pytest.approx(UM_PER_PX)
    (section,) = read_sections(sdata)
    assert section.um_per_px == pytest.approx(UM_PER_PX / 0.25)


def test_um_per_px_stay_unknown_without_an_array(adata):
    del adata.obs["array_row"]
    assert sth.io.from_anndata(adata).attrs["sthisto"]["um_per_unit"] == {}


def test_anndata_is_left_as_it_is(adata, visium):
    sdata = sth.io.from_anndata(adata)
    sdata["table"].obs["in_tissue"] = 0
    assert list(adata.obs) == list(visium.obs)
    assert (adata.obs["in_tissue"] == 1).all()
    assert list(adata.uns) == ["spatial"]


def test_table_keeps_counts_and_metadata(adata):
    table = sth.io.from_anndata(adata, table_key="counts")["counts"]
    assert (table.X != adata.X).nnz == 0
    assert table.var.equals(adata.var)
    assert table.obs_names.equals(adata.obs_names)
    assert "spatial" not in table.uns


def test_result_survives_the_disk(adata, tmp_path):
    sth.io.from_anndata(adata).write(tmp_path / "liver.zarr")
    (section,) = read_sections(read_zarr(tmp_path / "liver.zarr"))
    assert len(section) == adata.n_obs
    assert section.um_per_px == pytest.approx(UM_PER_PX / 0.25)


def test_large_image_gets_coarser_levels(adata):
    adata.uns["spatial"]["liver"]["images"] = {}
    image = np.full((2100, 2100, 3), 200, dtype=np.uint8)
    assert len(sth.io.from_anndata(adata, image=image)["liver_image"]) == 2


@pytest.fixture
def two_libraries():
    first, second = Visium(), Visium(n_rows=6, seed=1)
    tables = [first.adata("A 1"), second.adata("B")]
    merged = ad.concat(tables, label="sample", keys=["A 1", "B"], index_unique="-")
    merged.uns["spatial"] = {name: table.uns["spatial"][name] for name, table in zip(["A 1", "B"], tables, strict=True)}
    shuffled = np.random.default_rng(0).permutation(merged.n_obs)
    return merged[shuffled].copy(), {"A 1": first, "B": second}


def test_each_library_becomes_a_section_of_one_table(two_libraries):
    merged, libraries = two_libraries
    sections = read_sections(sth.io.from_anndata(merged, library_key="sample"))
    assert [(section.name, section.image_key) for section in sections] == [
        ("A_1_spots", "A_1_image"),
        ("B_spots", "B_image"),
    ]
    for section, library in zip(sections, libraries.values(), strict=True):
        assert len(section) == len(library.obs)
        assert (darkness_in_center(section, 3) < 200).all()


def test_one_of_several_libraries_can_be_chosen(two_libraries):
    merged, libraries = two_libraries
    sdata = sth.io.from_anndata(merged, library_key="sample", library_id="B", image={"B": libraries["B"].image})
    (section,) = read_sections(sdata)
    assert len(section) == sdata["table"].n_obs == len(libraries["B"].obs)
    assert (darkness_in_center(section) < 80).all()


def test_libraries_whose_elements_would_have_one_name_are_refused(two_libraries):
    merged, _ = two_libraries
    merged.obs["sample"] = merged.obs["sample"].astype(str).replace("B", "A_1")
    merged.uns["spatial"]["A_1"] = merged.uns["spatial"].pop("B")
    with pytest.raises(ValueError, match="both named 'A_1'"):
        sth.io.from_anndata(merged, library_key="sample")


def test_several_libraries_need_a_key(two_libraries):
    with pytest.raises(ValueError, match=r"Pass library_key=.*'sample'"):
        sth.io.from_anndata(two_libraries[0])


def test_unknown_library_lists_those_that_are_there(adata):
    with pytest.raises(KeyError, match="'liver'"):
        sth.io.from_anndata(adata, library_id="lung")


def test_spots_without_coordinates_are_left_out_with_a_warning(adata, caplog):
    adata.obsm["spatial"][[3, 77], [0, 1]] = np.nan, np.inf
    with caplog.at_level(logging.WARNING, "sthisto"):
        sdata = sth.io.from_anndata(adata)
    assert "2 of 120 spots have no coordinates" in caplog.text
    (section,) = read_sections(sdata)
    assert list(sdata["table"].obs_names) == [name for i, name in enumerate(adata.obs_names) if i not in (3, 77)]
    np.testing.assert_allclose(section.centers * 4, np.delete(adata.obsm["spatial"], [3, 77], axis=0))


def test_coordinates_of_no_spot_are_refused(adata):
    adata.obsm["spatial"][:] = np.nan
    with pytest.raises(ValueError, match="None of 120 spots has coordinates"):
        sth.io.from_anndata(adata)
    del adata.obsm["spatial"]
    with pytest.raises(KeyError, match="obsm"):
        sth.io.from_anndata(adata)


def test_missing_image_lists_those_that_are_there(adata):
    del adata.uns["spatial"]["liver"]["images"]["hires"]
    with pytest.raises(KeyError, match="'lowres'"):
        sth.io.from_anndata(adata)
    with pytest.raises(FileNotFoundError, match=r"he\.tif"):
        sth.io.from_anndata(adata, image="he.tif")


def test_spot_diameter_is_asked_for_where_it_is_unknown(adata, visium):
    del adata.uns["spatial"]
    with pytest.raises(KeyError, match="Pass spot_diameter"):
        sth.io.from_anndata(adata, image=visium.image)
    sdata = sth.io.from_anndata(adata, image=visium.image, library_id="lung", spot_diameter=30)
    assert list(sdata.shapes) == ["lung_spots"]


@pytest.mark.parametrize("shape", [(50, 50), (50, 50, 2), (50, 50, 50)])
def test_image_that_is_no_rgb_is_refused(adata, shape):
    with pytest.raises(ValueError, match="RGB"):
        sth.io.from_anndata(adata, image=np.zeros(shape, dtype=np.uint8))


def test_pillow_keeps_its_limit_of_size(adata, visium, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = tmp_path / "he.png"
    Image.fromarray(visium.image).save(path)
    assert isinstance(sth.io.from_anndata(adata, image=path), SpatialData)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_prediction_of_a_converted_section_follows_the_tissue(adata, visium):
    sdata = sth.io.from_anndata(adata, image=visium.image)
    sth.pp.split(sdata, by="block", test=0.3, margin=24)
    model = sth.tl.fit(sdata, method="color", patch_size=24, genes=visium.genes)
    sth.tl.predict(sdata, model)
    sth.tl.evaluate(sdata)
    assert sdata["table"].var["sthisto_pcc"].iloc[-1] > 0.3
