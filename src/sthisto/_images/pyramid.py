"""An image as the levels of its pyramid: lazily read arrays and what maps one level to another."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import dask.array as da
import numpy as np
from PIL import Image

from sthisto._images.colors import to_uint8
from sthisto._utils.logging import logger
from sthisto._utils.settings import settings

_JOINED_ROWS = 1024
_STRIP_BYTES = 2**28
_WARNED_OF_HOLES: set[int] = set()
"""Arrays that holes were warned of, by their `id`."""


@dataclass(frozen=True)
class Band:
    """Consecutive rows of a level over its whole width: `pixels` (rows, width, 3), uint8, first row `top`.

    Only what was asked for is read; pixels elsewhere are undefined.
    """

    pixels: np.ndarray
    top: int

    @property
    def bottom(self) -> int:
        """The row after the last."""
        return self.top + len(self.pixels)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Name the image whose stored pixels cannot be read: decoders fail in words, and classes, of their own.

    Raises
    ------
    OSError, RuntimeError, ValueError
        A chunk is damaged or cannot be read; of the decoder's class, if that is one of these.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError, zlib.error) as error:
        msg = f"{name} cannot be read, a chunk is damaged ({type(error).__name__}: {error}). Copy its store again."
        kind = next((kind for kind in (RuntimeError, ValueError) if isinstance(error, kind)), OSError)
        raise kind(msg) from error


@dataclass(frozen=True)
class Level:
    """One resolution of an RGB image.

    Parameters
    ----------
    array
        (3, height, width) numpy or dask array; nothing is read before it is needed.
    from_full
        (3, 3) affine that takes x, y of the full resolution to x, y of this level, both in px.
    brightness
        What a stored value is multiplied with to give 0..255: 1 for uint8, 255 for floats between 0 and 1. What is NaN
        is white, with a warning.
    name
        What messages call the image.
    """

    array: Any
    from_full: np.ndarray
    brightness: float = 1.0
    name: str = "An image"

    @property
    def height(self) -> int:
        """Rows, in px."""
        return int(self.array.shape[1])

    @property
    def width(self) -> int:
        """Columns, in px."""
        return int(self.array.shape[2])

    @property
    def downsample(self) -> float:
        """Full-resolution px per px of this level."""
        return float(1 / np.sqrt(abs(np.linalg.det(self.from_full[:2, :2]))))

    def locate(self, xy: np.ndarray) -> np.ndarray:
        """Take (n, 2) positions from full-resolution px to px of this level."""
        return xy @ self.from_full[:2, :2].T + self.from_full[:2, 2]

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Read a box inside the level: (rows, columns, 3), uint8."""
        pixels = np.empty((bottom - top, right - left, 3), dtype=np.uint8)
        self._fill(pixels, top, [(left, right)], origin=left)
        return pixels

    def held(self) -> Level:
        """Return the level with its pixels in memory where they fit `settings.image_memory`, else itself."""
        if isinstance(self.array, np.ndarray) or 3 * self.width * self.height > settings.image_memory * 2**30:
            return self
        pixels = self.read(0, self.height, 0, self.width)
        return replace(self, array=np.moveaxis(pixels, -1, 0), brightness=1.0)

    def bands(self, boxes: np.ndarray) -> Iterator[Band]:
        """Read the level from top to bottom, each chunk once, in bands that hold every box whole.

        A box comes with the first band whose bottom reaches its own. Chunks that no box needs are not read. Only
        where one row of chunks would take more than half of `settings.image_memory` is it read in parts, its chunks
        once for each part.

        Parameters
        ----------
        boxes
            (n, 4) left, top, right, bottom inside the level, `top` and `bottom` both ascending.
        """
        kept = np.empty((0, self.width, 3), dtype=np.uint8)
        position = 0
        for top, bottom in self._row_blocks():
            needed = boxes[np.searchsorted(boxes[:, 3], top, "right") : np.searchsorted(boxes[:, 1], bottom, "left")]
            if not len(needed):
                continue
            first = min(int(needed[0, 1]), top)
            overlap = kept[first - position :] if first < top else kept[:0]
            pixels = np.empty((bottom - first, self.width, 3), dtype=np.uint8)
            pixels[: len(overlap)] = overlap
            self._fill(pixels[top - first :], top, self._column_runs(needed))
            position, kept = first, pixels
            yield Band(pixels, first)

    def _fill(self, pixels: np.ndarray, top: int, runs: list[tuple[int, int]], origin: int = 0) -> None:
        """Read the runs of columns into `pixels`, (rows, columns, 3) uint8 from row `top` and column `origin` on."""
        parts = [self.array[:, top : top + len(pixels), left:right] for left, right in runs]
        canvases: Any = [_Canvas(pixels[:, left - origin : right - origin], self.brightness) for left, right in runs]
        if isinstance(self.array, da.Array):
            with reading(self.name):
                da.store(parts, canvases, lock=False, scheduler="threads")
        else:
            for part, canvas in zip(parts, canvases, strict=True):
                canvas[:, :, :] = np.asarray(part)
        if any(canvas.holes for canvas in canvases):
            self._warn_of_holes()

    def _warn_of_holes(self) -> None:
        if id(self.array) not in _WARNED_OF_HOLES:
            _WARNED_OF_HOLES.add(id(self.array))
            logger.warning(
                "%s, of %d x %d px, has pixels that are NaN: they are white.", self.name, self.width, self.height
            )

    def _column_runs(self, boxes: np.ndarray) -> list[tuple[int, int]]:
        """Return where the columns of chunks that some of the boxes, (n, 4), touch begin and end, neighbors joined."""
        edges = np.cumsum((0, *self._chunks(2)))
        touched = np.zeros(len(edges), dtype=np.int64)
        np.add.at(touched, np.searchsorted(edges, boxes[:, 0], "right") - 1, 1)
        np.add.at(touched, np.searchsorted(edges, boxes[:, 2], "left"), -1)
        change = np.diff(np.cumsum(touched) > 0, prepend=False, append=False)
        starts_and_ends = edges[np.flatnonzero(change)]
        return [(int(left), int(right)) for left, right in starts_and_ends.reshape(-1, 2)]

    def _row_blocks(self) -> list[tuple[int, int]]:
        """Rows of whole chunks, joined while they stay small, split where two would exceed `settings.image_memory`."""
        most_rows = max(1, int(settings.image_memory * 2**30) // (2 * 3 * self.width))
        edges = np.cumsum((0, *self._chunks(1)))
        blocks: list[tuple[int, int]] = []
        for top, bottom in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if blocks and bottom - blocks[-1][0] <= min(most_rows, _JOINED_ROWS):
                blocks[-1] = (blocks[-1][0], bottom)
            else:
                blocks += [(row, min(row + most_rows, bottom)) for row in range(top, bottom, most_rows)]
        return blocks

    def _chunks(self, axis: int) -> tuple[int, ...]:
        if isinstance(self.array, da.Array):
            sizes: tuple[int, ...] = self.array.chunks[axis]
            return sizes
        whole, rest = divmod(self.array.shape[axis], _JOINED_ROWS)
        return (_JOINED_ROWS,) * whole + (rest,) * bool(rest)


@dataclass(frozen=True)
class _Canvas:
    """Takes (channels, rows, columns) as they are read, in any order, into uint8 `pixels` (rows, columns, channels)."""

    pixels: np.ndarray
    brightness: float
    holes: list[bool] = field(default_factory=list)
    """Holds True where some value was NaN."""

    def __setitem__(self, box: tuple[slice, slice, slice], values: np.ndarray) -> None:
        channels, rows, columns = box
        if values.dtype != np.uint8:
            if values.dtype.kind == "f" and np.isnan(values).any():
                self.holes.append(True)
            values = to_uint8(values, 255 / self.brightness)
        canvas = self.pixels[rows, columns, channels]
        for channel, plane in enumerate(values):  # three times as fast as numpy's copy of the transposed array
            canvas[..., channel] = plane


@dataclass(frozen=True)
class Pyramid:
    """The levels of one image, from the finest to the coarsest."""

    levels: tuple[Level, ...]

    @property
    def width(self) -> int:
        """Columns of the full resolution, in px."""
        return self.levels[0].width

    @property
    def height(self) -> int:
        """Rows of the full resolution, in px."""
        return self.levels[0].height

    def level_for(self, downsample: float) -> Level:
        """Return the coarsest level that is at least as fine as `downsample` full-resolution px per px."""
        fine_enough = [level for level in self.levels if level.downsample <= downsample * 1.01]
        return fine_enough[-1] if fine_enough else self.levels[0]

    def overview(
        self, *, box: tuple[float, float, float, float] | None = None, max_size: int = 2000
    ) -> tuple[np.ndarray, tuple[float, float, float, float]]:
        """Return a picture of the image, or of a part of it, for drawing.

        Parameters
        ----------
        box
            left, top, right, bottom in px of the full resolution; None is the whole image. It is clipped.
        max_size
            Longest side of the returned picture, in px.

        Returns
        -------
        The picture (rows, columns, 3) in uint8 and its extent (left, right, bottom, top) in px of the full
        resolution, as `matplotlib.axes.Axes.imshow` takes it.
        """
        left, top, right, bottom = box or (0, 0, self.width, self.height)
        longest = max(min(right, self.width) - max(left, 0), min(bottom, self.height) - max(top, 0))
        level = self.level_for(longest / max_size)
        (x0, y0), (x1, y1) = level.locate(np.array([[left, top], [right, bottom]], dtype=float))
        x0, x1 = int(max(np.floor(x0), 0)), int(min(np.ceil(x1), level.width))
        y0, y1 = int(max(np.floor(y0), 0)), int(min(np.ceil(y1), level.height))
        if x1 <= x0 or y1 <= y0:
            msg = f"The box {box} lies outside the image of {self.width} x {self.height} px."
            raise ValueError(msg)
        picture = self._shrunk(level, (x0, y0, x1, y1), max_size)
        to_full = np.linalg.inv(level.from_full)
        (left, top), (right, bottom) = (np.array([[x0, y0], [x1, y1]]) @ to_full[:2, :2].T + to_full[:2, 2]).tolist()
        return picture, (left, right, bottom, top)

    @staticmethod
    def _shrunk(level: Level, box: tuple[int, int, int, int], max_size: int) -> np.ndarray:
        """Read a box of a level, shrunk to (rows, columns, 3) uint8; a large one strip by strip, for bounded memory."""
        x0, y0, x1, y1 = box
        shrink = max(1.0, max(x1 - x0, y1 - y0) / max_size)
        columns = max(1, round((x1 - x0) / shrink))
        picture = np.empty((max(1, round((y1 - y0) / shrink)), columns, 3), dtype=np.uint8)
        edges = np.linspace(y0, y1, len(picture) + 1)
        step = max(1, int(_STRIP_BYTES // (3 * (x1 - x0) * shrink)))
        for first in range(0, len(picture), step):
            last = min(first + step, len(picture))
            top, bottom = int(np.floor(edges[first])), int(np.ceil(edges[last]))
            strip = Image.fromarray(level.read(top, bottom, x0, x1))
            part = (0.0, edges[first] - top, float(x1 - x0), edges[last] - top)
            picture[first:last] = np.asarray(strip.resize((columns, last - first), Image.Resampling.BOX, box=part))
        return picture
