"""Means of feature maps over windows, from one pass over the image in tiles: no patch is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from typing import Final, Protocol

import numpy as np
from tqdm.auto import tqdm

from sthisto._images.patches import PatchSource
from sthisto._utils.settings import settings
from sthisto.models.encoders import cache

TILE: Final = 1024
"""Width in px of a tile with its margins, as the network sees it; larger where the margins are wide."""
_AT_ONCE: Final = 32_768
_RESAMPLING_PX: Final = 4


class Maps(Protocol):
    """What makes feature maps of a tile.

    Attributes
    ----------
    width
        Width of a window in px of the tile.
    margin
        Pixels around the wanted ones on which the maps depend, a multiple of `stride`.
    stride
        Multiple of pixels at which tiles begin.
    n_channels
        Channels of all maps together.
    """

    width: int
    margin: int
    stride: int
    n_channels: int

    def __call__(self, tile: np.ndarray) -> Sequence[np.ndarray]:
        """Return maps (n_channels, rows, columns) of a uint8 tile (width, width, 3), each over the whole tile."""
        ...


@dataclass(frozen=True, eq=False)
class Tiling:
    """The tiles that the windows of a source need, and which windows each of them touches.

    Positions are in px of the tiles, whose origin is that of the image level.

    Attributes
    ----------
    corners
        (n, 2) left and top of each window.
    origins
        (n_tiles, 2) left and top of each tile without its margin, multiples of the maps' stride.
    core, margin
        Width of a tile without its margins, and that of a margin.
    windows, starts
        (n,) and (n_tiles + 1,): windows of tile i are ``windows[starts[i] : starts[i + 1]]``.
    """

    source: PatchSource
    width: int
    corners: np.ndarray
    origins: np.ndarray
    core: int
    margin: int
    windows: np.ndarray
    starts: np.ndarray

    @classmethod
    def plan(cls, source: PatchSource, maps: Maps, tile: int = TILE) -> Tiling:
        """Return the tiles for the windows of a source, each at most `tile` px wide where the margins allow it."""
        corners, extent = source.windows()
        corners = corners * (maps.width / extent)
        margin = maps.margin + ceil(_RESAMPLING_PX / maps.stride) * maps.stride
        first = (
            np.floor(corners.min(axis=0, initial=np.inf) / maps.stride) * maps.stride if len(corners) else np.zeros(2)
        )
        span = (corners - first).max(initial=0) + maps.width
        most = max(tile - 2 * margin, 2 * margin, maps.stride)
        core = ceil(span / ceil(span / most) / maps.stride) * maps.stride
        tiles, windows = _touched((corners - first) / core, maps.width / core)
        unique, starts = np.unique(tiles, axis=0, return_index=True)
        return cls(
            source,
            maps.width,
            corners,
            (unique * core + first).astype(np.int64),
            core,
            margin,
            windows,
            np.append(starts, len(windows)),
        )

    @property
    def n_pixels(self) -> int:
        """Pixels that the network sees."""
        return len(self.origins) * (self.core + 2 * self.margin) ** 2

    def read(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number of each tile and its pixels with the margins, (width, width, 3) uint8."""
        size = self.core + 2 * self.margin
        _, extent = self.source.windows()
        scale = extent / self.width
        centers = (self.origins + self.core / 2) * scale
        tiles = PatchSource(self.source.level, centers, extent=size * scale, size=size, outside=True)
        for (number,), (tile,) in tiles.batches(1):
            yield int(number), tile


def window_means(tiling: Tiling, maps: Maps, *, identity: str = "", name: str = "") -> np.ndarray:
    """Return the mean of each map over every window, (n_windows, n_channels) float32.

    Parameters
    ----------
    tiling
        Tiles and windows, of the same maps.
    identity
        What the maps are found by in the cache of features; "" keeps nothing.
    name
        Name of the section, for the progress bar.
    """
    values = np.zeros((len(tiling.corners), maps.n_channels), dtype=np.float32)
    with tqdm(total=len(tiling.origins), desc=f"Encoding {name}", disable=not settings.progress, leave=False) as bar:
        for number, tile in tiling.read():
            index = tiling.windows[tiling.starts[number] : tiling.starts[number + 1]]
            values[index] += _kept_sums(maps, tile, tiling.corners[index] - tiling.origins[number], tiling, identity)
            bar.update()
    return values


def _kept_sums(maps: Maps, tile: np.ndarray, corners: np.ndarray, tiling: Tiling, identity: str) -> np.ndarray:
    if not settings.cache_features or not identity:
        return sum_windows(maps, tile, corners, tiling)
    key = _tile_key(tile, corners, tiling)
    sums = cache.read(identity, key)
    if sums is None:
        sums = sum_windows(maps, tile, corners, tiling)
        cache.write(identity, key, sums)
    return sums


def sum_windows(maps: Maps, tile: np.ndarray, corners: np.ndarray, tiling: Tiling) -> np.ndarray:
    """Return the integral of the maps of a tile over windows, divided by a window's area, (n, n_channels) float32.

    Parameters
    ----------
    tile
        (width, width, 3) uint8 with its margins.
    corners
        (n, 2) left and top of the windows, relative to the tile without its margins. Parts beyond it are left out.
    """
    low = np.clip(corners, 0, tiling.core)
    high = np.clip(corners + tiling.width, 0, tiling.core)
    parts = []
    for found in maps(tile):
        cell = len(tile) / found.shape[1]
        edge, core = round(tiling.margin / cell), round(tiling.core / cell)
        integral = _integral(found[:, edge : edge + core, edge : edge + core])
        parts.append(_box_sums(integral, low / cell, high / cell) / (tiling.width / cell) ** 2)
    return np.concatenate(parts, axis=1).astype(np.float32)


def _tile_key(tile: np.ndarray, corners: np.ndarray, tiling: Tiling) -> str:
    state = blake2b(f"{tile.shape}|{tiling.width}|{tiling.core}".encode(), digest_size=16)
    state.update(np.ascontiguousarray(tile).data)
    state.update(np.ascontiguousarray(corners).data)
    return state.hexdigest()


def _touched(corners: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the column and row, (n, 2), of each tile that a window touches, and the window, (n,), sorted by tile.

    `corners` are left and top of the windows, (n_windows, 2), in widths of a tile, as is `width`.
    """
    first = np.floor(corners).astype(np.int64)
    last = np.ceil(corners + width).astype(np.int64) - 1
    tiles, windows = [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)]
    across, down = (last - first).max(axis=0, initial=0) + 1 if len(corners) else (0, 0)
    for right in range(across):
        for below in range(down):
            there = np.flatnonzero((first[:, 0] + right <= last[:, 0]) & (first[:, 1] + below <= last[:, 1]))
            tiles.append(first[there] + (right, below))
            windows.append(there)
    every, of = np.concatenate(tiles), np.concatenate(windows)
    order = np.lexsort((every[:, 1], every[:, 0]))
    return every[order], of[order]


def _integral(values: np.ndarray) -> np.ndarray:
    """Return (rows + 1, columns + 1, n_channels) float64 sums of (n_channels, rows, columns) left of and above."""
    n_channels, rows, columns = values.shape
    integral = np.zeros((rows + 1, columns + 1, n_channels))
    np.cumsum(np.moveaxis(values, 0, -1), axis=0, dtype=np.float64, out=integral[1:, 1:])
    np.cumsum(integral[1:, 1:], axis=1, out=integral[1:, 1:])
    return integral


def _box_sums(integral: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return (n, n_channels) integrals over boxes with (n, 2) x and y of two corners, at fractions of a cell."""
    sums = np.empty((len(low), integral.shape[2]))
    for start in range(0, len(low), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        (left, top), (right, bottom) = low[rows].T, high[rows].T
        sums[rows] = (
            _at(integral, bottom, right)
            - _at(integral, top, right)
            - _at(integral, bottom, left)
            + _at(integral, top, left)
        )
    return sums


def _at(integral: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the integral between its grid points, (n, n_channels): linear, since a cell is constant inside."""
    row = np.minimum(y.astype(np.int64), integral.shape[0] - 2)
    column = np.minimum(x.astype(np.int64), integral.shape[1] - 2)
    down, across = (y - row)[:, None], (x - column)[:, None]
    above = integral[row, column] * (1 - across) + integral[row, column + 1] * across
    below = integral[row + 1, column] * (1 - across) + integral[row + 1, column + 1] * across
    return np.asarray(above * (1 - down) + below * down)
