"""Patches around spots, from arrays: the way from pixels to what an encoder sees. No SpatialData here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sthisto._images.prefetch import read_ahead
from sthisto._images.pyramid import Band, Level
from sthisto._utils.defaults import PATCH_SIZE
from sthisto._utils.deprecate import renamed_arguments
from sthisto._utils.settings import settings
from sthisto._utils.validate import check_positive


@dataclass(frozen=True)
class PatchSpec:
    """The patches that a model was fitted on.

    Parameters
    ----------
    size
        Width and height of a patch in px, as the encoder gets it.
    um_per_px
        µm per px of the patch. None means that the physical size is unknown: px of the image's full resolution.
    context
        Widths of tissue around the spot, relative to the patch: (1,) is the patch alone, (1, 2, 4) adds two
        coarser views of twice and four times its width, each sampled to `size` px.
    dense
        Whether features are means over these windows of feature maps of the whole image, instead of features of cut
        patches.
    """

    size: int = PATCH_SIZE
    um_per_px: float | None = None
    context: tuple[float, ...] = (1.0,)
    dense: bool = False

    def __post_init__(self) -> None:
        check_positive(self.size, name="patch_size")
        if self.um_per_px is not None:
            check_positive(self.um_per_px, name="um_per_px")
        if not self.context:
            msg = "`context` is empty; (1,) is the patch alone."
            raise ValueError(msg)
        for width in self.context:
            check_positive(width, name="context")

    def width_on(self, um_per_px: float | None) -> float:
        """Return the width of the widest context in px of an image with pixels of that many µm."""
        px = self.um_per_px / um_per_px if self.um_per_px and um_per_px else 1.0
        return self.size * px * max(self.context)


class PatchSource:
    """Square patches around points of one image level, read in the order of the image.

    A patch whose extent rounds to its size is cut at whole pixels and holds the image's own values; another is
    resampled (bilinear, antialiased) from exactly its extent, at fractions of a pixel. What lies beyond the border
    of the image is its reflection.

    Parameters
    ----------
    level
        The image level that is read.
    centers
        (n, 2) array of x and y in px of `level`; pixel i covers [i, i + 1).
    extent
        Width of a patch in px of `level`.
    size
        Width of a patch as it is returned, in px.
    outside
        Whether centers may lie outside the level.

    Raises
    ------
    ValueError
        A center lies 1 px or more outside the level and `outside` is False.
    """

    @renamed_arguments(centres="centers")
    def __init__(self, level: Level, centers: np.ndarray, *, extent: float, size: int, outside: bool = False) -> None:
        check_positive(extent, name="extent")
        check_positive(size, name="size")
        self.level = level
        self.extent = float(extent)
        self.size = size
        self.centers = np.asarray(centers, dtype=np.float64).reshape(-1, 2)
        shape = np.array([level.width, level.height])
        self._outside = outside
        if not outside and not ((self.centers > -1) & (self.centers < shape + 1)).all():
            msg = f"Patches need centers inside the level of {level.width} x {level.height} px."
            raise ValueError(msg)
        self._resampled = max(1, round(extent)) != size
        self._window = int(np.ceil(extent)) + 1 if self._resampled else size
        corners = self.centers - extent / 2 if self._resampled else np.floor((self.centers - size / 2) + 0.5)
        self._corners = np.floor(corners).astype(np.int64)
        if not outside:  # Rounding at a coarse level may put a center on the border: one pixel of each window stays.
            self._corners = np.clip(self._corners, 1 - self._window, shape - 1)
        self._offsets = np.clip(corners - self._corners, 0, self._window - extent)

    def __len__(self) -> int:
        return len(self.centers)

    def batches(self, batch_size: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield every patch once, in the order in which the image is stored.

        Each chunk of the image is read once, by a thread that runs ahead of the caller.

        Yields
        ------
        Indices (b,) into the centers, and the patches (b, size, size, 3) in uint8 RGB.
        """
        yield from read_ahead(self._grouped(batch_size or settings.batch_size))

    def read(self) -> np.ndarray:
        """Return all patches in the order of the centers: (n, size, size, 3), uint8 RGB."""
        patches = np.empty((len(self), self.size, self.size, 3), dtype=np.uint8)
        for i, patch in self._in_image_order():
            patches[i] = patch
        return patches

    def subset(self, index: np.ndarray) -> PatchSource:
        """Return the source of the patches at `index`, (n,), in that order."""
        centers = self.centers[index]
        return PatchSource(self.level, centers, extent=self.extent, size=self.size, outside=self._outside)

    def on(self, level: Level) -> PatchSource:
        """Return the source of the same patches from another form of the same level."""
        return PatchSource(level, self.centers, extent=self.extent, size=self.size, outside=self._outside)

    def around(self, *, extent: float, size: int) -> PatchSource:
        """Return the source of patches of another width around the same points."""
        return PatchSource(self.level, self.centers, extent=extent, size=size, outside=self._outside)

    def windows(self) -> tuple[np.ndarray, float]:
        """Return left and top of each patch, (n, 2), and its width, in px of the level."""
        return self._corners + self._offsets, self.extent if self._resampled else float(self.size)

    def _grouped(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        filled = 0
        for i, patch in self._in_image_order():
            if not filled:
                index = np.empty(batch_size, dtype=np.int64)
                patches = np.empty((batch_size, self.size, self.size, 3), dtype=np.uint8)
            index[filled], patches[filled] = i, patch
            filled += 1
            if filled == batch_size:
                yield index, patches
                filled = 0
        if filled:
            yield index[:filled], patches[:filled]

    def _in_image_order(self) -> Iterator[tuple[int, np.ndarray]]:
        order = np.lexsort(self._corners.T)
        boxes = self._boxes()[order]
        boxes[:, 1] = np.minimum.accumulate(boxes[::-1, 1])[::-1]
        boxes[:, 3] = np.maximum.accumulate(boxes[:, 3])
        done = 0
        for band in self.level.bands(boxes):
            ready = int(np.searchsorted(boxes[:, 3], band.bottom, side="right"))
            for i in order[done:ready]:
                yield int(i), self._cut(band, int(i))
            done = ready

    def _boxes(self) -> np.ndarray:
        """Return (n, 4) left, top, right, bottom of the pixels that each patch needs, those of its reflection too."""
        last = np.array([self.level.width, self.level.height]) - 1
        first_wanted, last_wanted = self._corners, self._corners + self._window - 1
        first = np.clip(np.minimum(first_wanted, 2 * last - last_wanted), 0, last)
        end = np.clip(np.maximum(last_wanted, -first_wanted), 0, last) + 1
        return np.hstack([first, end])

    def _cut(self, band: Band, i: int) -> np.ndarray:
        left, top = self._corners[i]
        right, bottom = self._corners[i] + self._window
        if left >= 0 and top >= 0 and right <= self.level.width and bottom <= self.level.height:
            patch = band.pixels[top - band.top : bottom - band.top, left:right]
        else:
            rows = _reflected(top, bottom, self.level.height) - band.top
            patch = band.pixels[rows[:, None], _reflected(left, right, self.level.width)]
        if not self._resampled:
            return patch
        x, y = self._offsets[i]
        picture = Image.fromarray(np.ascontiguousarray(patch))
        exact = (x, y, x + self.extent, y + self.extent)
        return np.asarray(picture.resize((self.size, self.size), Image.Resampling.BILINEAR, box=exact))


def read_once(sources: Sequence[PatchSource], *, passes: int = 1) -> list[PatchSource]:
    """Return the sources with each level that is read more than once held in memory, where it fits.

    Parameters
    ----------
    sources
        All are read `passes` times.
    """
    reads = Counter(id(source.level) for source in sources)
    held = {id(source.level): source.level for source in sources}
    held = {key: level.held() if reads[key] * passes > 1 else level for key, level in held.items()}
    return [source.on(held[id(source.level)]) for source in sources]


def _reflected(start: int, stop: int, size: int) -> np.ndarray:
    """Return the positions from `start` to `stop`, (n,), mirrored into an axis of `size` pixels at both ends."""
    period = max(1, 2 * (size - 1))
    position = np.arange(start, stop) % period
    return np.minimum(position, period - position)
