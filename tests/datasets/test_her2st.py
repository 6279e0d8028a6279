import logging
import os
from pathlib import Path

import numpy as np
import pytest
import spatialdata

from sthisto.datasets import her2st

REAL = Path(os.environ.get("STHISTO_HER2ST", Path(__file__).parents[3] / "shared" / "data" / "her2st"))
needs_real_sections = pytest.mark.skipif(
    not REAL.is_dir(), reason=f"the real sections are not at {REAL}; set STHISTO_HER2ST to their folder"
)


def counts(sdata, spot, gene):
    table = sdata["counts"]
    return table.X[table.obs_names.get_loc(spot), table.var_names.get_loc(gene)]


def centers(sdata, section):
    """Spot -> x, y in pixels of the image."""
    obs = sdata["counts"].obs
    points = sdata[f"{section}_spots"].geometry
    return {name: (points[i].x, points[i].y) for name, i in obs.loc[obs["section"] == section, "spot_id"].items()}


def test_counts_reach_their_spot_whatever_the_order_of_the_files(make_section, tmp_path):
    section = make_section()
    sdata = her2st(section.write(tmp_path))
    placed = centers(sdata, "B1")
    assert len(placed) == 12
    for x, y in section.spots:
        assert counts(sdata, f"B1_{x}x{y}", "FN1") == x * 1000 + y * 10 + 1
        assert placed[f"B1_{x}x{y}"] == pytest.approx(section.center(x + 0.003, y - 0.002))
    obs = sdata["counts"].obs.loc["B1_6x11"]
    assert (obs["array_col"], obs["array_row"], obs["patient"], obs["in_tissue"]) == (6, 11, "B", 1)


@pytest.mark.parametrize("inner", ["", "data"])
def test_the_root_and_its_data_folder_are_both_read(make_section, tmp_path, inner):
    make_section().write(tmp_path)
    assert her2st(tmp_path / inner)["counts"].n_obs == 12


def test_the_environment_variable_names_the_folder(make_section, tmp_path, monkeypatch):
    make_section().write(tmp_path)
    monkeypatch.setenv("STHISTO_HER2ST", str(tmp_path))
    assert her2st()["counts"].n_obs == 12


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_the_pitch_of_the_array_gives_the_scale(make_section, matrix, tmp_path, suffix):
    sdata = her2st(make_section(pitch_px=12.5, suffix=suffix).write(tmp_path))
    np.testing.assert_allclose(matrix(sdata["B1_image"], "B1"), np.diag([16, 16, 1]), rtol=1e-6)
    np.testing.assert_allclose(sdata["B1_spots"]["radius"] * 16, 50, rtol=1e-6)
    assert sdata.attrs["sthisto"]["um_per_unit"] == {"B1": 1.0}
    assert sdata.coordinate_systems == ["B1"]


def test_one_misplaced_spot_does_not_bend_the_scale(make_section, matrix, tmp_path):
    make_section().write(tmp_path)
    file = tmp_path / "data" / "ST-spotfiles" / "B1_selection.tsv"
    lines = file.read_text().splitlines()
    cells = lines[1].split("\t")
    lines[1] = "\t".join([*cells[:4], "95", "3", cells[6]])
    file.write_text("\n".join(lines))
    assert matrix(her2st(tmp_path)["B1_image"], "B1")[0, 0] == pytest.approx(10)


def test_labels_are_joined_by_rounded_places_and_missing_elsewhere(make_section, tmp_path):
    make_section(labels={(5, 10): "invasive cancer", (7, 13): "adipose tissue"}).write(tmp_path)
    annotation = her2st(tmp_path)["counts"].obs["annotation"]
    assert annotation["B1_5x10"] == "invasive cancer"
    assert annotation["B1_7x13"] == "adipose tissue"
    assert annotation.isna().sum() == 10


def test_repeated_symbols_are_added_up_and_similar_names_kept(make_section, tmp_path):
    sdata = her2st(make_section(genes=("FN1", "WDFY4", "FN1", "WDFY4.1")).write(tmp_path))
    assert list(sdata["counts"].var_names) == ["FN1", "WDFY4", "WDFY4.1"]
    assert counts(sdata, "B1_5x10", "FN1") == 2 * 5100 + 0 + 2
    assert counts(sdata, "B1_5x10", "WDFY4.1") == 5103


def test_genes_of_sections_are_united_with_zeros(make_section, tmp_path):
    make_section().write(tmp_path)
    make_section(name="C2", genes=("SCD", "GNAS")).write(tmp_path)
    table = her2st(tmp_path)["counts"]
    assert dict(table.var["n_sections"]) == {"EPCAM": 1, "FN1": 1, "SCD": 2, "GNAS": 1}
    assert table["C2_5x10", "EPCAM"].X.sum() == 0
    assert table["C2_5x10", "SCD"].X.sum() == 5100
    assert table["B1_5x10", "SCD"].X.sum() == 5102


def test_spots_that_one_file_lacks_are_left_out_and_said(make_section, tmp_path, caplog):
    spots = ((5, 10), (5, 11), (6, 10), (6, 11), (7, 10))
    make_section(spots=spots, counted=((6, 11), (5, 10), (9, 9), (6, 10))).write(tmp_path)
    with caplog.at_level(logging.INFO, logger="sthisto"):
        names = her2st(tmp_path)["counts"].obs_names
    assert sorted(names) == ["B1_5x10", "B1_6x10", "B1_6x11"]
    assert "2 spots have no counts" in caplog.text
    assert "1 spots have no place" in caplog.text


def test_survives_writing_and_reading(make_section, tmp_path):
    sdata = her2st(make_section().write(tmp_path / "files"))
    sdata.write(tmp_path / "her2st.zarr")
    back = spatialdata.read_zarr(tmp_path / "her2st.zarr")
    assert (back["counts"].X != sdata["counts"].X).nnz == 0
    assert back["counts"].obs["annotation"].isna().all()
    np.testing.assert_array_equal(back["B1_image"]["scale0"]["image"], sdata["B1_image"]["scale0"]["image"])


def test_a_folder_without_the_data_says_what_belongs_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data/ST-cnts/A1.tsv.gz"):
        her2st(tmp_path)


def test_an_unknown_section_is_refused_with_those_that_are_there(make_section, tmp_path):
    make_section().write(tmp_path)
    with pytest.raises(KeyError, match="B1"):
        her2st(tmp_path, sections=["Z9"])


def test_a_section_without_image_is_named(make_section, tmp_path):
    make_section().write(tmp_path)
    (tmp_path / "data" / "ST-imgs" / "B" / "B1" / "4711_HE_B1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="Section B1 needs"):
        her2st(tmp_path)


@needs_real_sections
def test_real_sections_have_the_scale_and_the_spots_that_are_known(matrix):
    sdata = her2st(REAL, sections=["A1", "C3"])
    assert sdata["counts"].obs["section"].value_counts().to_dict() == {"A1": 346, "C3": 180}
    assert matrix(sdata["A1_image"], "A1")[0, 0] == pytest.approx(3.19, abs=0.01)
    assert matrix(sdata["C3_image"], "C3")[0, 0] == pytest.approx(0.687, abs=0.002)
    assert sdata["A1_image"]["scale0"]["image"].shape == (3, 2138, 2000)
    annotation = sdata["counts"].obs["annotation"]
    assert annotation[sdata["counts"].obs["section"] == "A1"].notna().all()
    assert annotation.value_counts()["invasive cancer"] == 282
    assert counts(sdata, "A1_10x13", "SDF4") == 10


@needs_real_sections
def test_real_spots_lie_on_tissue():
    sdata = her2st(REAL, sections=["A1"])
    image = sdata["A1_image"]["scale0"]["image"].values
    x, y = np.array(list(centers(sdata, "A1").values())).round().astype(int).T
    at_spots = np.stack([image[:, y + dy, x + dx].mean(axis=0) for dy in range(-8, 9, 4) for dx in range(-8, 9, 4)])
    assert ((at_spots.mean(axis=0) > 20) & (at_spots.mean(axis=0) < 235)).all()
    assert image.mean() < 0.75 * at_spots.mean()
