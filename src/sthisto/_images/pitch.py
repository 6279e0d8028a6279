"""The distance between neighboring spots, bins or tiles."""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree


def median_pitch(centers: np.ndarray, *, norm: float = 2.0) -> float:
    """Return the median distance from each of at least two points, (n, 2), to its nearest, in the points' unit.

    Parameters
    ----------
    norm
        Minkowski norm of the distance: 2 is Euclidean, infinity the larger of the distances in x and y.
    """
    distance, _ = KDTree(centers).query(centers, k=2, p=norm)
    return float(np.median(distance[:, 1]))
