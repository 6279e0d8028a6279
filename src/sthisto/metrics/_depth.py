"""How much of a score is depth: the baseline, and the correlation that is left when depth is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import orth
from sklearn.preprocessing import SplineTransformer

from sthisto.metrics._arrays import as_array, check_amounts, check_matrix, check_numeric, check_pair, paired_blocks
from sthisto.metrics._pearson import ROUNDING, correlation, pearson

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from sthisto.metrics._arrays import Matrix


def depth_pearson(target: Matrix, totals: ArrayLike) -> NDArray[np.float64]:
    """Correlate each gene of a target with the logarithm of the spots' total counts: the `depth` baseline.

    Whatever score this reaches, a method reaches by predicting how many counts a spot has.

    Parameters
    ----------
    target
        (n_spots, n_genes) the measured expression that predictions are scored against: log-normalized or residuals.
    totals
        (n_spots,) counts of each spot over the genes that the target was normalized with. Spots with 0 are left out.

    Returns
    -------
    (n_genes,) with its sign: positive where the target grows with depth. NaN for a constant gene.

    Raises
    ------
    ValueError
        A total is negative, or there is not one for each spot.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.depth_pearson([[0.0], [1.0], [2.0]], [10, 100, 1000])
    array([1.])
    """
    matrix = check_matrix(target, name="target")
    predictor = _log(check_amounts(totals, matrix.shape[0], name="totals"))
    return pearson(matrix, np.broadcast_to(predictor[:, None], matrix.shape))


def _log(totals: NDArray[Any]) -> NDArray[np.float64]:
    if (totals < 0).any():
        msg = "`totals` must not be negative."
        raise ValueError(msg)
    values = totals.astype(np.float64)
    return np.log(np.where(values > 0, values, np.nan))


_LARGEST = 1e150
"""Beyond it, squares are infinite."""


@dataclass(frozen=True)
class DepthSpline:
    """A cubic spline of the logarithm of the total count, its knots fixed on the training sections.

    Examples
    --------
    >>> import numpy as np
    >>> from sthisto import metrics
    >>> spline = metrics.DepthSpline.fit(np.log(np.arange(100, 1000)))
    >>> spline.transform(np.log([50, 500, 5000])).shape
    (3, 6)
    """

    knots: tuple[float, ...]
    """Increasing logarithms of total counts; beyond the outer two the spline goes on as a straight line."""

    @classmethod
    def fit(cls, log_totals: ArrayLike, *, n_knots: int = 5) -> DepthSpline:
        """Place knots at the quantiles of the training spots' log totals, (n_spots,).

        Values that are not finite, spots without counts, are left out. Raises ValueError when fewer than two distinct
        values or knots are left.
        """
        values = np.asarray(log_totals, dtype=np.float64)
        values = values[np.isfinite(values)]
        if n_knots < 2 or np.unique(values).size < 2:
            msg = f"A spline needs two knots and two distinct finite values of `log_totals`, found {n_knots} knots."
            raise ValueError(msg)
        return cls(tuple(np.unique(np.quantile(values, np.linspace(0, 1, n_knots))).tolist()))

    def transform(self, log_totals: ArrayLike) -> NDArray[np.float64]:
        """Return the spline's basis at each spot, (n_spots, n_knots + 1); NaN where a log total is not finite."""
        values = np.asarray(log_totals, dtype=np.float64)
        finite = np.isfinite(values)
        knots = np.array(self.knots)[:, None]
        basis = SplineTransformer(knots=knots, extrapolation="linear", include_bias=False).fit(knots)
        covariates = np.full((len(values), basis.n_features_out_), np.nan)
        if finite.any():
            covariates[finite] = basis.transform(values[finite, None])
        return covariates


def partial_pearson(truth: Matrix, prediction: Matrix, covariates: ArrayLike) -> NDArray[np.float64]:
    """Correlate prediction and measurement of each gene after taking the covariates out of both, linearly.

    With `DepthSpline` as covariates, it asks what a prediction knows beyond depth. Depth is also cellularity: adjusting
    for it can take away biology, which is why this stands beside the score and does not replace it.

    Parameters
    ----------
    truth, prediction
        Measured and predicted expression, (n_spots, n_genes).
    covariates
        (n_spots, n_covariates), as `DepthSpline.transform` returns; spots with NaN are left out. A constant is added.

    Returns
    -------
    (n_genes,), NaN for a gene of which the covariates leave nothing in either matrix, or with no more spots than
    covariates.

    Raises
    ------
    ValueError
        The spots do not match, or a covariate is infinite.

    References
    ----------
    Fisher, Metron 1924, 3:329-332.

    Examples
    --------
    >>> import numpy as np
    >>> from sthisto import metrics
    >>> rng = np.random.default_rng(0)
    >>> depth = rng.normal(size=(500, 1))
    >>> measured, predicted = depth + rng.normal(size=(2, 500, 1))
    >>> metrics.pearson(measured, predicted).round(1)
    array([0.5])
    >>> abs(metrics.partial_pearson(measured, predicted, depth)).round(1)
    array([0.])
    """
    truth, prediction = check_pair(truth, prediction)
    given = as_array(covariates, name="covariates")
    check_numeric(given.dtype, name="covariates")
    given = given.astype(np.float64)
    if given.ndim != 2 or len(given) != truth.shape[0]:
        msg = f"`covariates` must have the shape ({truth.shape[0]}, n_covariates), found {given.shape}."
        raise ValueError(msg)
    if given.size and np.nanmax(np.abs(given), initial=0.0) > _LARGEST:
        msg = f"`covariates` must be finite and at most {_LARGEST:g}, or NaN for spots that are left out."
        raise ValueError(msg)
    known = ~np.isnan(given).any(axis=1)
    given, truth, prediction = given[known], truth[known], prediction[known]
    score = np.full(truth.shape[1], np.nan)
    for genes, t, p in paired_blocks(truth, prediction):
        patterns, which = np.unique(np.isnan(t), axis=1, return_inverse=True)
        for i, missing in enumerate(patterns.T):
            columns = np.flatnonzero(which.ravel() == i)
            spots = np.ix_(~missing, columns)
            score[genes.start + columns] = _partial(t[spots], p[spots], given[~missing])
    return score


def _partial(t: NDArray[np.float64], p: NDArray[np.float64], covariates: NDArray[np.float64]) -> NDArray[np.float64]:
    n = len(t)
    if n < 2:
        return np.full(t.shape[1], np.nan)
    basis = orth(np.column_stack([np.ones(n), covariates - covariates.mean(axis=0)]))
    if n - basis.shape[1] < 2:
        return np.full(t.shape[1], np.nan)
    with np.errstate(invalid="ignore"):
        left_t, left_p = (x - basis @ (basis.T @ x) for x in (t, p))
        squares = [(x * x).sum(axis=0) for x in (left_t, left_p)]
        floors = [ROUNDING * (x * x).sum(axis=0) for x in (t, p)]
        return correlation((left_t * left_p).sum(axis=0), squares, floors=floors)
