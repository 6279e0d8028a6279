from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

import sthisto as sth
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import read_sections

INKS = {"blue": (40, 60, 170), "green": (20, 120, 70), "black": (25, 25, 30), "red": (200, 35, 50)}


@pytest.fixture(scope="module", params=[0.7, 1.4], ids=lambda um: f"{um} µm per px")
def clean(request):
    return sth.datasets.synthetic(n_sections=1, n_patients=1, n_spots=40, um_per_px=request.param, seed=3)


def half_spoiled(sdata, spoil, share=0.5):
    """Return the data with a fault in the left share, and (n_obs,) bool of the spots there and right of it."""
    image = sdata["S1_image"]
    pixels = np.moveaxis(np.asarray(image["scale0"]["image"].data), 0, -1).copy()
    middle = round(share * pixels.shape[1])
    um_per_px = read_sections(sdata)[0].um_per_px
    pixels[:, :middle] = np.clip(spoil(pixels[:, :middle], um_per_px), 0, 255).astype(np.uint8)
    table = sdata["expression"].copy()
    parsed = Image2DModel.parse(
        pixels,
        dims=("y", "x", "c"),
        c_coords=["r", "g", "b"],
        scale_factors=[2, 2],
        transformations=get_transformation(image, get_all=True),
    )
    new = type(sdata)(
        images={"S1_image": parsed}, shapes=dict(sdata.shapes), tables={"expression": table}, attrs=dict(sdata.attrs)
    )
    x = table.obsm["spatial"][:, 0]
    return new, x < middle - 50 / um_per_px, x > middle + 50 / um_per_px


def area(values, spoiled, good):
    kept = spoiled | good
    return roc_auc_score(spoiled[kept], values[kept])


def test_faultless_sections_are_good(clean):
    sth.pp.quality(clean)
    obs = clean["expression"].obs
    assert (obs["sthisto_quality"] > 0.5).all()
    assert (obs["sthisto_pen"] < 0.2).all()
    assert (obs["sthisto_tissue"] > 0.5).mean() > 0.75
    assert "sthisto_usable" not in obs


def test_blur_is_told_and_rises_with_its_width(clean):
    medians = []
    for sigma in (1.5, 4.0):
        sdata, spoiled, good = half_spoiled(
            clean, lambda part, um, sigma=sigma: ndimage.gaussian_filter(part, (sigma / um, sigma / um, 0))
        )
        sth.pp.quality(sdata)
        blur = sdata["expression"].obs["sthisto_blur"].to_numpy()
        assert area(blur, spoiled, good) > 0.98
        medians.append(np.median(blur[spoiled]))
    assert medians[1] > medians[0] > 0.5


@pytest.mark.parametrize(("ink", "cover"), [("blue", 1.0), ("green", 1.0), ("black", 0.6), ("red", 0.6)])
def test_marker_is_told_in_every_color(clean, ink, cover):
    def draw(part, um):
        width, period = round(170 / um), round(240 / um)
        line = (np.arange(len(part)) % period < width)[:, None, None]
        light = (np.array(INKS[ink]) / 255) ** cover * (part / 255) ** (1 - 0.8 * cover)
        return np.where(line, 255 * light, part)

    sdata, spoiled, good = half_spoiled(clean, draw)
    sth.pp.quality(sdata)
    pen = sdata["expression"].obs["sthisto_pen"].to_numpy()
    assert area(pen, spoiled, good) > 0.95
    assert pen[good].max() < 0.3


def test_folds_are_told(clean):
    def fold(part, um):
        return 255.0 * (part / 255.0) * (part[::-1] / 255.0)

    sdata, spoiled, good = half_spoiled(clean, fold, 0.3)
    sth.pp.quality(sdata)
    assert area(sdata["expression"].obs["sthisto_fold"].to_numpy(), spoiled, good) > 0.8


def test_spots_of_bad_quality_are_neither_fitted_on_nor_predicted(clean):
    sdata, spoiled, good = half_spoiled(clean, lambda part, um: ndimage.gaussian_filter(part, (5 / um, 5 / um, 0)))
    sth.pp.quality(sdata, min_quality=0.5)
    (section,) = read_sections(sdata)
    assert not spoiled[section.rows].any()
    model = sth.tl.fit(sdata, method="color")
    sth.tl.predict(sdata, model)
    predicted = np.isfinite(sdata["expression"].layers["sthisto_pred"][:, 0])
    assert not predicted[spoiled].any()
    assert predicted[good].mean() > 0.9
    sth.pp.quality(sdata)
    assert len(read_sections(sdata)[0]) == sdata["expression"].n_obs


def test_grid_leaves_out_what_is_marked(clean):
    def draw(part, um):
        return np.broadcast_to(INKS["green"], part.shape)

    sdata, _, _ = half_spoiled(clean, draw)
    sth.pp.tissue_grid(sdata, min_quality=0.5)
    (grid,) = read_sections(sdata, ElementKeys(table_key="tissue_grid_table"))
    assert (grid.centers[:, 0] * grid.um_per_px > sdata["S1_image"]["scale0"].sizes["x"] * grid.um_per_px / 2).all()
    assert (sdata["tissue_grid_table"].obs["sthisto_quality"] >= 0.5).all()
    with pytest.raises(ValueError, match="Lower min_quality"):
        sth.pp.tissue_grid(sdata, min_quality=1.0, key_added="other")


def test_coarse_image_is_not_taken_for_a_blurred_one():
    sdata = sth.datasets.synthetic(n_sections=1, n_patients=1, n_spots=60, um_per_px=3.0)
    sth.pp.quality(sdata)
    assert np.median(sdata["expression"].obs["sthisto_blur"]) < 0.3


def test_unknown_resolution_is_an_error(clean):
    sdata, _, _ = half_spoiled(clean, lambda part, um: part)
    del sdata.attrs["sthisto"]
    del sdata["expression"].obs["array_row"]
    with pytest.raises(ValueError, match="um_per_px"):
        sth.pp.quality(sdata)
    sth.pp.quality(sdata, um_per_px=0.8)
    assert "sthisto_blur" in sdata["expression"].obs


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        ({"um_per_px": 0.01}, "1e\\+04 px wide at 0.01 µm per px.*correct um_per_px"),
        ({"um_per_px": 90.0}, "1.111 px wide at 90 µm per px"),
        ({"width_um": 9000}, "squares of 9000 µm"),
        ({"width_um": 0.5}, "squares of 0.5 µm"),
    ],
)
def test_squares_of_a_pixel_or_beyond_the_image_are_refused_before_it_is_read(clean, monkeypatch, arguments, phrase):
    monkeypatch.setattr("sthisto._images.patches.PatchSource.batches", lambda *_: pytest.fail("a pixel was read"))
    with pytest.raises(ValueError, match=phrase):
        sth.pp.quality(clean, **arguments)
    with pytest.raises(ValueError, match=r"no spot fits into image|squares of 100 µm"):
        sth.pp.tissue_grid(clean, um_per_px=0.01, image_key="S1_image", key_added="new")
    with pytest.raises(ValueError, match=r"which are 1.111 px wide"):
        sth.pp.tissue_grid(clean, um_per_px=90.0, image_key="S1_image", key_added="new", min_quality=0.5)
