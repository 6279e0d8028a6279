"""Texture of the tissue around each spot, from one pass over the slide in tiles: no patch is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from tqdm.auto import tqdm

from sthisto._images.stains import N_NUMBERS, SlideStains
from sthisto._utils.digest import digest_arrays
from sthisto._utils.settings import settings
from sthisto.models.data import SectionInput
from sthisto.models.encoders import cache
from sthisto.models.encoders.slide_grid import SlideGrid
from sthisto.models.encoders.texture import HALO, N_TEXTURES, texture_maps, texture_of_means

_GRID: Final = "slide grid"
_SLIDE: Final = "slide"
_TILE: Final = 512
_IDENTITY: Final = "texture-2"
"""What kept textures are found by; another number for another way to compute them."""


def window_texture(section: SectionInput, widths: Sequence[float]) -> np.ndarray:
    """Return the texture of square windows around each spot, (n_widths, n_spots, N_TEXTURES) float32.

    A window that leaves the image counts by the part inside, where a patch would show the image's reflection.

    Parameters
    ----------
    section
        Its slide is read once, tile by tile, where windows lie.
    widths
        Widths of the windows in px of the full resolution.
    """
    grid = slide_grid(section)
    centers = grid.locate(section.positions)
    across = np.maximum(np.round(np.asarray(widths) / grid.step).astype(int), 1)

    def measure() -> np.ndarray:
        return _measure(grid, slide_facts(section).stains, centers, across, section.name)

    return _kept(grid, [centers, across.astype(np.int64)], measure)


@dataclass(frozen=True)
class SlideFacts:
    """What is estimated once from a whole slide.

    Attributes
    ----------
    border_px
        (n_spots,) distance to the border of the tissue, in px of the grid.
    """

    stains: SlideStains
    border_px: np.ndarray


def slide_facts(section: SectionInput) -> SlideFacts:
    """Return the stains of a section's slide, and how far its spots are from the border of the tissue."""

    def look() -> SlideFacts:
        grid = slide_grid(section)
        found = _kept(
            grid,
            [grid.locate(section.positions)],
            lambda: np.concatenate([grid.stains.key(), grid.border_distance(section.positions)]),
        )
        return SlideFacts(SlideStains.from_key(found[:N_NUMBERS]), found[N_NUMBERS:])

    facts: SlideFacts = section.measured(_SLIDE, look)
    return facts


def slide_grid(section: SectionInput) -> SlideGrid:
    """Return the grid of a section's slide, the same one each time, so that its pixels are read once."""
    grid: SlideGrid = section.measured(_GRID, lambda: SlideGrid.of(section))
    return grid


def _kept(grid: SlideGrid, arguments: Sequence[np.ndarray], compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Return what the cache keeps of a grid's pixels and of arguments, arrays of any shape, or compute and keep it."""
    if not settings.cache_features:
        return compute()
    named = {str(i): argument for i, argument in enumerate(arguments)}
    key = digest_arrays(named, grid.digest, f"{grid.height} x {grid.width}, {grid.step!r}")
    return cache.kept(_IDENTITY, key, compute)


def _measure(grid: SlideGrid, stains: SlideStains, centers: np.ndarray, across: np.ndarray, name: str) -> np.ndarray:
    low = np.round(centers[None] - across[:, None, None] / 2).astype(np.int64)  # (n_widths, n_spots, 2)
    size = np.array([grid.width, grid.height])
    high = np.clip(low + across[:, None, None], 1, size)
    low = np.minimum(np.clip(low, 0, size - 1), high - 1)
    boxes = np.concatenate([low, high], axis=2).reshape(-1, 4)
    sums = np.zeros((len(boxes), N_TEXTURES))
    tiles = list(_tiles(grid, boxes))
    for left, top, right, bottom, touched in tqdm(
        tiles, desc=f"Measuring the texture of {name}", disable=not settings.progress, leave=False
    ):
        _add_tile(grid, stains, (left, top, right, bottom), boxes, touched, sums)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return texture_of_means((sums / area[:, None]).reshape(len(across), len(centers), N_TEXTURES))


def _tiles(grid: SlideGrid, boxes: np.ndarray) -> Iterator[tuple[int, int, int, int, np.ndarray]]:
    """Yield left, top, right, bottom of each tile that boxes, (n, 4), touch, and the rows of these, (n_touched,)."""
    by_top = np.argsort(boxes[:, 1], kind="stable")
    for top in range(0, grid.height, _TILE):
        bottom = min(top + _TILE, grid.height)
        above = by_top[: np.searchsorted(boxes[by_top, 1], bottom)]
        band = above[boxes[above, 3] > top]
        for left in range(0, grid.width, _TILE):
            right = min(left + _TILE, grid.width)
            touched = band[(boxes[band, 0] < right) & (boxes[band, 2] > left)]
            if len(touched):
                yield left, top, right, bottom, touched


def _add_tile(
    grid: SlideGrid,
    stains: SlideStains,
    tile: tuple[int, int, int, int],
    boxes: np.ndarray,
    touched: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Add to `sums`, (n_boxes, N_TEXTURES), what the touched boxes hold of a tile."""
    left, top, right, bottom = tile
    x0, y0 = max(left - HALO, 0), max(top - HALO, 0)
    x1, y1 = min(right + HALO, grid.width), min(bottom + HALO, grid.height)
    inner = slice(top - y0, bottom - y0), slice(left - x0, right - x0)
    inside = np.clip(boxes[touched], [left, top, left, top], [right, bottom, right, bottom]) - [left, top, left, top]
    a, b, c, d = inside.T
    integral = np.zeros((bottom - top + 1, right - left + 1))
    for number, values in enumerate(texture_maps(grid.read(y0, y1, x0, x1), stains)):
        np.cumsum(values[inner], axis=0, dtype=np.float64, out=integral[1:, 1:])
        np.cumsum(integral[1:, 1:], axis=1, out=integral[1:, 1:])
        sums[touched, number] += integral[d, c] - integral[b, c] - integral[d, a] + integral[b, a]
