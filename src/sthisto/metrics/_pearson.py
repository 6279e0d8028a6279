"""Pearson's correlation of many genes at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sthisto.metrics._columns import by_gene

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sthisto.metrics._arrays import Matrix

ROUNDING = 1e-26
"""A gene varies when its sum of squares exceeds this share of the squares of its mean: (1e-13)², float64's rounding."""


def pearson(truth: Matrix, prediction: Matrix) -> NDArray[np.float64]:
    """Correlate each gene's prediction with its measurement over the spots.

    Blocks of genes are centered on their means in float64, so that a gene with a large mean and a small variance keeps
    its digits.

    Parameters
    ----------
    truth, prediction
        (n_spots, n_genes), dense or sparse, on one scale of the caller's choice. NaN stands for a spot or gene that
        was not predicted: for each gene, spots with NaN in either matrix are left out. An infinite value makes its
        gene NaN.

    Returns
    -------
    (n_genes,), NaN for a gene that is constant in either matrix or has fewer than two spots.

    Raises
    ------
    ValueError
        The matrices have different shapes.

    Notes
    -----
    All spots are taken as one group. For the score of several sections, see `per_section`.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.pearson([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]], [[1.0, 5.0], [2.0, 6.0], [4.0, 9.0]]).round(3)
    array([0.982,   nan])
    """
    return by_gene(paired_pearson, truth, prediction)


def correlation(product: NDArray[np.float64], squares: Any, *, floors: Any) -> NDArray[np.float64]:
    """Divide centered products by the roots of both squares, all of one shape; NaN where one is not above its floor."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        varies = (squares[0] > floors[0]) & (squares[1] > floors[1])
        r = product / (np.sqrt(squares[0]) * np.sqrt(squares[1]))
    return np.where(varies, np.clip(r, -1.0, 1.0), np.nan)


def paired_pearson(t: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlate the columns of two (n_spots, n_columns) float64 arrays in which NaN stands at the same places."""
    present = ~np.isnan(t)
    n = np.maximum(present.sum(axis=0), 1)
    with np.errstate(invalid="ignore", over="ignore"):
        (t, t_mean), (p, p_mean) = (_centered(x, present, n) for x in (t, p))
        squares = (t * t).sum(axis=0), (p * p).sum(axis=0)
        floors = [ROUNDING * n * mean**2 for mean in (t_mean, p_mean)]
        return correlation((t * p).sum(axis=0), squares, floors=floors)


def _centered(
    x: NDArray[np.float64], present: NDArray[np.bool_], n: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (n_spots, n_columns) less the means, 0 where nothing is, and these; twice, as large means are rounded."""
    mean = np.where(present, x, 0.0).sum(axis=0) / n
    x = np.where(present, x - mean, 0.0)
    return np.where(present, x - x.sum(axis=0) / n, 0.0), mean
