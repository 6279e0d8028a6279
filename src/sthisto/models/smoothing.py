"""Predictions drawn toward those of the neighboring spots. Arrays in, arrays out."""

from __future__ import annotations

import numpy as np

from sthisto.metrics import spatial_graph

N_NEIGHBORS = 6


def smooth_expression(expression: np.ndarray, centers: np.ndarray, share: float) -> np.ndarray:
    """Mix each spot's prediction with the mean of its neighbors'.

    Parameters
    ----------
    expression
        (n_spots, n_genes) prediction of one section.
    centers
        (n_spots, 2) of the spots.
    share
        Weight of the neighbors' mean; 0 changes nothing. A spot has the 6 nearest as neighbors, and those that have
        it among theirs.

    Returns
    -------
    (n_spots, n_genes).
    """
    if len(expression) < 2:
        return expression
    graph = spatial_graph(centers, n_neighbors=min(N_NEIGHBORS, len(centers) - 1))
    neighbors = graph @ expression / np.asarray(graph.sum(axis=1)).reshape(-1, 1)
    return np.asarray((1 - share) * expression + share * neighbors, dtype=np.float32)


def variance_kept(before: list[np.ndarray], after: list[np.ndarray]) -> float:
    """Return the share of the variance over spots, (n_spots, n_genes) each, that smoothing left; NaN without any."""
    total = sum(float(values.var(axis=0, dtype=np.float64).sum()) for values in before)
    left = sum(float(values.var(axis=0, dtype=np.float64).sum()) for values in after)
    return left / total if total else float("nan")
