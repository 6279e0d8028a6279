"""Draw a synthetic section as hematoxylin and eosin would stain it.

Everything is painted as concentrations of three absorbers; the Beer-Lambert law turns them into light at the very end
(Ruifrok and Johnston, Anal Quant Cytol Histol 23:291, 2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter

from sthisto.datasets.synthetic.brushes import FIBER_TILE, N_ANGLES, N_SHAPES, NUCLEI, Brushes, step
from sthisto.datasets.synthetic.tissue import ANNOTATIONS, CELL_TYPES, GRID_UM, Ring, Tissue

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEMATOXYLIN, _EOSIN, _BLOOD = 0, 1, 2
_ABSORBERS = np.array([[0.68, 0.76, 0.36], [0.16, 0.82, 0.41], [0.10, 0.92, 0.80]])  # optical density in r, g, b


_Window = tuple[slice, slice] | EllipsisType


@dataclass(frozen=True)
class Stain:
    """How one patient's slides came out of the staining bath."""

    absorbers: np.ndarray  # (3, 3) absorber x (r, g, b)
    strength: np.ndarray  # (3,)
    glass: np.ndarray  # (3,) light that passes the empty slide, 0 to 1


def draw_stain(rng: np.random.Generator) -> Stain:
    """Draw one patient's stain."""
    absorbers = np.clip(_ABSORBERS + rng.normal(0, 0.022, (3, 3)), 0.03, None)
    strength = rng.uniform(0.86, 1.16, 3)
    return Stain(absorbers, strength, np.array([0.955, 0.945, 0.955]) + rng.uniform(-0.01, 0.01, 3))


def draw_section(tissue: Tissue, stain: Stain, brushes: Brushes, rng: np.random.Generator) -> np.ndarray:
    """Render `tissue` as uint8 (3, height, width) at the resolution of the brushes."""
    canvas = _Canvas(tissue, brushes, rng)
    canvas.paint_stroma()
    canvas.paint_cytoplasm()
    canvas.paint_fat(tissue.adipocytes)
    for gland in tissue.glands:
        canvas.paint_gland(gland)
    for vessel in tissue.vessels:
        canvas.paint_vessel(vessel)
    canvas.paint_nuclei()
    return canvas.develop(stain)


class _Canvas:
    def __init__(self, tissue: Tissue, brushes: Brushes, rng: np.random.Generator) -> None:
        self.tissue, self.brushes, self.um, self.rng = tissue, brushes, brushes.um_per_px, rng
        self.size = round(tissue.side / self.um)
        self.stains = np.zeros((3, self.size, self.size), np.float32)
        self.fine = self.cover(brushes.fine)
        self.mottle = self.cover(brushes.mottle)
        at = (np.arange(self.size, dtype=np.float32) + 0.5) * np.float32(self.um / GRID_UM)
        self._low = np.clip(at.astype(int), 0, len(tissue.outline) - 2)
        self._share = (at - self._low).astype(np.float32)

    def bands(self) -> Iterator[slice]:
        """Rows that are computed at once, few enough to stay in the processor's cache."""
        return (slice(top, top + 64) for top in range(0, self.size, 64))

    def enlarge(self, grid: np.ndarray, rows: slice) -> np.ndarray:
        """Interpolate a grid of the tissue to pixels, (n_rows, width)."""
        low, share = self._low[rows], self._share[rows, None]
        tall = (grid[low] * (1 - share) + grid[low + 1] * share).astype(np.float32)
        return tall[:, self._low] * (1 - self._share) + tall[:, self._low + 1] * self._share

    def cover(self, tile: np.ndarray) -> np.ndarray:
        """Repeat a periodic (width, width) `tile` over the image, (size, size), from a random corner."""
        shifted = np.roll(tile, tuple(self.rng.integers(0, len(tile), 2)), axis=(0, 1))
        times = -(-self.size // len(tile))
        return np.tile(shifted, (times, times))[: self.size, : self.size]

    def paint_stroma(self) -> None:
        """Draw collagen: wavy bundles along the flow, with clefts between them, on all tissue."""
        weight = dict(zip(ANNOTATIONS, np.moveaxis(self.tissue.regions, -1, 0), strict=True))
        loose = 0.55 * weight["immune"] + 0.25 * weight["tumor"] + 0.5 * weight["fat"]
        corner = self.rng.integers(0, FIBER_TILE, 2)
        for rows in self.bands():
            along, across = (self.enlarge(self.tissue.flow[..., k], rows) for k in (0, 1))
            fiber = (across * 2 + corner[0]).astype(np.int32) & (FIBER_TILE - 1)
            place = (along + corner[1]).astype(np.int32) & (FIBER_TILE - 1)
            bundle, thread = self.brushes.bundles[fiber, place], self.brushes.threads[fiber, place]
            solid = 1 - 0.85 * step(-9 * (bundle + 0.45 * thread + 1.55))
            collagen = (0.50 + 0.13 * bundle + 0.09 * thread) * solid * (1 - self.enlarge(loose, rows))
            ragged = self.enlarge(self.tissue.outline, rows) + 0.012 * self.mottle[rows] + 0.006 * thread
            inside = step(ragged / 0.004)
            self.stains[_EOSIN, rows] = np.clip(collagen, 0.02, None) * inside
            self.stains[_HEMATOXYLIN, rows] = inside * solid * (0.035 + self.enlarge(0.10 * weight["immune"], rows))

    def paint_cytoplasm(self) -> None:
        """Give each tumor cell a body of its own: amphophilic, paler where two cells meet."""
        cover = np.zeros((self.size, self.size), np.float32)
        for cell_type in ("tumor", "tumor_high_grade"):
            reach = NUCLEI[cell_type].cytoplasm / self.um
            half = int(np.ceil(reach)) + 1
            yy, xx = np.mgrid[-half : half + 1, -half : half + 1]
            body = step((reach - np.hypot(yy, xx)) * 1.6 * self.um)
            chosen = self.tissue.types == CELL_TYPES.index(cell_type)
            _stamp(
                cover, body[None].astype(np.float32), np.zeros(chosen.sum(), int), self.tissue.cells[chosen] / self.um
            )
        self.mix(_EOSIN, cover, 0.34 + 0.05 * self.mottle + 0.03 * self.fine)
        self.mix(_HEMATOXYLIN, cover, 0.20 + 0.03 * self.mottle)

    def mix(
        self, stain: int, cover: np.ndarray, value: np.ndarray | float, where: tuple[slice, slice] | None = None
    ) -> None:
        """Replace what `cover`, (height, width) from 0 to 1, hides of the part `where` by `value`."""
        part = self.stains[stain][where]
        part += cover * (value - part)

    def window(self, center: np.ndarray, reach: float) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
        """Pixels within `reach` µm of a center, (2,), and their offsets from it in µm, (1, width) and (height, 1)."""
        low = np.clip(((center - reach) / self.um).astype(int), 0, self.size)
        high = np.clip(((center + reach) / self.um).astype(int) + 1, 0, self.size)
        x = ((np.arange(low[0], high[0]) + 0.5) * self.um - center[0])[None, :]
        y = ((np.arange(low[1], high[1]) + 0.5) * self.um - center[1])[:, None]
        return (slice(low[1], high[1]), slice(low[0], high[0])), x, y

    def paint_fat(self, adipocytes: np.ndarray) -> None:
        """Draw adipocytes, (n, 3) x, y and radius in µm: empty cells whose thin walls meet."""
        first = np.full((self.size, self.size), 1e3, np.float32)
        second = first.copy()
        for x0, y0, radius in adipocytes:
            where, x, y = self.window(np.array([x0, y0]), radius + 8)
            signed = np.hypot(x, y).astype(np.float32) - radius
            nearest, other = first[where], second[where]
            second[where] = np.minimum(other, np.maximum(nearest, signed))
            first[where] = np.minimum(nearest, signed)
        cell = step((0.8 - first) * 3)
        wall = np.exp(-((np.minimum(-first, (second - first) / 2) / 1.3) ** 2))
        self.mix(_EOSIN, cell, 0.40 * wall)
        self.mix(_HEMATOXYLIN, cell, 0.03 * wall)

    def ring(self, ring: Ring, reach: float) -> tuple[tuple[slice, slice], np.ndarray]:
        """Window of a ring and each pixel's distance from its center as a share of the radius, (height, width)."""
        where, x, y = self.window(ring.center, ring.radii.max() * reach)
        u = (x * np.cos(ring.angle) + y * np.sin(ring.angle)) / ring.radii[0]
        v = (y * np.cos(ring.angle) - x * np.sin(ring.angle)) / ring.radii[1]
        return where, (np.hypot(u, v) / ring.radius_at(np.arctan2(v, u))).astype(np.float32)

    def paint_gland(self, gland: Ring) -> None:
        """Draw a wall of columnar cytoplasm around a pale lumen with a little secretion."""
        where, share = self.ring(gland, 1.4)
        edge = gland.radii.mean()
        wall = step((1.04 - share) * edge / 0.7)
        lumen = step((0.52 - share) * edge / 0.6)
        self.mix(_EOSIN, wall, 0.42, where)
        self.mix(_HEMATOXYLIN, wall, 0.17, where)
        self.mix(_EOSIN, lumen, self.rng.choice([0.02, 0.03, 0.2]), where)
        self.mix(_HEMATOXYLIN, lumen, 0.01, where)

    def paint_vessel(self, vessel: Ring) -> None:
        """Draw a muscular wall around red blood cells."""
        where, share = self.ring(vessel, 1.9)
        edge = vessel.radii.mean()
        wall = step((1.35 - share) * edge / 0.8)
        lumen = step((1.0 - share) * edge / 0.6)
        self.mix(_EOSIN, wall, 0.58, where)
        self.mix(_EOSIN, lumen, 0.02, where)
        clumps = np.clip(0.7 + 0.5 * self.fine[where], 0.05, 1.1)
        self.mix(_BLOOD, lumen, 0.62 * clumps, where)

    def paint_nuclei(self) -> None:
        """Stamp every nucleus from a small library of shapes and directions."""
        xy, angles = nuclei_of(self.tissue)
        layer = np.zeros((self.size, self.size), np.float32)
        for index in range(len(CELL_TYPES)):
            chosen = self.tissue.types == index
            sprites = self.brushes.nuclei[index]
            turn = np.round(angles[chosen] % np.pi / np.pi * N_ANGLES).astype(int) % N_ANGLES
            which = turn * N_SHAPES + self.rng.integers(0, N_SHAPES, len(turn))
            _stamp(layer, sprites, which, xy[chosen] / self.um)
        grain = 1 + 0.10 * self.fine
        nucleus = np.clip(layer * 1.6, 0, 1)
        self.stains[_EOSIN] *= 1 - 0.45 * nucleus
        self.stains[_HEMATOXYLIN] = np.maximum(self.stains[_HEMATOXYLIN], layer * grain)

    def develop(self, stain: Stain) -> np.ndarray:
        """Concentrations to light, (3, size, size) uint8, with the blur of the lens and the noise of the camera."""
        for layer in self.stains:
            gaussian_filter(layer, 0.35 / self.um, truncate=3, output=layer)
        density = 1.75 * (stain.absorbers * stain.strength[:, None]).T.astype(np.float32)
        glass = 255 * stain.glass.astype(np.float32)[:, None]
        grain = self.cover(1.6 * self.rng.standard_normal((256, 256)).astype(np.float32))
        pixels = np.empty((3, self.size, self.size), np.uint8)
        for rows in self.bands():
            band = self.stains[:, rows].reshape(3, -1)
            band[_EOSIN] *= 1 + 0.05 * self.fine[rows].ravel()
            light = np.exp(-sum(density[:, k, None] * band[k] for k in range(3))) * glass + grain[rows].ravel()
            pixels[:, rows] = np.clip(light, 0, 255).reshape(3, -1, self.size)
        return pixels


def nuclei_of(tissue: Tissue) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y in µm, (n_cells, 2), and the direction, (n_cells,), of each cell's nucleus."""
    xy, angles = tissue.cells.copy(), tissue.angles.copy()
    fat = tissue.types == CELL_TYPES.index("adipocyte")
    xy[fat] = _on_the_wall(tissue.adipocytes, angles[fat])
    angles[fat] += np.pi / 2
    return xy, angles


def _on_the_wall(adipocytes: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Where a ray from each adipocyte's center meets its wall or its neighbor's, (n, 2)."""
    centers, radii = adipocytes[:, :2], adipocytes[:, 2]
    reach = np.arange(10.0, radii.max(initial=10.0))
    ray = centers[:, None] + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)[:, None]
    signed = np.linalg.norm(ray[:, :, None] - centers, axis=-1) - radii  # (n, n_steps, n)
    others = np.where(np.eye(len(radii), dtype=bool)[:, None], np.inf, signed).min(axis=-1, initial=np.inf)
    own = reach - radii[:, None]
    last = ((own < others) & (own < -1)).sum(axis=1) - 1
    return ray[np.arange(len(radii)), np.clip(last, 0, None)]


def _stamp(layer: np.ndarray, sprites: np.ndarray, which: np.ndarray, xy: np.ndarray) -> None:
    """Lay sprite `which[i]` over `layer` at pixel `xy[i]`; where several overlap, the darkest shows.

    `layer` is (size, size), `sprites` (n_sprites, width, width), `which` (n,) and `xy` (n, 2).
    """
    half = sprites.shape[1] // 2
    corner = np.floor(xy).astype(int) - half
    inside = ((corner >= 0) & (corner + 2 * half < len(layer))).all(axis=1)
    offsets = np.arange(2 * half + 1)
    patch = (offsets[:, None] * layer.shape[1] + offsets).ravel()
    flat = layer.reshape(-1)
    pixels = corner[inside, 1] * layer.shape[1] + corner[inside, 0]
    for start in range(0, len(pixels), 4096):
        part = slice(start, start + 4096)
        np.maximum.at(flat, pixels[part, None] + patch, sprites[which[inside][part]].reshape(-1, patch.size))
