"""Scores of predicted against measured expression, one value a gene or one a spot, and the genes' shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sthisto._utils.arguments import checked
from sthisto.metrics._arrays import check_matrix, check_pair, gene_blocks
from sthisto.metrics._columns import by_gene, mean, ranks, variance
from sthisto.metrics._pearson import paired_pearson, pearson

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sthisto.metrics._arrays import Matrix


def spearman(truth: Matrix, prediction: Matrix) -> NDArray[np.float64]:
    """Correlate the ranks of each gene's prediction and measurement over the spots; ties share their mean rank.

    Parameters
    ----------
    truth, prediction
        Measured and predicted expression, (n_spots, n_genes).

    Returns
    -------
    (n_genes,), NaN where `pearson` has none.

    References
    ----------
    Spearman, American Journal of Psychology 1904, doi:10.2307/1412159.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.spearman([[1.0], [2.0], [3.0]], [[1.0], [20.0], [300.0]])
    array([1.])
    """
    return by_gene(lambda t, p: paired_pearson(ranks(t), ranks(p)), truth, prediction)


def r2(truth: Matrix, prediction: Matrix) -> NDArray[np.float64]:
    """Share of each gene's measured variance that the prediction explains as it stands.

    Parameters
    ----------
    truth, prediction
        Measured and predicted expression on one scale, (n_spots, n_genes).

    Returns
    -------
    (n_genes,), 1 for a perfect prediction, 0 for the mean of the measured values, negative for worse. NaN for a gene
    whose measurement is constant or that has fewer than two spots.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.r2([[1.0], [2.0], [3.0]], [[1.0], [2.0], [4.0]])
    array([0.5])
    """

    def score(t: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
        spread = variance(t)
        return 1 - mean((t - p) ** 2) / np.where(spread > 0, spread, np.nan)

    return by_gene(score, truth, prediction)


def rmse(truth: Matrix, prediction: Matrix) -> NDArray[np.float64]:
    """Root of the mean squared difference of each gene, on the scale of the matrices.

    Parameters
    ----------
    truth, prediction
        Measured and predicted expression, (n_spots, n_genes).

    Returns
    -------
    (n_genes,), NaN for a gene without spots.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.rmse([[1.0], [2.0]], [[1.0], [4.0]]).round(3)
    array([1.414])
    """
    return by_gene(lambda t, p: np.sqrt(mean((t - p) ** 2)), truth, prediction)


def mae(truth: Matrix, prediction: Matrix) -> NDArray[np.float64]:
    """Mean absolute difference of each gene, on the scale of the matrices.

    Parameters
    ----------
    truth, prediction
        Measured and predicted expression, (n_spots, n_genes).

    Returns
    -------
    (n_genes,), NaN for a gene without spots.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.mae([[1.0], [2.0]], [[1.0], [4.0]])
    array([1.])
    """
    return by_gene(lambda t, p: mean(np.abs(t - p)), truth, prediction)


def variance_ratio(truth: Matrix, prediction: Matrix) -> NDArray[np.float64]:
    """Predicted over measured variance of each gene: near 0 for a prediction that hardly leaves the mean.

    Parameters
    ----------
    truth, prediction
        Measured and predicted expression, (n_spots, n_genes).

    Returns
    -------
    (n_genes,), NaN for a gene whose measurement is constant or that has fewer than two spots.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.variance_ratio([[0.0], [2.0]], [[0.5], [1.5]])
    array([0.25])
    """

    def score(t: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
        spread = variance(t)
        return variance(p) / np.where(spread > 0, spread, np.nan)

    return by_gene(score, truth, prediction)


@checked()
def auc(truth: Matrix, prediction: Matrix, *, threshold: float = 0.0) -> NDArray[np.float64]:
    """Chance that a spot that expresses a gene is predicted higher than one that does not; ties count half.

    Parameters
    ----------
    truth, prediction
        Measured and predicted expression, (n_spots, n_genes).
    threshold
        A gene is expressed in spots whose measured value is above this.

    Returns
    -------
    (n_genes,) area under the receiver operating characteristic, 0.5 without signal, NaN for a gene that all spots or
    none express.

    References
    ----------
    Hanley and McNeil, Radiology 1982, doi:10.1148/radiology.143.1.7063747.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.auc([[0.0], [0.0], [3.0]], [[1.0], [2.0], [2.0]])
    array([0.75])
    """

    def score(t: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
        expressed = t > threshold
        positive = expressed.sum(axis=0)
        negative = (~np.isnan(t)).sum(axis=0) - positive
        wins = np.where(expressed, ranks(p), 0.0).sum(axis=0) - positive * (positive + 1) / 2
        return wins / (positive * negative)

    return by_gene(score, truth, prediction)


def spot_pearson(truth: Matrix, prediction: Matrix) -> NDArray[np.float64]:
    """Correlate each spot's predicted profile with the measured one over the genes.

    It is high for any prediction that has the genes' mean levels right, also one that is the same for all spots: read
    it beside the score of the `mean` baseline.

    Parameters
    ----------
    truth, prediction
        Measured and predicted expression, (n_spots, n_genes). Genes with NaN are left out spot by spot.

    Returns
    -------
    (n_spots,), NaN for a spot whose profile is constant, is not predicted or has fewer than two genes.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.spot_pearson([[1.0, 2.0, 3.0]], [[2.0, 4.0, 6.0]])
    array([1.])
    """
    truth, prediction = check_pair(truth, prediction)
    return pearson(truth.T, prediction.T)


def mean_proportions(x: Matrix) -> NDArray[np.float64]:
    """Each gene's mean over the spots as a share of the sum of all genes' means.

    Parameters
    ----------
    x
        (n_spots, n_genes), dense or sparse, on any scale without negative values; NaN is left out.

    Returns
    -------
    (n_genes,) shares, which sum to 1, in the order of the genes; NaN for a gene without values, or for all genes when
    every value is 0.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.mean_proportions([[1.0, 2.0], [0.0, 5.0]])
    array([0.125, 0.875])
    """
    return _shares(mean, x)


def sd_proportions(x: Matrix) -> NDArray[np.float64]:
    """Each gene's standard deviation over the spots as a share of the sum of all genes' standard deviations.

    Parameters
    ----------
    x
        Values of any sign, (n_spots, n_genes).

    Returns
    -------
    (n_genes,) shares, as of `mean_proportions`.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.sd_proportions([[1.0, 2.0], [0.0, 5.0]])
    array([0.25, 0.75])
    """
    return _shares(lambda block: np.sqrt(variance(block)), x)


def _shares(statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], x: Matrix) -> NDArray[np.float64]:
    matrix = check_matrix(x, name="x")
    values = np.full(matrix.shape[1], np.nan)
    if matrix.shape[0]:
        for genes, block in gene_blocks(matrix):
            with np.errstate(invalid="ignore"):
                values[genes] = np.where(np.isnan(block).all(axis=0), np.nan, statistic(block))
    total = np.nansum(values)
    return values / total if total else np.full_like(values, np.nan)
