"""Whether the image is the one that the coordinates belong to."""

from __future__ import annotations

import logging

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from visium import HIRES, Visium

import sthisto as sth
from sthisto._images.placement import compare_pictures, compare_sizes
from sthisto._sdata.sections import read_sections


@pytest.fixture(scope="module")
def stained():
    """A section whose image has colors and no symmetry."""
    section = Visium(n_rows=14)
    rows, columns = np.mgrid[: section.image.shape[0], : section.image.shape[1]]
    light = 20 * np.sin(columns / 70) + 15 * np.cos(rows / 45 + columns / 90)
    section.image = np.clip(section.image * [0.95, 0.7, 0.85] + light[..., None], 0, 255).astype(np.uint8)
    return section


def convert(section: Visium, image, **options):
    return sth.io.from_anndata(section.adata(), image=np.ascontiguousarray(image), **options)


FAULTS = {
    "mirrored left to right": lambda image: image[:, ::-1],
    "mirrored top to bottom": lambda image: image[::-1],
    "turned by 180 degrees": lambda image: image[::-1, ::-1],
    "turned by 90 degrees": np.rot90,
    "x and y are swapped": lambda image: image.swapaxes(0, 1),
    "channels are in the order bgr": lambda image: image[..., ::-1],
    "channels are in the order rbg": lambda image: image[..., [0, 2, 1]],
    "brightness is inverted": lambda image: 255 - image,
    "2 times as coarse": lambda image: image[::2, ::2],
    "size of the overview itself": lambda image: image[2::4, 2::4],
    "another image, or was cropped": lambda image: image[:, 30:],
    "shows something else": lambda image: np.random.default_rng(0).integers(0, 255, image.shape, dtype=np.uint8),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_image_of_another_pose_or_kind_is_refused_and_its_fault_named(stained, fault, caplog):
    wrong = FAULTS[fault](stained.image)
    with pytest.raises(ValueError, match=rf"'liver' does not fit its overview 'hires'.*{fault}.*check_image=False"):
        convert(stained, wrong)
    with caplog.at_level(logging.WARNING, "sthisto"):
        convert(stained, wrong, check_image=False, allow_outside=True)
    assert fault in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: image[:-3, :-2],
        lambda image: np.clip(image * 0.8 + 20, 0, 255).astype(np.uint8),
        lambda image: image / 255,
        lambda image: da.from_array(image, chunks=(100, 100, 3)),
    ],
)
def test_the_right_image_passes_in_silence(stained, change, caplog):
    with caplog.at_level(logging.WARNING, "sthisto"):
        image = change(stained.image)
        sth.io.from_anndata(stained.adata(), image=image)
    assert not caplog.records


def test_another_part_of_the_tissue_is_warned_of(stained, caplog):
    moved = np.roll(stained.image, 7, axis=1)
    with caplog.at_level(logging.WARNING, "sthisto"):
        convert(stained, moved)
    assert "it may show another section, or be moved" in caplog.text


def test_without_an_overview_nothing_is_compared(stained):
    adata = stained.adata()
    adata.uns["spatial"]["liver"]["images"] = {"hires": np.zeros((9, 9))}
    assert len(read_sections(sth.io.from_anndata(adata, image=stained.image[:, ::-1]))[0]) == adata.n_obs


def test_lowres_is_compared_where_hires_is_missing(stained):
    adata = stained.adata()
    del adata.uns["spatial"]["liver"]["images"]["hires"]
    with pytest.raises(ValueError, match=r"overview 'lowres'.*mirrored"):
        sth.io.from_anndata(adata, image=stained.image[:, ::-1])


@pytest.mark.parametrize("scale", [0.05, HIRES, 0.9])
@pytest.mark.parametrize("size", [(1200, 900), (5001, 777)])
def test_sizes_fit_within_a_percent(scale, size):
    overview = tuple(round(side * scale) for side in size)
    assert compare_sizes(size, overview, scale) == ""
    assert "another image" in compare_sizes((round(size[0] * 1.1), size[1]), overview, scale)
    assert "times as fine" in compare_sizes(tuple(side * 3 for side in size), overview, scale)


def test_a_picture_without_features_is_no_overview():
    assert compare_pictures(np.zeros((20, 20, 3), np.uint8), np.full((20, 20, 3), 9, np.uint8)).fault == ""


# Where the spots lie


@pytest.mark.parametrize(
    ("columns", "order"),
    [
        (("x", "y"), (0, 1)),
        (("y", "x"), (1, 0)),
        (("pxl_row_in_fullres", "pxl_col_in_fullres"), (1, 0)),
        (("imagerow", "imagecol"), (1, 0)),
        (("array_row", "array_col", "pxl_row", "pxl_col"), (0, 0, 1, 0)),
        (("z", "Y", "X"), (0, 1, 0)),
        (("pixelRow", "pixelCol"), (1, 0)),
        ((0, 1), (0, 1)),
    ],
)
def test_names_of_columns_say_which_is_x(visium, columns, order):
    adata = visium.adata()
    values = {name: visium.xy[:, axis].astype(str) for name, axis in zip(columns, order, strict=True)}
    adata.obsm["spatial"] = pd.DataFrame(values, index=adata.obs_names)
    (section,) = read_sections(sth.io.from_anndata(adata, image=visium.image))
    np.testing.assert_allclose(section.centers, visium.xy)


def test_columns_without_a_meaning_are_taken_in_order_with_a_warning(visium, caplog):
    adata = visium.adata()
    adata.obsm["spatial"] = pd.DataFrame(visium.xy, index=adata.obs_names, columns=["first", "second"])
    with caplog.at_level(logging.WARNING, "sthisto"):
        (section,) = read_sections(sth.io.from_anndata(adata, image=visium.image))
    assert "'first', 'second', do not say which is x" in caplog.text
    np.testing.assert_allclose(section.centers, visium.xy)


def test_an_array_that_lies_mirrored_is_warned_of(stained, caplog):
    adata = stained.adata()
    adata.obsm["spatial"] = np.ascontiguousarray(stained.xy[:, ::-1])
    with caplog.at_level(logging.WARNING, "sthisto"):
        sth.io.from_anndata(adata, image=stained.image, allow_outside=True)
    assert "lies mirrored in its image: x and y of the coordinates are probably swapped" in caplog.text


def test_a_turned_array_is_not_called_mirrored(stained, caplog):
    turned = stained.adata()
    turned.obsm["spatial"] = np.array(stained.image.shape[1::-1]) - stained.xy
    del turned.uns["spatial"]["liver"]["images"]
    with caplog.at_level(logging.WARNING, "sthisto"):
        sth.io.from_anndata(turned, image=stained.image)
    assert not caplog.records


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda xy: xy[:, ::-1].copy(), r"x and y are probably swapped"),
        (lambda xy: xy * 4, r"a smaller version, such as .hires.*at least 3\.\d times as large"),
        (lambda xy: xy - [200, 0], "coordinate systems of both probably don't match"),
    ],
)
def test_spots_outside_are_refused_with_what_was_probably_mixed_up(visium, change, why, caplog):
    adata = visium.adata()
    image = np.ascontiguousarray(visium.image)
    adata.obsm["spatial"] = change(visium.xy)
    with pytest.raises(ValueError, match=rf"of 120 spots of library 'liver' lie outside.*{why}.*allow_outside=True"):
        sth.io.from_anndata(adata, image=image)
    with caplog.at_level(logging.WARNING, "sthisto"):
        (section,) = read_sections(sth.io.from_anndata(adata, image=image, allow_outside=True))
    assert 0 < len(section) < 108
    assert f"{120 - len(section)} of 120 spots of 'liver_spots' lie outside" in caplog.text


def test_a_tenth_of_the_spots_may_lie_outside(visium):
    adata = visium.adata()
    adata.obsm["spatial"][:12] -= 5000
    assert len(read_sections(sth.io.from_anndata(adata, image=visium.image))[0]) == 108
    adata.obsm["spatial"][12] -= 5000
    with pytest.raises(ValueError, match="13 of 120 spots"):
        sth.io.from_anndata(adata, image=visium.image)


def test_coordinates_in_px_of_another_resolution_are_warned_of(visium, caplog):
    adata = visium.adata()
    adata.obsm["spatial"] = visium.xy * HIRES
    with caplog.at_level(logging.WARNING, "sthisto"):
        sth.io.from_anndata(adata, image=visium.image)
    assert "would be 260 µm wide" in caplog.text


@pytest.mark.parametrize("change", ["factor", "image"])
def test_overviews_of_two_full_resolutions_are_refused(adata, visium, caplog, change):
    entry = adata.uns["spatial"]["liver"]
    if change == "factor":
        entry["scalefactors"]["tissue_hires_scalef"] = 0.18
    else:
        entry["images"]["hires"] = entry["images"]["hires"][:, :90]
    with pytest.raises(ValueError, match="images 'hires' and 'lowres' of library 'liver' are of"):
        sth.io.from_anndata(adata)
    with caplog.at_level(logging.WARNING, "sthisto"):
        sth.io.from_anndata(adata, check_image=False, allow_outside=True)
    assert "a scale factor or an image is of something else" in caplog.text


def test_spots_that_would_overlap_are_warned_of(adata, visium, caplog):
    adata.obs = adata.obs[["in_tissue"]]
    with caplog.at_level(logging.WARNING, "sthisto"):
        sth.io.from_anndata(adata)
        assert "overlap" not in caplog.text
        adata.obsm["spatial"] = visium.xy * 0.25  # px of the hires image
        sth.io.from_anndata(adata)
    assert "are 10 px apart and 26 px wide" in caplog.text
