from __future__ import annotations

import numpy as np
import pytest
import spatialdata as sd
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

import sthisto as sth
from sthisto._images import nuclei as images
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import read_sections


@pytest.fixture(scope="module")
def slide():
    sdata = sth.datasets.synthetic(n_sections=1, n_patients=1, n_spots=20, um_per_px=0.5, nuclei=True, seed=4)
    sth.pp.nuclei(sdata)
    return sdata


def f1(true, found, within):
    """Return F1 of the one-to-one matching with the most pairs."""
    near = cdist(true, found) < within
    rows, columns = linear_sum_assignment(-near.astype(float))
    return 2 * near[rows, columns].sum() / (len(true) + len(found))


def test_drawn_nuclei_are_found(slide):
    true = slide["S1_nuclei"].compute()[["x", "y"]].to_numpy()
    assert f1(true, slide["nuclei_table"].obsm["spatial"], within=4 / 0.5) > 0.8


def test_truth_leaves_the_sections_as_they_are(slide):
    plain = sth.datasets.synthetic(n_sections=1, n_patients=1, n_spots=20, um_per_px=0.5, seed=4)
    assert "S1_nuclei" not in plain
    np.testing.assert_array_equal(
        np.asarray(plain["S1_image"]["scale0"]["image"]), np.asarray(slide["S1_image"]["scale0"]["image"])
    )
    assert (plain["expression"].X != slide["expression"].X).nnz == 0


def test_table_annotates_the_polygons_and_survives_writing(slide, tmp_path):
    (section,) = read_sections(slide, ElementKeys(table_key="nuclei_table"))
    np.testing.assert_allclose(section.centers, slide["nuclei_table"].obsm["spatial"], atol=1.0)
    areas = slide["nuclei"].geometry.area.to_numpy() * 0.25
    np.testing.assert_allclose(areas, slide["nuclei_table"].obs["area_um2"], rtol=0.5)
    slide.write(tmp_path / "slide.zarr")
    assert len(sd.read_zarr(tmp_path / "slide.zarr")["nuclei"]) == len(slide["nuclei"])


def test_a_model_of_spots_predicts_cells(slide):
    model = sth.tl.fit(slide, method="color", table_key="expression", patch_um=30, patch_size=16, context=(1, 2))
    sth.tl.predict(slide, model, table_key="nuclei_table", new_table_key="cells")
    assert np.isfinite(slide["cells"].X).all()
    assert slide["cells"].shape == (slide["nuclei_table"].n_obs, len(model.genes))
    sth.tl.predict(slide, model, table_key="expression")
    sth.tl.aggregate(slide, table_key="expression", reference="sthisto")
    spots, genes = slide["expression"], list(model.genes)
    (section,) = read_sections(slide, ElementKeys(table_key="expression"))
    inside = cdist(section.centers[:1], slide["cells"].obsm["spatial"])[0] <= section.diameter / 2
    row = section.rows[0]
    assert spots.obs["aggregated_cells"].iloc[row] == inside.sum() > 3
    np.testing.assert_allclose(
        np.expm1(spots[:, genes].layers["aggregated_pred"][row]), np.expm1(slide["cells"].X[inside]).mean(0), rtol=1e-4
    )
    assert spots.uns["aggregated"]["consistency"] > 0.3
    with pytest.raises(KeyError, match="no prediction"):
        sth.tl.aggregate(slide, table_key="expression", reference="nothing")


def test_measured_counts_of_cells_are_averaged_as_they_are(slide):
    cells = slide["cells"].copy()
    cells.X = np.random.default_rng(0).poisson(2, cells.shape).astype(np.float32)
    slide["counted"] = cells
    sth.tl.aggregate(slide, cells_key="counted", table_key="expression", key_added="measured")
    (section,) = read_sections(slide, ElementKeys(table_key="expression"))
    inside = cdist(section.centers[:1], cells.obsm["spatial"])[0] <= section.diameter / 2
    found = slide["expression"][:, cells.var_names].layers["measured_pred"][section.rows[0]]
    np.testing.assert_allclose(found, cells.X[inside].mean(0), rtol=1e-5)


def test_coarse_images_are_warned_of(slide, caplog):
    corner = np.asarray(slide["S1_image"]["scale0"]["image"])[:, 400:700, 400:700]
    small = sd.SpatialData(images={"he": sd.models.Image2DModel.parse(corner, dims=("c", "y", "x"))})
    sth.pp.nuclei(small, um_per_px=1.5)
    assert "nuclei are a few px wide" in caplog.text


def test_borders_of_tiles_neither_split_nor_repeat_nuclei(slide, monkeypatch):
    monkeypatch.setattr(images, "_CORE_PX", 300)
    other = sth.datasets.synthetic(n_sections=1, n_patients=1, n_spots=20, um_per_px=0.5, seed=4)
    sth.pp.nuclei(other)
    assert f1(slide["nuclei_table"].obsm["spatial"], other["nuclei_table"].obsm["spatial"], within=2) > 0.97


@pytest.mark.parametrize("method", ["cellpose", "stardist", "instanseg"])
def test_missing_package_is_named_with_its_installation(slide, method, monkeypatch):
    monkeypatch.setattr("sthisto.pp._nuclei.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"pip install {method}"):
        sth.pp.nuclei(slide, method=method, key_added="other")


def test_unknown_resolution_and_taken_names_are_refused(slide):
    with pytest.raises(ValueError, match="already"):
        sth.pp.nuclei(slide)
    blank = sd.SpatialData(
        images={"he": sd.models.Image2DModel.parse(np.full((3, 300, 300), 244, dtype=np.uint8), dims=("c", "y", "x"))}
    )
    with pytest.raises(ValueError, match="um_per_px"):
        sth.pp.nuclei(blank)
    with pytest.raises(ValueError, match="No nuclei were found"):
        sth.pp.nuclei(blank, um_per_px=0.5)
    assert not list(blank.shapes)
