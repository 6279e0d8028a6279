"""Statistics of columns in which NaN is left out, and their application to blocks of genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from sthisto._utils.arguments import checked
from sthisto._utils.checks import function
from sthisto.metrics._arrays import check_pair, paired_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sthisto.metrics._arrays import Matrix


@checked(score=function)
def by_gene(
    score: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
    truth: Matrix,
    prediction: Matrix,
) -> NDArray[np.float64]:
    """Apply a score of paired columns to blocks of genes: what a metric of your own starts from.

    Shapes are checked, sparse matrices are read in dense blocks that fit into a processor's cache, and a value that is
    NaN in one matrix is NaN in both.

    Parameters
    ----------
    score
        Function of the measured and the predicted values of some genes, both float64 (n_spots, n_block), that returns
        one number a gene, (n_block,). Warnings of numpy about NaN and division are silenced in it.
    truth, prediction
        (n_spots, n_genes), dense or sparse, with the same spots and genes.

    Returns
    -------
    (n_genes,) float64; NaN without spots.

    Raises
    ------
    ValueError
        The matrices have different shapes or are not two-dimensional.
    TypeError
        A matrix does not hold numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from sthisto import metrics
    >>> truth, prediction = [[1.0], [2.0], [3.0]], [[1.0], [4.0], [3.5]]
    >>> metrics.by_gene(lambda t, p: np.nanmedian(np.abs(t - p), axis=0), truth, prediction)
    array([0.5])
    """
    truth, prediction = check_pair(truth, prediction)
    result = np.full(truth.shape[1], np.nan)
    if truth.shape[0]:
        for genes, t, p in paired_blocks(truth, prediction):
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                result[genes] = score(t, p)
    return result


def mean(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average each column over what is not NaN, (n_columns,); NaN where nothing is."""
    return np.nansum(x, axis=0) / (~np.isnan(x)).sum(axis=0)


def variance(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the variance of each column, (n_columns,), exactly 0 for a constant one."""
    varies = np.fmax.reduce(x, axis=0) != np.fmin.reduce(x, axis=0)
    return np.where(varies, mean((x - mean(x)) ** 2), 0.0)


def ranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank each column of (n_spots, n_columns) from 1, ties by their mean rank; NaN keeps its place."""
    missing = np.isnan(x)
    ranked = rankdata(np.where(missing, np.inf, x), axis=0)
    ranked[missing] = np.nan
    return ranked
