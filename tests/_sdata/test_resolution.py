"""What the array of Visium says of an image, whatever it lacks."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from builders import similarity

from sthisto._sdata.resolution import um_per_px_of_visium, um_per_unit_of_xenium


def test_um_of_visium_come_from_the_rows_that_have_a_position():
    rows, columns = np.mgrid[:6, :6]
    columns = (2 * columns + rows % 2).ravel()
    xy = np.column_stack([columns * 20.0, rows.ravel() * 20 * np.sqrt(3)])
    obs = pd.DataFrame({"array_row": rows.ravel().astype(str), "array_col": columns.astype(float)})
    obs.loc[3, "array_row"], obs.loc[9, "array_col"] = "NA", np.nan
    assert um_per_px_of_visium(obs, xy, "spots") == pytest.approx(2.5)


def test_a_lattice_that_lies_mirrored_is_warned_of(caplog):
    rows, columns = np.mgrid[:6, :6]
    columns = (2 * columns + rows % 2).ravel()
    xy = np.column_stack([columns * 20.0, rows.ravel() * 20 * np.sqrt(3)])
    obs = pd.DataFrame({"array_row": rows.ravel(), "array_col": columns})
    with caplog.at_level(logging.WARNING, "sthisto"):
        um_per_px_of_visium(obs, xy @ similarity(angle=100)[:2, :2], "spots")
        assert not caplog.records
        assert um_per_px_of_visium(obs, xy * [-1, 1], "spots") == pytest.approx(2.5)
    assert "array of 'spots' lies mirrored" in caplog.text


def lattice(n=8):
    rows, columns = (part.ravel() for part in np.mgrid[:n, :n])
    columns = 2 * columns + rows % 2
    obs = pd.DataFrame({"array_row": rows, "array_col": columns})
    return obs, np.column_stack([columns * 20.0, rows * 20 * np.sqrt(3)]) @ similarity(angle=30)[:2, :2]


@pytest.mark.parametrize("kind", ["shuffled", "half", "next", "one"])
def test_spots_that_do_not_lie_where_the_array_puts_them_are_warned_of(caplog, kind):
    obs, xy = lattice()
    order = np.arange(len(xy))
    shuffled = np.random.default_rng(0).permutation(len(xy))
    wrong = {"shuffled": shuffled, "half": np.r_[shuffled[shuffled < 32], order[32:]], "next": np.roll(order, 1)}
    wrong["one"] = np.r_[order[:20], 30, order[21:]]
    with caplog.at_level(logging.WARNING, "sthisto"):
        assert um_per_px_of_visium(obs, xy + np.random.default_rng(1).normal(0, 2, xy.shape), "spots") == (
            pytest.approx(2.5, rel=0.01)
        )
        assert not caplog.records
        um = um_per_px_of_visium(obs, xy[wrong[kind]], "spots")
    assert "of 'spots' do not lie where their array_row and array_col put them" in caplog.text
    assert um == (pytest.approx(2.5, rel=0.01) if kind == "one" else None)


def test_positions_of_the_array_in_place_of_px_are_warned_of(caplog):
    obs, _ = lattice()
    with caplog.at_level(logging.WARNING, "sthisto"):
        assert um_per_px_of_visium(obs, obs[["array_col", "array_row"]].to_numpy(dtype=float), "spots") is None
    assert "stretched against its array, 1.73 times" in caplog.text


def test_bins_are_never_called_mirrored(caplog):
    rows, columns = (part.ravel() for part in np.mgrid[:6, :6])
    obs = pd.DataFrame({"array_row": rows, "array_col": columns})
    xy = np.column_stack([-columns, rows]) * 16.0  # Space Ranger counts the columns of Visium HD from the right
    with caplog.at_level(logging.WARNING, "sthisto"):
        assert um_per_px_of_visium(obs, xy, "crc_square_008um") == pytest.approx(0.5)
        assert um_per_px_of_visium(obs, xy, "bins", bin_size_um=8) == pytest.approx(0.5)
        assert um_per_px_of_visium(obs, xy, "bins") is None
    assert not caplog.records


@pytest.mark.parametrize(("unit", "found"), [(0.2125, 0.2125), (1.0, 1.0), (0.5, None)])
def test_units_of_xenium_are_known_from_the_areas_of_its_cells(unit, found):
    cell_area = np.random.default_rng(0).uniform(20, 200, 50)
    areas = cell_area / unit**2 * np.random.default_rng(1).normal(1, 0.03, 50)
    areas[:3] = np.nan
    obs = pd.DataFrame({"cell_area": cell_area, "transcript_counts": 10})
    assert um_per_unit_of_xenium(obs, areas) == found
    assert um_per_unit_of_xenium(obs.drop(columns="transcript_counts"), areas) is None


def test_xenium_without_a_known_area_has_no_unit():
    obs = pd.DataFrame({"cell_area": [np.nan, 0.0], "transcript_counts": 10})
    assert um_per_unit_of_xenium(obs, np.array([1.0, 2.0])) is None
