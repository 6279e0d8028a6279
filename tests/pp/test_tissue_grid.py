from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

import sthisto as sth
from sthisto._images.pyramid import Level, Pyramid
from sthisto._images.tissue import hexagonal_grid, tissue_share
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import read_sections


@pytest.fixture
def slide():
    return sth.datasets.synthetic(n_sections=1, n_patients=1, n_spots=60)


def drawn(picture: np.ndarray) -> Pyramid:
    return Pyramid((Level(np.moveaxis(picture, -1, 0), np.eye(3)),))


def test_share_of_tissue_follows_what_is_drawn():
    picture = np.full((200, 400, 3), 245, dtype=np.uint8)
    picture[:, 200:] = (180, 80, 160)
    share = tissue_share(drawn(picture), np.array([[50.0, 100.0], [200.0, 100.0], [300.0, 100.0]]), 40)
    assert share[0] == 0
    assert share[1] == pytest.approx(0.5, abs=0.1)
    assert share[2] == 1


def test_blank_slide_has_no_tissue():
    share = tissue_share(drawn(np.full((100, 100, 3), 240, dtype=np.uint8)), np.array([[50.0, 50.0]]), 10)
    assert share[0] == 0


def test_lattice_has_its_pitch():
    grid = hexagonal_grid(1000, 800, 50)
    distance = NearestNeighbors(n_neighbors=2).fit(grid).kneighbors(grid)[0][:, 1]
    np.testing.assert_allclose(distance, 50, atol=1e-6)


def test_grid_lies_on_tissue_and_is_predicted(slide):
    sth.pp.tissue_grid(slide, pitch_um=150)
    model = sth.tl.fit(slide, method="color", table_key="expression")
    sth.tl.predict(slide, model, table_key="tissue_grid_table", new_table_key="predicted")
    predicted = slide.tables["predicted"]
    assert predicted.n_obs == len(slide.shapes["tissue_grid"])
    assert list(predicted.var_names) == list(model.genes)
    assert np.isfinite(predicted.X).all()


def test_grid_has_the_physical_size_asked_for(slide):
    sth.pp.tissue_grid(slide, pitch_um=150, diameter_um=80)
    section = read_sections(slide, ElementKeys(table_key="tissue_grid_table"))[0]
    assert section.diameter * section.um_per_px == pytest.approx(80, rel=1e-3)
    nearest = NearestNeighbors(n_neighbors=2).fit(section.centers).kneighbors(section.centers)[0][:, 1]
    assert np.median(nearest) * section.um_per_px == pytest.approx(150, rel=1e-3)


@pytest.fixture
def unknown(slide):
    """The slide without its unit, whose spots are not on an array."""
    del slide.attrs["sthisto"]
    del slide["expression"].obs["array_row"]
    return slide


def test_unknown_resolution_is_an_error(unknown):
    with pytest.raises(ValueError, match="um_per_px"):
        sth.pp.tissue_grid(unknown)


def test_resolution_comes_from_the_array_of_visium_spots_on_the_same_image(slide, caplog):
    expected = read_sections(slide)[0].um_per_px
    del slide.attrs["sthisto"]
    sth.pp.tissue_grid(slide, pitch_um=150)
    (grid,) = read_sections(slide, ElementKeys(table_key="tissue_grid_table"))
    assert grid.um_per_px == pytest.approx(expected, rel=1e-3)
    assert not caplog.text
    del slide.attrs["sthisto"]
    sth.pp.tissue_grid(slide, pitch_um=150, um_per_px=2 * expected, key_added="other")
    assert f"{2 * expected:g} µm per px are stated for 'S1_image'" in caplog.text


def test_resolution_that_was_stated_once_is_known_from_then_on(unknown):
    sth.pp.tissue_grid(unknown, um_per_px=0.8)
    assert read_sections(unknown, ElementKeys(table_key="tissue_grid_table"))[0].um_per_px == pytest.approx(0.8)


def test_resolution_that_the_data_know_is_left_as_it_is(slide):
    before = {**slide.attrs["sthisto"]}
    sth.pp.tissue_grid(slide, um_per_px=2 * read_sections(slide)[0].um_per_px)
    assert slide.attrs["sthisto"] == before


def test_a_unit_that_contradicts_an_array_is_said(slide, caplog):
    system = read_sections(slide)[0].coordinate_system
    slide.attrs["sthisto"] = {"um_per_unit": {system: 2 * slide.attrs["sthisto"]["um_per_unit"][system]}}
    read_sections(slide)
    assert "for 'S1_spots', whose array or coordinate system says" in caplog.text


def test_taken_name_is_refused(slide):
    with pytest.raises(ValueError, match="already"):
        sth.pp.tissue_grid(slide, key_added="S1_spots")
