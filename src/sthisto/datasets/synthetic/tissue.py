"""Where the cells of a synthetic section lie: regions, glands, vessels, fat and nuclei, in µm."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

ANNOTATIONS = ("tumor", "stroma", "immune", "gland", "fat")
"""The regions of a section, in the order of the last axis of `Tissue.regions`."""

CELL_TYPES = (
    "tumor",
    "tumor_high_grade",
    "luminal",
    "basal",
    "fibroblast",
    "activated_fibroblast",
    "endothelial",
    "t_cell",
    "b_cell",
    "adipocyte",
)

GRID_UM = 10.0
"""Spacing of the grids that describe a tissue."""
_AREA_SHARE = np.array([0.36, 0.25, 0.13, 0.15, 0.11])
_SPOT_AREA_UM2 = 100.0 * 100.0 * np.sqrt(3) / 2


@dataclass
class Ring:
    """An ellipse of nuclei around a lumen: a gland or a vessel."""

    center: np.ndarray  # (2,) x, y in µm
    radii: np.ndarray  # (2,) µm
    angle: float  # rad
    wobble: np.ndarray  # (2,) amplitude and phase of its deviation from the ellipse

    def radius_at(self, phase: np.ndarray) -> np.ndarray:
        """How far the outline deviates from the ellipse at a phase in rad, of any shape, as a factor."""
        return 1 + self.wobble[0] * np.sin(3 * phase + self.wobble[1])


@dataclass
class Tissue:
    """One section, as drawn and as measured."""

    side: float  # µm, the image is a square
    outline: np.ndarray  # (n_grid, n_grid), positive inside the tissue
    regions: np.ndarray  # (n_grid, n_grid, n_annotations), weights that add up to 1
    flow: np.ndarray  # (n_grid, n_grid, 2), position along and across the stroma's fibers, µm
    spots: np.ndarray  # (n_spots, 2) x, y in µm
    array: np.ndarray  # (n_spots, 2) row and column of the hexagonal array
    cells: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))  # (n_cells, 2) x, y in µm
    types: np.ndarray = field(default_factory=lambda: np.empty(0, int))  # (n_cells,) index into CELL_TYPES
    angles: np.ndarray = field(default_factory=lambda: np.empty(0))  # (n_cells,) long axis of the nucleus, rad
    glands: list[Ring] = field(default_factory=list)
    vessels: list[Ring] = field(default_factory=list)
    adipocytes: np.ndarray = field(default_factory=lambda: np.empty((0, 3)))  # (n, 3) x, y, radius in µm

    def at(self, values: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Read a grid of `values` at `points` (n, 2), by linear interpolation."""
        return _read(values, points)

    def annotate(self) -> np.ndarray:
        """Name of the region at every spot, (n_spots,)."""
        weights = np.stack([_read(self.regions[..., k], self.spots) for k in range(len(ANNOTATIONS))], axis=1)
        return np.array(ANNOTATIONS)[weights.argmax(axis=1)]


def grow_tissue(n_spots: int, rng: np.random.Generator) -> Tissue:
    """Lay out a section that holds exactly `n_spots` spots of a hexagonal array with a pitch of 100 µm."""
    side = float(np.sqrt(n_spots * _SPOT_AREA_UM2 * 1.5) + 60)
    n_grid = int(np.ceil(side / GRID_UM)) + 1
    length = float(np.clip(side * 0.14, 70, 190))
    yy, xx = np.mgrid[:n_grid, :n_grid] * GRID_UM / side - 0.5
    radius = (np.abs(xx) ** 2.6 + np.abs(yy) ** 2.6) ** (1 / 2.6)
    outline = 1 - 2 * radius + 0.11 * _noise(n_grid, length, rng)
    spots, array = _place_spots(outline, side, n_spots)
    outline = outline - _read(outline, spots).min() + 0.03

    regions = _regions(outline, length, rng)
    tissue = Tissue(side, outline, regions, _flow(n_grid, length, rng), spots, array)
    _grow_cells(tissue, length, rng)
    return tissue


def _read(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    return map_coordinates(values, points[:, ::-1].T / GRID_UM, order=1, mode="nearest")


def _noise(n_grid: int, length: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise, (n_grid, n_grid), of mean 0 and variance 1 whose features are about `length` µm wide."""
    sigma = length / GRID_UM
    pad = int(2 * sigma)
    values = gaussian_filter(rng.standard_normal((n_grid + 2 * pad,) * 2), sigma, mode="wrap")
    values = values[pad : pad + n_grid, pad : pad + n_grid]
    return (values - values.mean()) / values.std()


def _place_spots(outline: np.ndarray, side: float, n_spots: int) -> tuple[np.ndarray, np.ndarray]:
    rows, cols = np.mgrid[: int(side / 86.6) + 1, : int(side / 50) + 1]
    staggered = (rows + cols) % 2 == 0
    array = np.stack([rows[staggered], cols[staggered]], axis=1)
    spots = array[:, ::-1] * np.array([50.0, 50.0 * np.sqrt(3)])
    spots += (side - spots.max(axis=0)) / 2
    inside = np.argsort(-_read(outline, spots), kind="stable")[:n_spots]
    inside.sort()
    return spots[inside], array[inside]


def _regions(outline: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    n_grid = len(outline)
    scores = np.stack([_noise(n_grid, length, rng) for _ in ANNOTATIONS], axis=-1)
    scores[..., ANNOTATIONS.index("fat")] -= 1.6 * outline / outline.max()
    share = _AREA_SHARE * rng.uniform(0.75, 1.25, len(_AREA_SHARE))
    share /= share.sum()
    inside = outline > 0
    for _ in range(12):
        weights = np.exp(6 * (scores - scores.max(axis=-1, keepdims=True)))
        weights /= weights.sum(axis=-1, keepdims=True)
        scores += 0.5 * np.log(share / (weights[inside].mean(axis=0) + 1e-3))
    return weights


def _flow(n_grid: int, length: float, rng: np.random.Generator) -> np.ndarray:
    yy, xx = np.mgrid[:n_grid, :n_grid] * GRID_UM
    angle = rng.uniform(0, np.pi)
    bend = 0.55 * length
    along = xx * np.cos(angle) + yy * np.sin(angle) + bend * _noise(n_grid, length, rng)
    across = -xx * np.sin(angle) + yy * np.cos(angle) + bend * _noise(n_grid, length, rng)
    return np.stack([along, across], axis=-1)


def _lattice(side: float, spacing: float, jitter: float, rng: np.random.Generator) -> np.ndarray:
    """Points (n, 2) about `spacing` µm apart, never in visible rows."""
    rows, cols = np.mgrid[: int(side / (spacing * 0.866)) + 1, : int(side / spacing) + 1]
    points = np.stack([(cols + 0.5 * (rows % 2)) * spacing, rows * spacing * 0.866], axis=-1).reshape(-1, 2)
    points += rng.normal(0, jitter * spacing, points.shape)
    return points[((points > 0) & (points < side)).all(axis=1)]


def _grow_cells(tissue: Tissue, length: float, rng: np.random.Generator) -> None:
    weight = dict(zip(ANNOTATIONS, np.moveaxis(tissue.regions, -1, 0), strict=True))
    n_grid = len(tissue.outline)
    nests = 1 / (1 + np.exp(-6 * (_noise(n_grid, 32, rng) + 0.75)))
    grade = 1 / (1 + np.exp(-3 * _noise(n_grid, length * 0.7, rng)))
    follicle = weight["immune"] ** 3 / (1 + np.exp(-4 * _noise(n_grid, length * 0.4, rng)))
    activated = weight["stroma"] * np.clip(2.2 * gaussian_filter(weight["tumor"], 6), 0, 1)

    tissue.glands = _rings(tissue, weight["gland"] > 0.45, 108, (26, 44), rng)
    tissue.vessels = _rings(tissue, weight["stroma"] > 0.6, 230, (9, 20), rng)
    tissue.adipocytes = _adipocytes(tissue, weight["fat"], rng)
    lymphoid = 0.62 * weight["immune"] * (1 - 0.75 * follicle) + 0.035 * (weight["stroma"] + weight["tumor"])
    parts = [
        _scatter(tissue, "tumor", 11.5, 0.95 * weight["tumor"] * nests * (1 - grade), rng),
        _scatter(tissue, "tumor_high_grade", 12.5, 0.95 * weight["tumor"] * nests * grade, rng),
        _scatter(tissue, "fibroblast", 21, 0.85 * (weight["stroma"] - activated) + 0.5 * weight["gland"], rng),
        _scatter(tissue, "fibroblast", 24, 0.5 * weight["tumor"] * (1 - nests) + 0.15 * weight["immune"], rng),
        _scatter(tissue, "activated_fibroblast", 15, 0.95 * activated, rng),
        _scatter(tissue, "t_cell", 9, lymphoid, rng),
        _scatter(tissue, "b_cell", 7.6, 0.95 * follicle, rng),
    ]
    free = [_outside_structures(tissue, *part) for part in parts]
    rings = [_ring_cells(g, "luminal", 0.78, 7.5, rng) for g in tissue.glands]
    rings += [_ring_cells(g, "basal", 1.0, 15, rng) for g in tissue.glands]
    rings += [_ring_cells(v, "endothelial", 1.12, 13, rng) for v in tissue.vessels]
    fat = (tissue.adipocytes[:, :2], np.full(len(tissue.adipocytes), CELL_TYPES.index("adipocyte")))
    xy, types, angles = zip(*free, *rings, (*fat, rng.uniform(0, np.pi, len(fat[0]))), strict=True)
    tissue.cells, tissue.types, tissue.angles = np.concatenate(xy), np.concatenate(types), np.concatenate(angles)


_Cells = tuple[np.ndarray, np.ndarray, np.ndarray]


def _scatter(
    tissue: Tissue, cell_type: str, spacing: float, probability: np.ndarray, rng: np.random.Generator
) -> _Cells:
    points = _lattice(tissue.side, spacing, 0.2, rng)
    kept = rng.random(len(points)) < _read(probability, points)
    points = points[kept & (_read(tissue.outline, points) > 0)]
    down, right = np.gradient(tissue.flow[..., 1])
    along_fibers = np.arctan2(_read(right, points), -_read(down, points)) + rng.normal(0, 0.25, len(points))
    free = rng.uniform(0, np.pi, len(points))
    angles = along_fibers if "fibroblast" in cell_type else free
    return points, np.full(len(points), CELL_TYPES.index(cell_type)), angles


def _rings(
    tissue: Tissue, where: np.ndarray, spacing: float, radii: tuple[float, float], rng: np.random.Generator
) -> list[Ring]:
    centers = _lattice(tissue.side, spacing, 0.1, rng)
    inside = (_read(where.astype(float), centers) > 0.5) & (_read(tissue.outline, centers) > 0.08)
    rings = []
    for center in centers[inside]:
        size = rng.uniform(*radii)
        flat = rng.uniform(0.62, 1)
        wobble = np.array([rng.uniform(0.02, 0.1), rng.uniform(0, 2 * np.pi)])
        rings.append(Ring(center, np.array([size, size * flat]), rng.uniform(0, np.pi), wobble))
    return rings


def _ring_cells(ring: Ring, cell_type: str, depth: float, spacing: float, rng: np.random.Generator) -> _Cells:
    n_cells = max(4, int(2 * np.pi * ring.radii.mean() * depth / spacing))
    phase = 2 * np.pi * (np.arange(n_cells) + rng.uniform(-0.22, 0.22, n_cells)) / n_cells
    reach = ring.radius_at(phase) * depth * (1 + rng.normal(0, 0.025, n_cells))
    local = np.stack([np.cos(phase) * ring.radii[0], np.sin(phase) * ring.radii[1]], axis=1) * reach[:, None]
    normal = np.arctan2(np.sin(phase) / ring.radii[1], np.cos(phase) / ring.radii[0]) + ring.angle
    turn = np.array([[np.cos(ring.angle), np.sin(ring.angle)], [-np.sin(ring.angle), np.cos(ring.angle)]])
    angles = normal if cell_type == "luminal" else normal + np.pi / 2
    return ring.center + local @ turn, np.full(n_cells, CELL_TYPES.index(cell_type)), angles


def _adipocytes(tissue: Tissue, fat: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    centers = _lattice(tissue.side, 52, 0.15, rng)
    centers = centers[(_read(fat, centers) > 0.5) & (_read(tissue.outline, centers) > -0.01)]
    return np.column_stack([centers, rng.uniform(29, 37, len(centers))])


def _outside_structures(tissue: Tissue, xy: np.ndarray, types: np.ndarray, angles: np.ndarray) -> _Cells:
    kept = np.ones(len(xy), bool)
    rings = [(r, r.radii.max() * 1.05 + 4) for r in tissue.glands] + [(v, v.radii.max() + 5) for v in tissue.vessels]
    round_ones = [(r.center, reach) for r, reach in rings] + [(a[:2], a[2] - 1) for a in tissue.adipocytes]
    for center, reach in round_ones:
        kept &= ((xy - center) ** 2).sum(axis=1) > reach**2
    return xy[kept], types[kept], angles[kept]
