"""The cells that Space Ranger 4 segments on the H&E image of a Visium HD run."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
import warnings

import h5py
import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image
from scipy.io import mmwrite
from visium import Visium

import sthisto as sth
from sthisto._sdata.sections import read_sections
from sthisto.cli.main import main

UM = 0.5
N_WITHOUT_COUNTS = 5
OUTLINES = "cell_segmentations.geojson"
COUNTS = "filtered_feature_cell_matrix.h5"


def feature(number: int, corners) -> dict:
    geometry = {"type": "Polygon", "coordinates": [[list(map(float, one)) for one in corners]]}
    return {"type": "Feature", "geometry": geometry, "properties": {"cell_id": number}}


def square(center, half: float = 8.0) -> np.ndarray:
    return np.asarray(center) + half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])


@pytest.fixture
def section():
    """Cells on the marks of a section, named as Space Ranger names them; numbers have gaps."""
    cells = Visium()
    numbers = 3 * np.arange(len(cells.obs)) + 7
    cells.obs = cells.obs.set_axis(pd.Index([f"cellid_{number:09d}-1" for number in numbers]))
    return cells


@pytest.fixture
def segmented(section, tmp_path):
    """The folder "segmented_outputs"; outlines stand in another order than counts, and some have none."""
    folder = section.write(tmp_path / "CRC" / "outs" / "segmented_outputs")
    (folder / "filtered_feature_bc_matrix.h5").rename(folder / COUNTS)
    (folder / "spatial" / "tissue_positions.csv").unlink()
    (folder / "he.tif").rename(folder.parent / "he.tif")
    factors = section.scalefactors | {"microns_per_pixel": UM, "regist_target_img_scalef": 0.25}
    del factors["spot_diameter_fullres"]
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    numbers = section.obs.index.str[7:16].astype(int)
    features = [feature(number, square(xy)) for number, xy in zip(numbers, section.xy, strict=True)]
    features += [feature(1000 + i, square((100, 100))) for i in range(N_WITHOUT_COUNTS)]
    (folder / OUTLINES).write_text(json.dumps({"type": "FeatureCollection", "features": features[::-1]}))
    return folder


@pytest.fixture
def outs(segmented):
    """A run with bins of 8 µm, cells, and what else Space Ranger 4 writes."""
    outs = segmented.parent
    bins = Visium().write(outs / "binned_outputs" / "square_008um")
    (bins / "he.tif").unlink()
    factors = bins / "spatial" / "scalefactors_json.json"
    factors.write_text(json.dumps(json.loads(factors.read_text()) | {"bin_size_um": 8, "microns_per_pixel": UM}))
    for name in (
        "feature_slice.h5",
        "molecule_info.h5",
        "probe_set.csv",
        "barcode_mappings.parquet",
        "web_summary.html",
    ):
        (outs / name).write_bytes(b"of no use here")
    return outs


def change(folder, alter):
    path = folder / OUTLINES
    content = json.loads(path.read_text())
    alter(content["features"])
    path.write_text(json.dumps(content))


def write_folder(table, folder):
    """Write counts as Space Ranger does beside the file in HDF5."""
    folder.mkdir()
    with gzip.open(folder / "matrix.mtx.gz", "wb") as file:
        mmwrite(file, table.X.T.astype(int))
    features = pd.DataFrame({"id": table.var["gene_ids"], "name": table.var_names, "type": table.var["feature_types"]})
    for name, values in (("features", features), ("barcodes", pd.DataFrame(table.obs_names))):
        values.to_csv(folder / f"{name}.tsv.gz", sep="\t", header=False, index=False)


@pytest.mark.parametrize("where", ["", COUNTS, ".."])
def test_cells_are_polygons_on_their_marks_in_the_full_image(segmented, section, where, caplog):
    with caplog.at_level(logging.INFO, "sthisto"):
        sdata = sth.io.read(segmented / where)
    assert "is a folder of segmented cells of Visium HD" in caplog.text
    assert f"{N_WITHOUT_COUNTS} outlines in" in caplog.text
    table = sdata.tables["table"]
    assert list(table.obs_names) == list(section.obs.index)
    np.testing.assert_array_equal(table.X.toarray(), section.counts.toarray())
    np.testing.assert_allclose(table.obsm["spatial"], section.xy)
    assert set(sdata["CRC_cells"].geom_type) == {"Polygon"}
    assert sdata["CRC_cells"].area.to_numpy() == pytest.approx(256)
    (read,) = read_sections(sdata)
    assert (read.image_key, read.um_per_px) == ("CRC_full_image", pytest.approx(UM))
    assert read.diameter == pytest.approx(np.sqrt(4 * 256 / np.pi))
    np.testing.assert_allclose(read.centers[np.argsort(read.rows)], section.xy)
    (patches,) = read.patches(sth.models.PatchSpec(size=9, um_per_px=UM))
    assert (patches.read()[:, 4, 4].mean(axis=-1) < 200).all()


def test_cells_are_those_that_spatialdata_io_reads(outs):
    spatialdata_io = pytest.importorskip("spatialdata_io", reason="spatialdata-io is not installed")
    with h5py.File(outs / "feature_slice.h5", "w") as file:
        file.attrs["metadata_json"] = json.dumps({"hd_layout_json": json.dumps({"file_format": "1.0"})})
    with warnings.catch_warnings(action="ignore"):
        other = spatialdata_io.visium_hd(outs, "CRC", load_segmentations_only=True, fullres_image_file=outs / "he.tif")
    sdata = sth.io.read(outs / "segmented_outputs")
    expected, shapes = other["cell_segmentations"], other["CRC_cell_segmentations"]
    assert list(sdata["table"].obs_names) == list(expected.obs_names)
    np.testing.assert_array_equal(sdata["table"].X.toarray(), expected.X.toarray())
    assert sdata["CRC_cells"].geometry.to_list() == shapes.geometry.to_list()


def test_cells_are_fitted_predicted_drawn_and_written(segmented, tmp_path):
    sdata = sth.io.read(segmented, name="colon")
    sth.pp.split(sdata, by="block", test=0.3, margin=24)
    model = sth.tl.fit(sdata, method="color", genes=["GENE0", "GENE29"], patch_um=12, patch_size=24)
    sth.tl.predict(sdata, model)
    sth.tl.evaluate(sdata)
    assert sth.pl.gene_compare(sdata, "GENE0") is not None
    sdata.write(tmp_path / "cells.zarr")
    assert list(sth.io.read(tmp_path / "cells.zarr").shapes) == ["colon_cells"]


def test_bins_are_read_and_the_path_of_the_cells_is_told(outs, caplog):
    with caplog.at_level(logging.INFO, "sthisto"):
        sdata = sth.io.read(outs)
    assert list(sdata.shapes) == ["CRC_square_008um_spots"]
    assert f"{outs / 'segmented_outputs'} holds segmented cells too" in caplog.text
    assert list(sth.io.read(outs / "segmented_outputs").shapes) == ["CRC_cells"]
    assert list(sth.io.read(outs.parent).shapes) == ["CRC_square_008um_spots"]


def test_cells_are_read_from_within_their_folder(segmented, monkeypatch):
    monkeypatch.chdir(segmented)
    assert list(sth.io.read(".").images) == ["CRC_hires_image", "CRC_full_image"]


def test_an_image_elsewhere_is_named_and_that_of_another_run_is_refused(segmented, tmp_path, caplog):
    moved = shutil.move(segmented.parent / "he.tif", tmp_path / "scan.tif")
    with caplog.at_level(logging.WARNING, "sthisto"):
        assert list(sth.io.read(segmented).images) == ["CRC_hires_image"]
    assert "no full-resolution image" in caplog.text
    assert "CRC_full_image" in sth.io.read(segmented, image=moved).images
    Image.fromarray(Visium().image[:100]).save(tmp_path / "other.tif")
    with pytest.raises(ValueError, match="is not the full-resolution image"):
        sth.io.read(segmented, image=tmp_path / "other.tif")
    with pytest.raises(ValueError, match="takes no bin_size"):
        sth.io.read(segmented, bin_size=8)


def test_cells_without_an_outline_stay_without_a_place(segmented, section, caplog):
    def lose(features):
        known = {one["properties"]["cell_id"]: one for one in features}
        features.remove(known[7])
        known[10]["geometry"]["coordinates"][0] = [[1, 1], [2, 2], [1, 1]]
        known[13]["geometry"]["coordinates"][0][0][0] = float("nan")
        known[16]["geometry"] = {"type": "Point", "coordinates": [3, 3]}
        known[19]["geometry"] = None

    change(segmented, lose)
    with caplog.at_level(logging.WARNING, "sthisto"):
        sdata = sth.io.read(segmented)
    assert f"5 of {len(section.obs)} cells have no outline" in caplog.text
    assert np.isnan(sdata["table"].obsm["spatial"]).all(axis=1).nonzero()[0].tolist() == [0, 1, 2, 3, 4]
    model = sth.tl.fit(sdata, method="color", genes=["GENE0"], patch_size=24)
    sth.tl.predict(sdata, model)
    predicted = sdata["table"].layers["sthisto_pred"][:, sdata["table"].var["sthisto_gene"]]
    assert np.isnan(predicted).all(axis=1).nonzero()[0].tolist() == [0, 1, 2, 3, 4]
    assert sth.pl.gene_compare(sdata, "GENE0") is not None


def test_cells_of_several_parts_are_kept(segmented):
    def split(features):
        one = next(one for one in features if one["properties"]["cell_id"] == 7)
        parts = [[square((60, 60)).tolist()], [square((90, 60)).tolist()]]
        one["geometry"] = {"type": "MultiPolygon", "coordinates": parts}

    change(segmented, split)
    sdata = sth.io.read(segmented)
    assert sdata["CRC_cells"].geometry.iloc[0].geom_type == "MultiPolygon"
    np.testing.assert_allclose(sdata["table"].obsm["spatial"][0], [75, 60])


def test_counts_are_read_from_a_folder_too(segmented, section):
    write_folder(sth.io.read(segmented)["table"], segmented / "filtered_feature_cell_matrix")
    (segmented / COUNTS).unlink()
    table = sth.io.read(segmented)["table"]
    assert list(table.obs_names) == list(section.obs.index)
    np.testing.assert_array_equal(table.X.toarray(), section.counts.toarray())


def test_annotated_outlines_and_raw_counts_are_read(segmented, section):
    (segmented / OUTLINES).rename(segmented / f"graphclust_annotated_{OUTLINES}")
    shutil.copy(segmented / COUNTS, segmented / "raw_feature_cell_matrix.h5")
    (segmented / COUNTS).unlink()
    with pytest.raises(FileNotFoundError, match=r"Pass the path of 'raw_feature_cell_matrix\.h5'"):
        sth.io.read(segmented)
    assert sth.io.read(segmented / "raw_feature_cell_matrix.h5")["table"].n_obs == len(section.obs)


def other_barcodes(folder):
    shutil.copytree(Visium().write(folder / "other"), folder, dirs_exist_ok=True)
    (folder / "spatial" / "tissue_positions.csv").unlink()
    (folder / "filtered_feature_bc_matrix.h5").rename(folder / COUNTS)


def put(name, text):
    return lambda folder: (folder / name).write_text(text)


def altered(alter):
    return lambda folder: change(folder, alter)


def features_of(*features):
    return put(OUTLINES, json.dumps({"type": "FeatureCollection", "features": features}))


SPOILED = {
    "lacks cell_segmentations.geojson": lambda folder: (folder / OUTLINES).unlink(),
    "holds no counts. Expected is filtered_feature_cell_matrix.h5": lambda folder: (folder / COUNTS).unlink(),
    f"{COUNTS} can't be read": put(COUNTS, "no HDF5"),
    f"{OUTLINES} can't be read": lambda folder: put(OUTLINES, (folder / OUTLINES).read_text()[:-100])(folder),
    f"{OUTLINES} can't be read: a ring has the shape": features_of(feature(7, [[1], [2], [3], [4]])),
    f"{OUTLINES} can't be read: a ring holds": features_of(
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[{}]]}}
    ),
    "holds no 'features'": put(OUTLINES, "[]"),
    "0 have a number": altered(lambda features: [one.update(properties={"name": "QuPath"}) for one in features]),
    "names 2 cells more than once": altered(lambda features: features.extend(features[:2])),
    "outline of none of the cells": features_of(feature(1, square((9, 9)))),
    "expected are cells of one run": other_barcodes,
    "lacks spatial/scalefactors_json.json": lambda folder: (folder / "spatial" / "scalefactors_json.json").unlink(),
    "lie outside": altered(
        lambda features: [
            one["geometry"].update(coordinates=[square((5000, 9000)).tolist()]) for one in features[::2]
        ]
    ),
}  # fmt: skip


@pytest.mark.parametrize("words", SPOILED)
def test_damaged_and_foreign_cells_are_refused_in_words(segmented, words):
    SPOILED[words](segmented)
    with pytest.raises((ValueError, FileNotFoundError), match=words.replace("(", r"\(")) as error:
        sth.io.read(segmented)
    assert str(segmented) in str(error.value) or "CRC" in str(error.value)


def test_counts_alone_name_what_is_missing(segmented, tmp_path):
    for name in (COUNTS, "filtered_feature_bc_matrix.h5"):
        (tmp_path / name).mkdir()
        shutil.copy(segmented / COUNTS, tmp_path / name / "P1_raw_feature_bc_matrix.h5")
        with pytest.raises(ValueError, match="counts without the rest of a run"):
            sth.io.read(tmp_path / name / "P1_raw_feature_bc_matrix.h5")


@pytest.fixture
def settings_as_before():
    """What a command sets for its process is undone."""
    before = sth.settings.progress
    yield
    sth.settings.verbosity = sth.settings.log_file = None
    sth.settings.progress = before


@pytest.mark.usefixtures("settings_as_before")
def test_the_command_line_reads_and_predicts_cells(segmented, tmp_path):
    sdata = sth.io.read(segmented)
    model = sth.tl.fit(sdata, method="color", genes=["GENE0", "GENE1"], patch_um=12, patch_size=24)
    model.save(tmp_path / "model")
    assert main(["read", str(segmented), "--out", str(tmp_path / "cells.zarr")]) in (None, 0)
    for path in (segmented, segmented / COUNTS):
        out = tmp_path / f"predicted_{path.name}"
        arguments = ["--model", str(tmp_path / "model"), "--out", str(out), "--um-per-px", "0.5"]
        assert main(["predict", str(path), *arguments]) in (None, 0)
        assert pd.read_csv(out / "summary.csv")["spots"].tolist() == [sdata["table"].n_obs]
    assert shapely.get_num_coordinates(sth.io.read(tmp_path / "cells.zarr")["CRC_cells"].geometry.iloc[0]) == 5
