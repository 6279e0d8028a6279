"""Colors of stored pixels: which channels are red, green and blue, and how other models become RGB. NumPy only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sthisto._utils.logging import logger
from sthisto._utils.validate import listed

_COLOR: Final = {"r": "r", "red": "r", "g": "g", "green": "g", "b": "b", "blue": "b", "a": "a", "alpha": "a"}
_NEUTRAL: Final = frozenset({"", "channel", "chan", "ch", "c", "band", "sample", "plane", "brightfield", "bf", "none"})
_STAINS: Final = frozenset(
    {"dapi", "hoechst", "fitc", "tritc", "gfp", "rfp", "yfp", "cfp", "mcherry", "tdtomato", "alexa", "alexafluor"}
    | {"fluor", "fluorescence", "fluorescent", "autofluorescence", "texas", "dylight", "opal", "sytox", "draq5"}
    | {"rhodamine", "phycoerythrin", "polyt", "panck", "pancytokeratin", "membrane", "boundary", "18s", "vimentin"}
    | {"alphasma", "sma", "cadherin", "atp1a1", "actin", "tubulin", "keratin", "cytokeratin", "ki67", "dna"}
    | {"histone", "nm"}
)
_MARKER: Final = re.compile(r"cd\d+\w?|cy\d+|af\d{3}|dna\d+|ck\d+|cellbound\d*|boundary\d+|opal\d+|pd-?l?1")
_VISIBLE_NM: Final = (350, 850)
_BIT_DEPTHS: Final = (8, 10, 12, 14, 16)
_COLORLESS: Final = 25
BRIGHTEST_OF_UNIT_RANGE: Final = 1.5


@dataclass(frozen=True)
class Channels:
    """Positions of the channels: `rgb` of red, green and blue, `alpha` of transparency, or None.

    `is_named` tells whether the names say what the transparency is, rather than its place after three others.
    """

    rgb: tuple[int, int, int]
    alpha: int | None = None
    is_named: bool = False


def find_channels(labels: Sequence[Any], what: str, *, remedy: str = "Pass another image.") -> Channels:
    """Return which channels are red, green, blue and alpha, by whole words of their names.

    Parameters
    ----------
    labels
        Name of each channel; numbers where they have no names.
    what, remedy
        How errors name the image, and what they say to do next.

    Raises
    ------
    ValueError
        The image has another number of channels, or they are those of a fluorescence image.
    """
    n_channels = len(labels)
    if n_channels not in (3, 4):
        msg = f"{what} has {n_channels} channel(s); an H&E image in RGB has 3. {remedy}"
        raise ValueError(msg)
    words = [[word for word in re.split(r"[^a-z0-9]+", str(label).lower()) if word] for label in labels]
    colors = [_color(own) for own in words]
    are_unnamed = all(all(word.isdigit() or _numbered(word) for word in own) for own in words)
    other = [color is None for color in colors] if not are_unnamed else [False] * n_channels
    if any(_is_stain(own) for own in words) or (n_channels == 4 and sum(other) > 1):
        msg = (
            f"{what} has the channels {listed(map(str, labels))}, as a fluorescence image has; an H&E image has r, g "
            f"and b. {remedy}"
        )
        raise ValueError(msg)
    if {"r", "g", "b"} <= set(colors) and all(colors.count(one) == 1 for one in "rgb"):
        red, green, blue = (colors.index(one) for one in "rgb")
        if n_channels == 4 and "a" not in colors:
            logger.warning("%s has four channels: %s is left out.", what, listed([labels[other.index(True)]]))
        return Channels((red, green, blue), colors.index("a") if "a" in colors else None, is_named=True)
    if not are_unnamed:
        logger.warning("%s has the channels %s: they are taken for red, green, blue.", what, listed(map(str, labels)))
    return Channels((0, 1, 2), 3 if n_channels == 4 else None)


def _color(words: Sequence[str]) -> str | None:
    named = [_COLOR[word] for word in words if word in _COLOR]
    rest = [word for word in words if word not in _COLOR and word not in _NEUTRAL and not word.isdigit()]
    return named[0] if len(named) == 1 and not rest else None


def _numbered(word: str) -> bool:
    return word in _NEUTRAL or re.fullmatch(r"(?:channel|chan|ch|c|band|sample|plane)\d+", word) is not None


def _is_stain(words: Sequence[str]) -> bool:
    low, high = _VISIBLE_NM
    return any(
        word in _STAINS or _MARKER.fullmatch(word) or (word.isdigit() and low <= int(word) <= high) for word in words
    )


def brightest_value(dtype: np.dtype, lowest: float, brightest: float, what: str) -> float:
    """Return which stored value is white, from the type and the range that the values have.

    Integers of more than eight bits are of 10, 12, 14 or 16: of the first that holds them. Floats reach 1 or 255.

    Raises
    ------
    ValueError
        Values are negative, infinite or larger than any of these.
    """
    if dtype == np.uint8:
        return 255.0
    whites = [1.0, 255.0] if dtype.kind == "f" else [float(2**bits - 1) for bits in _BIT_DEPTHS]
    most = [BRIGHTEST_OF_UNIT_RANGE, 255.0] if dtype.kind == "f" else whites
    fits = [white for white, limit in zip(whites, most, strict=True) if brightest <= limit]
    if dtype.kind not in "fui" or lowest < 0 or not fits:
        msg = (
            f"{what} is of {dtype} and reaches from {lowest:g} to {brightest:g}; expected values between 0 and 1 or 0 "
            "and 255, or integers of up to 16 bits."
        )
        raise ValueError(msg)
    return fits[0]


def to_uint8(values: np.ndarray, white: float) -> np.ndarray:
    """Scale stored values of any shape to 0..255, uint8; NaN becomes white."""
    if values.dtype == np.uint8:
        return values
    scaled = np.rint(values.astype(np.float32, copy=False) * np.float32(255 / white))
    return np.clip(np.nan_to_num(scaled, nan=255.0), 0, 255).astype(np.uint8)


def over_white(colors: np.ndarray, alpha: np.ndarray, *, is_premultiplied: bool = False) -> np.ndarray:
    """Lay colors (..., 3) with alpha (...) over white, all uint8."""
    share = alpha[..., None].astype(np.float32) / 255
    own = colors.astype(np.float32) if is_premultiplied else colors * share
    return np.clip(np.rint(own + 255 * (1 - share)), 0, 255).astype(np.uint8)


def cmyk_to_rgb(inks: np.ndarray) -> np.ndarray:
    """Take cyan, magenta, yellow and black (..., 4) to RGB (..., 3), all uint8; 0 is no ink."""
    light = 255 - inks[..., :3].astype(np.float32)
    return np.rint(light * (255 - inks[..., 3:].astype(np.float32)) / 255).astype(np.uint8)


def is_ycbcr(values: np.ndarray) -> bool:
    """Return whether samples (height, width, 3) that a file calls YCbCr are that, not decoded to RGB already.

    The brightest pixels of a slide are glass: without color, so that Cb and Cr are 128 there, where RGB is bright.
    """
    bright = values[..., 0] >= np.quantile(values[..., 0], 0.9)
    return bool((np.abs(np.median(values[bright][:, 1:3], axis=0) - 128) < _COLORLESS).all())


def ycbcr_to_rgb(values: np.ndarray) -> np.ndarray:
    """Take full-range YCbCr of BT.601 (..., 3) to RGB, all uint8."""
    luma, blue, red = (values[..., i].astype(np.float32) - (0, 128, 128)[i] for i in range(3))
    rgb = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=-1)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
