"""Which spots are trained on, choose the epoch, and are tested. Arrays in, arrays out."""

from __future__ import annotations

import numpy as np

_CELLS = 5


def spatial_blocks(positions: np.ndarray, fraction: float, *, seed: int) -> np.ndarray:
    """Choose whole blocks of a section until they hold a fraction of its spots.

    The section is divided into 5 x 5 cells; neighboring spots look alike, so that single spots drawn at random
    would be all but copies of those beside them.

    Parameters
    ----------
    positions
        (n_spots, 2) x and y.
    fraction
        Share of the spots to choose, between 0 and 1.
    seed
        Of the order in which cells are chosen.

    Returns
    -------
    (n_spots,) bool. At least one spot stays outside; with fewer than two cells that hold spots, none is chosen.
    """
    chosen = np.zeros(len(positions), dtype=bool)
    if len(positions) < 2 or fraction <= 0:
        return chosen
    low, high = positions.min(axis=0), positions.max(axis=0)
    cell = np.minimum((positions - low) / np.maximum(high - low, 1e-9) * _CELLS, _CELLS - 1).astype(int)
    number = cell[:, 0] * _CELLS + cell[:, 1]
    cells = np.random.default_rng(seed).permutation(np.unique(number))
    for candidate in cells[:-1]:
        if chosen.sum() >= round(fraction * len(positions)):
            break
        chosen |= number == candidate
    return chosen
