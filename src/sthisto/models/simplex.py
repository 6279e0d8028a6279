"""Proportions from what a method predicts."""

from __future__ import annotations

import numpy as np


def to_simplex(values: np.ndarray) -> np.ndarray:
    """Return the nearest proportions to each row: none negative, with the sum one.

    The nearest by Euclidean distance are at least as near to any true proportions as the row itself is.

    Parameters
    ----------
    values
        (n_spots, n_types) values; rows with NaN become NaN.

    Returns
    -------
    (n_spots, n_types) float32.

    References
    ----------
    Duchi et al., ICML 2008, doi:10.1145/1390156.1390191.
    """
    rows = np.asarray(values, dtype=np.float64)
    descending = -np.sort(-rows, axis=1)
    excess = np.cumsum(descending, axis=1) - 1
    ranks = np.arange(1, rows.shape[1] + 1)
    n_positive = np.maximum((descending * ranks > excess).sum(axis=1), 1)
    threshold = excess[np.arange(len(rows)), n_positive - 1] / n_positive
    return np.maximum(rows - threshold[:, None], 0).astype(np.float32)
