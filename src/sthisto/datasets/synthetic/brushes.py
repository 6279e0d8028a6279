"""Brushes for synthetic sections: shapes of nuclei, stamped by the thousand, and textures that repeat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft2, rfft2
from scipy.ndimage import gaussian_filter

from sthisto.datasets.synthetic.tissue import CELL_TYPES

FIBER_TILE = 1024
N_ANGLES = 12
N_SHAPES = 4


@dataclass(frozen=True)
class Nucleus:
    """What the nuclei of a cell type look like."""

    long: float  # half axes in µm
    short: float
    dark: float
    hollow: float = 0.0  # how much paler the inside is than the rim
    coarse: float = 0.1  # chromatin texture
    nucleoli: int = 0
    cytoplasm: float = 0.0  # radius in µm


NUCLEI = {
    "tumor": Nucleus(4.5, 3.6, 0.80, hollow=0.40, coarse=0.16, nucleoli=1, cytoplasm=8.2),
    "tumor_high_grade": Nucleus(6.2, 4.7, 1.08, hollow=0.22, coarse=0.34, nucleoli=2, cytoplasm=8.6),
    "luminal": Nucleus(4.3, 2.9, 1.0, hollow=0.15),
    "basal": Nucleus(4.6, 1.5, 1.05),
    "fibroblast": Nucleus(7.6, 1.25, 0.85),
    "activated_fibroblast": Nucleus(6.6, 2.3, 0.85, hollow=0.25),
    "endothelial": Nucleus(5.6, 1.3, 1.0),
    "t_cell": Nucleus(3.1, 2.9, 1.40, coarse=0.18),
    "b_cell": Nucleus(3.5, 3.2, 1.15, coarse=0.30),
    "adipocyte": Nucleus(5.0, 1.1, 1.0),
}


@dataclass(frozen=True)
class Brushes:
    """Textures and nuclei at one resolution, shared by all sections of a call."""

    um_per_px: float
    fine: np.ndarray  # (size, size) periodic noise, as are the next three
    mottle: np.ndarray
    bundles: np.ndarray  # collagen, rows across the fibers in steps of 0.5 µm, columns along them in steps of 1 µm
    threads: np.ndarray
    nuclei: list[np.ndarray]  # a cell type: (n_angles * n_shapes, size, size)


def prepare_brushes(um_per_px: float, rng: np.random.Generator) -> Brushes:
    """Render what is stamped and repeated, once."""
    return Brushes(
        um_per_px,
        fine=_tile(rng, 1.2 / um_per_px, 512),
        mottle=_tile(rng, 5 / um_per_px, 512),
        bundles=_tile(rng, (9.0, 40.0), FIBER_TILE),
        threads=_tile(rng, (2.2, 30.0), FIBER_TILE),
        nuclei=[_sprites(NUCLEI[cell_type], um_per_px, rng) for cell_type in CELL_TYPES],
    )


def step(x: np.ndarray) -> np.ndarray:
    """Rise smoothly from 0 to 1 where `x`, of any shape, changes sign."""
    return 1 / (1 + np.exp(np.clip(-x, -30, 30)))


def _tile(rng: np.random.Generator, sigma: float | tuple[float, float], size: int) -> np.ndarray:
    """Periodic noise (size, size) of mean 0 and variance 1, smoothed by a Gaussian."""
    rows, columns = np.broadcast_to(sigma, 2)
    down, right = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
    gaussian = np.exp(-2 * np.pi**2 * ((rows * down) ** 2 + (columns * right) ** 2)).astype(np.float32)
    values = irfft2(rfft2(rng.standard_normal((size, size), np.float32)) * gaussian, s=(size, size))
    return (values - values.mean()) / values.std()


def _sprites(nucleus: Nucleus, um_per_px: float, rng: np.random.Generator) -> np.ndarray:
    """Render a nucleus in several directions and shapes, (n_angles * n_shapes, size, size)."""
    half = int(np.ceil(nucleus.long * 1.35 / um_per_px)) + 1
    yy, xx = np.mgrid[-half : half + 1, -half : half + 1] * um_per_px
    n_sprites = N_ANGLES * N_SHAPES
    angle = np.repeat(np.pi * np.arange(N_ANGLES) / N_ANGLES, N_SHAPES)[:, None, None]

    def draw(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (n_sprites, 1, 1))

    long, short = nucleus.long * draw(0.82, 1.2), nucleus.short * draw(0.85, 1.18)
    u = xx * np.cos(angle) + yy * np.sin(angle)
    v = yy * np.cos(angle) - xx * np.sin(angle) + draw(-0.025, 0.025) * u**2
    share = np.hypot(u / long, v / short) / (1 + 0.06 * np.sin(2 * np.arctan2(v / short, u / long) + draw(0, 6)))
    grain = gaussian_filter(rng.standard_normal(share.shape), (0, 0.8 / um_per_px, 0.8 / um_per_px))
    chromatin = 1 - nucleus.hollow * np.clip(1 - share**3, 0, 1) + 2 * nucleus.coarse * grain
    for _ in range(nucleus.nucleoli):
        x0, y0 = nucleus.short * rng.normal(0, 0.3, (2, n_sprites, 1, 1))
        chromatin += 0.55 * np.exp(-((xx - x0) ** 2 + (yy - y0) ** 2) / 0.9)
    dark = nucleus.dark * draw(0.86, 1.12)
    return (dark * step((1 - share) * short / 0.32) * np.clip(chromatin, 0.25, 1.6)).astype(np.float32)
