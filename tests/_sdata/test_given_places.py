"""Places of somebody's prediction: what is no match is refused with what would be one."""

from dataclasses import replace

import numpy as np
import pytest
from builders import make_sdata

from sthisto._sdata.given_places import check_places
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import read_sections

PITCH = 20.0


@pytest.fixture(scope="module")
def section():
    """An oblong section of 12 by 8 spots whose px are half a µm wide."""
    x, y = np.meshgrid(np.arange(12), np.arange(8))
    centers = PITCH * np.column_stack([x.ravel(), y.ravel()]) + [300.0, 100.0]
    (one,) = read_sections(make_sdata(), ElementKeys(um_per_px=0.5))
    return replace(one, centers=centers, rows=np.arange(len(centers)))


@pytest.mark.parametrize(
    ("move", "reason"),
    [
        (lambda xy: xy + np.array([0, PITCH]), "100% do if they are shifted by 0, -20 px"),
        (lambda xy: xy - np.array([3 * PITCH, PITCH]), "100% do if they are shifted by 60, 20 px"),
        (lambda xy: xy + np.array([0.6 * PITCH, 0]), "shifted by -12, 0 px"),
    ],
)
def test_places_that_fit_otherwise_are_refused_with_what_fits(section, move, reason):
    with pytest.raises(ValueError, match=reason):
        check_places(section, move(section.centers), PITCH)


@pytest.mark.parametrize(("swapped", "um"), [(True, False), (False, True), (True, True)])
def test_swapped_axes_and_another_unit_are_named(section, swapped, um):
    near = replace(section, centers=section.centers - [260, 80])  # near the origin both readings overlap
    xy = near.centers[:, ::-1] if swapped else near.centers
    names = (["they are in µm"] if um else []) + (["x and y are swapped"] if swapped else [])
    with pytest.raises(ValueError, match=f"100% do if {' and '.join(names)}"):
        check_places(near, xy * 0.5 if um else xy, PITCH)


def test_places_without_a_match_are_left_to_the_message_that_names_the_distance(section):
    check_places(section, section.centers + 5000, PITCH)


def test_few_common_places_are_refused(section):
    with pytest.raises(ValueError, match="another unit, image or section"):
        check_places(section, np.concatenate([section.centers[:20], section.centers[:60] * 7 + 3]), PITCH)


@pytest.mark.parametrize(
    "move",
    [
        lambda xy: xy + np.array([0.4 * PITCH, 0.2 * PITCH]),  # the corner of a spot instead of its center
        lambda xy: xy[::2],  # fewer spots
        lambda xy: np.concatenate([xy, xy + np.array([12 * PITCH, 0])]),  # spots beside the tissue too
        lambda xy: xy + np.random.default_rng(0).normal(0, 0.1 * PITCH, xy.shape),
    ],
)
def test_fewer_more_and_inexact_places_are_no_reason_for_a_warning(section, move, caplog):
    check_places(section, move(section.centers), PITCH)
    assert not caplog.text


def test_another_tools_own_grid_is_warned_of(section, caplog):
    x, y = np.meshgrid(np.arange(12), np.arange(9))
    square = 1.15 * PITCH * np.column_stack([x.ravel(), y.ravel()]) + [305.0, 107.0]
    check_places(section, square, PITCH)
    assert "lie elsewhere" in caplog.text
