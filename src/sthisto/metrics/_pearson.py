"""Pearson's correlation of many genes at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from sthisto.metrics._arrays import check_pair, paired_blocks, row_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sthisto.metrics._arrays import Matrix

ROUNDING = 1e-26
"""A gene varies when its sum of squares exceeds this share of the squares of its mean: (1e-13)², float64's rounding."""

_CANCELED = 1e-6
"""Centered squares that are a smaller share of the squares than this have lost more digits than they should."""


def pearson(truth: Matrix, prediction: Matrix) -> NDArray[np.float64]:
    """Correlate each gene's prediction with its measurement over the spots.

    Both matrices are read once, in blocks, and summed in float64 after subtracting the first spot's values of a dense
    one: a gene with a large mean and a small variance keeps its digits, and a constant gene has a variance of exactly
    zero. Where that fails, and where values are NaN, the gene is read a second time.

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
    All spots are taken as one group. For the score of several sections, see `per_section`. Of the sparse layouts, CSR
    is read as it is; others are converted first.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.pearson([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]], [[1.0, 5.0], [2.0, 6.0], [4.0, 9.0]]).round(3)
    array([0.982,   nan])
    """
    truth, prediction = check_pair(truth, prediction)
    n, first, sums = _sums(truth, prediction)
    if n < 2:
        return np.full(truth.shape[1], np.nan)
    score, again = _from_sums(n, first, sums)
    if again.size:
        for genes, t, p in paired_blocks(truth[:, again], prediction[:, again]):
            score[again[genes]] = paired_pearson(t, p)
    return score


def _sums(truth: Any, prediction: Any) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Return how many spots are not NaN throughout, what was subtracted (2, n_genes) and sums (5, n_genes)."""
    if sp.issparse(truth):
        return _sparse_sums(truth, prediction)
    if sp.issparse(prediction):
        n, first, sums = _sparse_sums(prediction, truth)
        return n, first[::-1], sums[[1, 0, 3, 2, 4]]
    from sthisto.metrics._moments import add_moments

    n, first, sums = 0, np.zeros((2, truth.shape[1])), np.zeros((5, truth.shape[1]))
    for t, p in row_blocks(truth, prediction):
        kept = _not_missing(t) & _not_missing(p)
        if not kept.all():
            t, p = t[kept], p[kept]
        if n == 0 and len(t):
            first = np.stack([t[0], p[0]]).astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            add_moments(t, p, first[0], first[1], sums)
        n += len(t)
    return n, first, sums


def _sparse_sums(x: Any, y: Any) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """As `_sums`, of a CSR matrix, of which nothing is subtracted, and one of any kind."""
    from sthisto.metrics._moments import add_sparse_moments

    n, start, y_first = 0, 0, np.zeros(x.shape[1])
    of_x, of_y = np.zeros((x.shape[1], 3)), np.zeros((2, x.shape[1]))
    for (block,) in row_blocks(y):
        kept = np.flatnonzero(_not_missing(block))
        part = block if len(kept) == len(block) else block[kept]
        if n == 0 and len(part):
            y_first = part[0].astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            add_sparse_moments(x.indptr, x.indices, x.data, start + kept, part, y_first, of_x, of_y)
        n, start = n + len(part), start + len(block)
    sums = np.stack([of_x[:, 0], of_y[0], of_x[:, 1], of_y[1], of_x[:, 2]])
    return n, np.stack([np.zeros_like(y_first), y_first]), sums


def _not_missing(block: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Spots with at least one value; only those that begin with NaN are looked through."""
    kept = np.ones(len(block), dtype=bool)
    suspect = np.flatnonzero(np.isnan(block[:, 0])) if block.shape[1] else np.empty(0, dtype=int)
    kept[suspect] = ~np.isnan(block[suspect]).all(axis=1)
    return kept


def _from_sums(
    n: int, first: NDArray[np.float64], sums: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the scores and the genes they fail for: NaN in the sums, or a variance lost in the square of the mean."""
    with np.errstate(invalid="ignore", over="ignore"):
        means = sums[:2] / n
        squares = sums[2:4] - n * means**2
        product = sums[4] - n * means[0] * means[1]
        score = correlation(product, squares, floors=ROUNDING * n * (first + means) ** 2)
        keeps_digits = squares >= _CANCELED * sums[2:4]
    return score, np.flatnonzero(~np.vstack([np.isfinite(sums), keeps_digits]).all(axis=0))


def correlation(product: NDArray[np.float64], squares: Any, *, floors: Any) -> NDArray[np.float64]:
    """Divide centered products by both centered squares; NaN where one of these is not above its floor."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        varies = (squares[0] > floors[0]) & (squares[1] > floors[1])
        r = product / (np.sqrt(squares[0]) * np.sqrt(squares[1]))
    return np.where(varies, np.clip(r, -1.0, 1.0), np.nan)


def paired_pearson(t: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlate the columns of two float64 arrays in which NaN stands at the same places."""
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
    """Return the columns less their means, 0 where nothing is, and the means; twice, since large means are rounded."""
    mean = np.where(present, x, 0.0).sum(axis=0) / n
    x = np.where(present, x - mean, 0.0)
    return np.where(present, x - x.sum(axis=0) / n, 0.0), mean
