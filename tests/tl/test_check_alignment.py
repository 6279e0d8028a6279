from __future__ import annotations

import numpy as np
import pytest
from builders import Region, make_sdata
from spatialdata import SpatialData
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation

import sthisto as sth
from sthisto._scoring.placements import Placement, orientations
from sthisto._sdata.sections import read_sections

PITCH_UM = 100


@pytest.fixture(scope="module")
def true():
    return sth.datasets.synthetic(n_sections=2, n_patients=2, n_spots=90, um_per_px=1.6, seed=5)


def planted(sdata, move=lambda xy, pitch: xy, images=("S1_image", "S2_image")):
    """Return the data with the spots of S1 moved, and the spots of both on some images."""
    shapes = {}
    for section, image in zip(read_sections(sdata), images, strict=True):
        xy = section.centers
        if section.region == "S1_spots":
            xy = move(xy, PITCH_UM / section.um_per_px)
        shapes[section.region] = ShapesModel.parse(
            xy,
            geometry=0,
            radius=10,
            index=section.table.obs["spot_id"].to_numpy()[section.rows],
            transformations=get_transformation(sdata[image], get_all=True),
        )
    attrs = {"sthisto": {**sdata.attrs["sthisto"], "allow_outside": True}}
    return SpatialData(
        images=dict(sdata.images), shapes=shapes, tables={"expression": sdata["expression"].copy()}, attrs=attrs
    )


def half_turn(xy, _):
    return xy.min(axis=0) + xy.max(axis=0) - xy


def mirror_and_turn(xy, _):
    middle = (xy.min(axis=0) + xy.max(axis=0)) / 2
    return (xy - middle)[:, ::-1] * [1.0, 1.0] + middle


def test_true_sections_are_aligned_and_nothing_is_written(true):
    before = {*true["expression"].obs.columns}, {*true["expression"].uns}
    found = sth.tl.check_alignment(true)
    assert list(found["verdict"]) == ["aligned", "aligned"]
    assert (found["shift_um"] <= 0.76 * PITCH_UM).all()
    assert list(found["image_of"]) == ["S1_spots", "S2_spots"]
    assert ({*true["expression"].obs.columns}, {*true["expression"].uns}) == before


@pytest.mark.parametrize(
    ("x", "y"), [(1.0, 0.0), (-1.2, -1.6)], ids=["one pitch to the right", "two pitches up and left"]
)
def test_shift_is_found_with_its_direction(true, x, y):
    moved = planted(true, lambda xy, pitch: xy + pitch * np.array([x, y]))
    row = sth.tl.check_alignment(moved, shapes_key="S1_spots").iloc[0]
    assert row["verdict"] == "misaligned"
    assert (row["turn"], row["mirrored"]) == (0, False)
    found = np.array([row["shift_x_um"], row["shift_y_um"]])
    assert np.linalg.norm(found + PITCH_UM * np.array([x, y])) < 0.75 * PITCH_UM
    assert row["best_z"] > row["z"]


@pytest.mark.parametrize("move", [half_turn, mirror_and_turn])
def test_turns_and_mirrors_are_found(true, move):
    moved = planted(true, move)
    row = sth.tl.check_alignment(moved, shapes_key="S1_spots").iloc[0]
    assert row["verdict"] == "misaligned"
    at, was = read_sections(moved)[0], read_sections(true)[0]
    middle = (at.centers.min(axis=0) + at.centers.max(axis=0)) / 2
    shift = np.array([row["shift_x_px"], row["shift_y_px"]])
    back = Placement(int(row["turn"]), bool(row["mirrored"]), middle, shift)(at.centers)
    assert len(at) == len(was)
    assert np.median(np.linalg.norm(back - was.centers, axis=1)) < 0.8 * PITCH_UM / at.um_per_px


def test_swapped_images_are_found(true):
    found = sth.tl.check_alignment(planted(true, images=("S2_image", "S1_image")))
    assert list(found["verdict"]) == ["swapped", "swapped"]
    assert list(found["image_of"]) == ["S2_spots", "S1_spots"]


def test_expression_without_a_place_cannot_tell(true):
    noise = planted(true)
    table = noise["expression"]
    table.X = table.X[np.random.default_rng(0).permutation(table.n_obs)]
    found = sth.tl.check_alignment(noise)
    assert set(found["verdict"]) == {"cannot tell"}
    assert found["shift_um"].isna().all()


@pytest.mark.parametrize("n_spots", [1, 60])
def test_spots_of_one_place_cannot_tell(n_spots):
    image = np.random.default_rng(0).integers(60, 230, (3, 240, 320)).astype(np.uint8)
    sdata = make_sdata(Region(image=image, centers=np.tile([[100.0, 100.0]], (n_spots, 1))))
    assert sth.tl.check_alignment(sdata)["verdict"].tolist() == ["cannot tell"]


def test_few_spots_cannot_tell(true):
    few = planted(true)
    few["expression"].obs["in_tissue"] = np.arange(few["expression"].n_obs) < 30
    assert set(sth.tl.check_alignment(few)["verdict"]) == {"cannot tell"}


def test_orientations_are_the_eight_symmetries():
    xy = np.array([[0.0, 0.0], [3.0, 0.0], [1.0, 2.0]])
    seen = {tuple(np.round(place(xy), 6).ravel()) for place in orientations(xy)}
    assert len(seen) == 8
    np.testing.assert_allclose(orientations(xy)[0](xy), xy)
