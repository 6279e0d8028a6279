"""Parts of a section: blocks, bands, and the spots whose patches overlap with others. Arrays in, arrays out."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

_CELLS = 5


def spatial_blocks(positions: np.ndarray, fraction: float, *, seed: int) -> np.ndarray:
    """Choose whole blocks of a section until they hold a fraction of its spots.

    The section is divided into 5 x 5 cells. Neighboring spots look alike, so that single spots drawn at random would
    be near copies of training spots.

    Parameters
    ----------
    positions
        (n_spots, 2) x and y.
    fraction
        Share of the spots to choose, between 0 and 1.
    seed
        Seed of the order in which cells are chosen.

    Returns
    -------
    (n_spots,) bool. At least one spot stays outside; with fewer than two cells that hold spots, none is chosen.
    """
    chosen = np.zeros(len(positions), dtype=bool)
    if len(positions) < 2 or fraction <= 0:
        return chosen
    number = cells(positions)
    drawn = np.random.default_rng(seed).permutation(np.unique(number))
    for candidate in drawn[:-1]:
        if chosen.sum() >= round(fraction * len(positions)):
            break
        chosen |= number == candidate
    return chosen


def cells(positions: np.ndarray) -> np.ndarray:
    """Return the cell of each spot, (n_spots,) numbers from 0 to 24: the section is divided into 5 x 5 of them."""
    if not len(positions):
        return np.zeros(0, dtype=int)
    low, high = positions.min(axis=0), positions.max(axis=0)
    cell = np.minimum((positions - low) / np.maximum(high - low, 1e-9) * _CELLS, _CELLS - 1).astype(int)
    return np.asarray(cell[:, 0] * _CELLS + cell[:, 1])


def spatial_bands(positions: np.ndarray, n_bands: int) -> np.ndarray:
    """Cut a section into bands across its longer side that hold equally many spots.

    A band has two borders at most, so that a margin beside it costs the fewest training spots.

    Parameters
    ----------
    positions
        (n_spots, 2) x and y.
    n_bands
        Number of bands.

    Returns
    -------
    (n_spots,) number of each spot's band, from 0.
    """
    extent = np.ptp(positions, axis=0) if len(positions) else np.zeros(2)
    order = np.argsort(positions[:, int(np.argmax(extent))], kind="stable")
    band = np.empty(len(positions), dtype=int)
    band[order] = np.arange(len(positions)) * n_bands // max(len(positions), 1)
    return band


def shares_pixels(positions: np.ndarray, held_out: np.ndarray, margin: float) -> np.ndarray:
    """Find the spots whose patch of the width `margin` shares pixels with that of a held-out spot.

    Parameters
    ----------
    positions
        (n_spots, 2) x and y in px.
    held_out
        (n_spots,) bool.
    margin
        Width in px of what a model sees around a spot: the patch with its widest context.

    Returns
    -------
    (n_spots,) bool; False for the held-out spots themselves.
    """
    result = np.zeros(len(positions), dtype=bool)
    if margin <= 0 or not held_out.any() or held_out.all():
        return result
    distance, _ = cKDTree(positions[held_out]).query(positions[~held_out], p=np.inf)
    result[~held_out] = distance < margin
    return result
