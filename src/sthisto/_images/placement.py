"""Whether two pictures show the same tissue in the same place, and if not, what was done to one. NumPy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Final

import numpy as np
from PIL import Image

_LONGEST_PX: Final = 256
_MOST_READ_PX: Final = 4096
_UNLIKE: Final = 0.3
_LOW: Final = 0.9
_PLAINLY_BETTER: Final = 0.2
_PLAINLY_ALIKE: Final = 0.6
_COLORFUL: Final = 4.0
_SIZE_TOLERANCE: Final = 0.01

_UNDO: Final[dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    "mirrored left to right": lambda one: one[:, ::-1],
    "mirrored top to bottom": lambda one: one[::-1],
    "turned by 180 degrees": lambda one: one[::-1, ::-1],
    "turned by 90 degrees to the right": lambda one: np.rot90(one),
    "turned by 90 degrees to the left": lambda one: np.rot90(one, -1),
    "mirrored along the diagonal, x and y swapped": lambda one: one.swapaxes(0, 1),
    "mirrored along the other diagonal": lambda one: np.rot90(one, 2).swapaxes(0, 1),
}


@dataclass(frozen=True)
class Match:
    """How an image fits an overview.

    Attributes
    ----------
    fault
        What is plainly wrong with the image, such as "mirrored left to right"; empty where nothing is.
    doubt
        What may be wrong; empty where nothing is.
    correlation
        Correlation of the brightness of both, in place.
    """

    fault: str = ""
    doubt: str = ""
    correlation: float = float("nan")


def compare_sizes(image: tuple[int, int], overview: tuple[int, int], scale: float) -> str:
    """Return what is wrong with the size of an image for its overview, empty where it fits within a percent.

    Parameters
    ----------
    image, overview
        Height and width in px.
    scale
        Px of the overview per px of the image, as its scale factor says.
    """
    expected = tuple(round(side / scale) for side in overview)
    tolerance = [max(_SIZE_TOLERANCE * side, 1.0 / scale) for side in expected]

    def fits(size: tuple[int, int]) -> bool:
        return all(abs(a - b) <= most for a, b, most in zip(size, expected, tolerance, strict=True))

    if fits(image):
        return ""
    found = f"it has {image[1]} x {image[0]} px where its scale factor asks for {expected[1]} x {expected[0]}"
    if all(abs(a - b) <= 1 for a, b in zip(image, overview, strict=True)):
        return f"{found}: it is of the size of the overview itself, not of the full resolution"
    if fits((image[1], image[0])):
        return f"{found}: it is turned by 90 degrees, or its x and y are swapped"
    ratio = np.sqrt(np.prod(expected) / np.prod(image))
    if abs(image[0] * expected[1] / (image[1] * expected[0]) - 1) < 2 * _SIZE_TOLERANCE:
        return (
            f"{found}: it is another resolution of the image, {max(ratio, 1 / ratio):.3g} times as "
            f"{'coarse' if ratio > 1 else 'fine'}"
        )
    return f"{found}: it is another image, or was cropped"


def compare_pictures(image: np.ndarray, overview: np.ndarray) -> Match:
    """Compare two pictures of one place, (height, width, 3) in uint8, of any size."""
    height, width = _common_size(overview.shape[:2])
    one, other = (_resized(picture, height, width).astype(np.float32) for picture in (image, overview))
    other_gray = other.mean(axis=-1)
    if other_gray.std() < 1:  # a blank overview tells nothing
        return Match()
    in_place = _correlation(one.mean(axis=-1), other_gray)
    moved = {
        name: _correlation(_resized(undo(image), height, width).mean(axis=-1, dtype=np.float32), other_gray)
        for name, undo in _UNDO.items()
    }
    best = max(moved, key=lambda name: moved[name])
    if moved[best] > max(in_place + _PLAINLY_BETTER, _PLAINLY_ALIKE):
        return Match(fault=f"it is {best}", correlation=in_place)
    if in_place < -_PLAINLY_ALIKE:
        return Match(fault="its brightness is inverted", correlation=in_place)
    if in_place < _UNLIKE:
        return Match(fault="it shows something else, as another section does", correlation=in_place)
    if wrong := _channel_order(one, other):
        return Match(fault=f"its channels are in the order {wrong}", correlation=in_place)
    if in_place < _LOW:
        return Match(doubt="it may show another section, or be moved", correlation=in_place)
    return Match(correlation=in_place)


def shrink(pixels: Any) -> np.ndarray:
    """Return a small copy of (height, width, 3) numpy or dask pixels, at most 2 x `_LONGEST_PX` wide or high."""
    step = max(1, max(pixels.shape[:2]) // _MOST_READ_PX)
    picture = np.asarray(pixels[::step, ::step])
    factor = max(1.0, max(picture.shape[:2]) / (2 * _LONGEST_PX))
    return _resized(picture, *(max(1, round(side / factor)) for side in picture.shape[:2]))


def _common_size(shape: tuple[int, ...]) -> tuple[int, int]:
    factor = max(1.0, max(shape) / _LONGEST_PX)
    return max(1, round(shape[0] / factor)), max(1, round(shape[1] / factor))


def _resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    if picture.shape[:2] == (height, width):
        return picture
    resized = Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(resized)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Pearson's correlation of two (height, width) pictures, 0 where one is blank."""
    if one.std() < 1e-3 or other.std() < 1e-3:
        return 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def _channel_order(one: np.ndarray, other: np.ndarray) -> str:
    """Return the order of the channels of `one`, (height, width, 3), such as "bgr"; "" where RGB fits about as well."""
    chroma = other - other.mean(axis=-1, keepdims=True)
    if chroma.std() < _COLORFUL:
        return ""
    norm = np.linalg.norm(chroma)

    def likeness(order: tuple[int, ...]) -> float:
        own = one[..., list(order)]
        own = own - own.mean(axis=-1, keepdims=True)
        return float((own * chroma).sum() / max(norm * np.linalg.norm(own), 1e-9))

    alike = {order: likeness(order) for order in permutations(range(3))}
    best = max(alike, key=lambda order: alike[order])
    if alike[best] > max(_PLAINLY_ALIKE, alike[0, 1, 2] + _PLAINLY_BETTER / 2):
        return "".join("rgb"[best.index(channel)] for channel in range(3))
    return ""
