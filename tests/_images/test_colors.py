"""Which channels are colors, by the words of their names."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from PIL import Image

from sthisto._images.colors import brightest_value, cmyk_to_rgb, find_channels, over_white, to_uint8, ycbcr_to_rgb

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    ("labels", "rgb", "alpha"),
    [
        ("rgb", (0, 1, 2), None),
        ("BGR", (2, 1, 0), None),
        ("argb", (1, 2, 3), 0),
        (["Red", "Green", "Blue"], (0, 1, 2), None),
        (["channel_blue", "channel_green", "channel_red", "alpha"], (2, 1, 0), 3),
        (["Brightfield R", "Brightfield G", "Brightfield B"], (0, 1, 2), None),
        ([0, 1, 2], (0, 1, 2), None),
        (["c0", "c1", "c2"], (0, 1, 2), None),
        (["Channel:0:0", "Channel:0:1", "Channel:0:2"], (0, 1, 2), None),
        (["0", "1", "2", "3"], (0, 1, 2), 3),
    ],
)
def test_channels_are_found_by_whole_words(labels, rgb, alpha, caplog):
    with caplog.at_level(logging.WARNING, "sthisto"):
        channels = find_channels(list(labels), "The image")
    assert channels.rgb == rgb
    assert channels.alpha == alpha
    assert not caplog.records


@pytest.mark.parametrize(
    "labels",
    [
        ["DAPI", "CD45", "PanCK"],
        ["DAPI", "Alexa 488", "Cy5"],
        ["red fluorescence", "green fluorescence", "blue fluorescence"],
        ["b-actin", "GFP", "R-phycoerythrin"],
        ["405", "488", "561"],
        ["461 nm", "520 nm", "617 nm"],
        ["r", "g", "b", "DAPI"],
        ["Boundary", "RNA", "Alpha-tubulin", "Golgi"],
        ["DAPI", "ATP1A1/CD45/E-Cadherin", "18S", "AlphaSMA/Vimentin"],
    ],
)
def test_fluorescence_is_refused(labels):
    with pytest.raises(ValueError, match=r"The image has the channels .* as a fluorescence image has"):
        find_channels(labels, "The image")


def test_names_that_say_nothing_are_taken_in_order_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "sthisto"):
        assert find_channels(["first", "second", "third"], "The image").rgb == (0, 1, 2)
        assert find_channels(["r", "g", "b", "mask"], "The image").alpha is None
    assert "'first', 'second', 'third': they are taken for red, green, blue" in caplog.text
    assert "has four channels: 'mask' is left out" in caplog.text


@pytest.mark.parametrize("n_channels", [0, 1, 2, 5])
def test_other_numbers_of_channels_are_refused(n_channels):
    with pytest.raises(ValueError, match=rf"has {n_channels} channel\(s\)"):
        find_channels(list(range(n_channels)), "The image")


def test_cmyk_and_ycbcr_agree_with_pillow():
    expected = Image.frombytes("CMYK", (50, 40), PIXELS.tobytes())
    np.testing.assert_allclose(cmyk_to_rgb(PIXELS), np.asarray(expected.convert("RGB")), atol=1)
    stored = np.asarray(Image.frombytes("RGB", (50, 40), PIXELS[..., :3].tobytes()).convert("YCbCr"))
    np.testing.assert_allclose(ycbcr_to_rgb(stored), PIXELS[..., :3], atol=3)


def test_transparency_agrees_with_pillow():
    colors = Image.frombytes("RGBA", (50, 40), PIXELS.tobytes())
    white = Image.new("RGBA", (50, 40), "white")
    expected = np.asarray(Image.alpha_composite(white, colors).convert("RGB"))
    np.testing.assert_allclose(over_white(PIXELS[..., :3], PIXELS[..., 3]), expected, atol=1)


@pytest.mark.parametrize(
    ("dtype", "brightest", "white"),
    [
        ("uint8", 3, 255),
        ("uint16", 255, 255),
        ("uint16", 1000, 1023),
        ("uint16", 4095, 4095),
        ("int32", 16_000, 16_383),
        ("uint16", 40_000, 65_535),
        ("float32", 1.0, 1),
        ("float64", 1.4, 1),
        ("float16", 200, 255),
    ],
)
def test_white_follows_from_the_type_and_the_range(dtype, brightest, white):
    assert brightest_value(np.dtype(dtype), 0, brightest, "The image") == white
    values = np.array([0, white], dtype=dtype)
    np.testing.assert_array_equal(to_uint8(values, white), [0, 255])


@pytest.mark.parametrize(
    ("dtype", "lowest", "brightest"),
    [("float32", -1, 1), ("float32", 0, 300), ("float32", 0, np.inf), ("int64", 0, 1e6)],
)
def test_ranges_that_are_no_colors_are_refused(dtype, lowest, brightest):
    with pytest.raises(ValueError, match="The image is of"):
        brightest_value(np.dtype(dtype), lowest, brightest, "The image")
