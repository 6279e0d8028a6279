"""What a second sequencing of the same spots would reach: reliability of the residuals from splits of the counts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.stats import norm

from sthisto._utils.arguments import checked
from sthisto._utils.validate import check_positive
from sthisto.metrics._arrays import as_array, check_numeric, gene_blocks
from sthisto.metrics._residuals import check_counts, check_totals, residual_block

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from sthisto.metrics._arrays import Matrix

_FEWEST_SPOTS = 4


@dataclass(frozen=True)
class Reproducibility:
    """What `reproducibility` found. Arrays have the shape (n_genes,)."""

    reliability: NDArray[np.float64]
    """Correlation of the residuals with those of a second, equally deep measurement; may be negative by chance."""
    reliability_low: NDArray[np.float64]
    reliability_high: NDArray[np.float64]
    reproducibility: NDArray[np.float64]
    """Square root of the reliability; NaN where its interval includes zero."""
    mean_reliability: float
    """Mean over all genes that have a reliability, including those whose interval includes zero."""
    overall: float
    """Square root of `mean_reliability`, 0 where that is negative."""
    overall_low: float
    overall_high: float

    @property
    def ceiling(self) -> NDArray[np.float64]:
        """Deprecated name of `reproducibility`, (n_genes,)."""
        warnings.warn("`ceiling` is now `reproducibility`.", FutureWarning, stacklevel=2)
        return self.reproducibility


@checked()
def reproducibility(
    counts: Matrix,
    *,
    totals: ArrayLike | None = None,
    n_splits: int = 10,
    interval: float = 0.95,
    theta: float = 100.0,
    seed: int = 0,
    set_weights: ArrayLike | None = None,
) -> Reproducibility:
    """Estimate the `residual_pearson` that the counts of a second, infinitely deep sequencing of the same spots reach.

    Each count is split in two by a binomial draw, and so is the rest of the spot's counts. The Pearson residuals of the
    two halves, each with its own depth, are correlated over the spots, averaged over the splits, and brought to full
    depth by the Spearman-Brown formula ``2 r / (1 + r)``, unclipped. The mean over genes comes before the root, so that
    noise around zero cancels instead of adding up.

    This is no target for a prediction from an image. Everything that sequencing the same spots again would reproduce
    counts as signal here, including overdispersion that has no spatial structure and that no image shows: sections
    simulated without any tissue, with the overdispersion of a real one, score as high as the real one. `sibling_score`
    is the fairer reference.

    Parameters
    ----------
    counts
        (n_spots, n_genes) whole counts of *one* section, dense or sparse.
    totals
        (n_spots,) counts of each spot over all measured genes. None: the sums of `counts`.
    n_splits
        Number of random splits that are averaged; at least ten for a score that is reported.
    interval
        Confidence level of the intervals over spots.
    theta
        Overdispersion of `pearson_residuals`.
    seed
        Seed of the splits.
    set_weights
        (n_genes, n_sets) weight of each gene in each of some sets: the weighted sums of the residuals are correlated,
        and what is returned is of the sets. None: the genes.

    Returns
    -------
    A `Reproducibility`. A gene that is constant in a half is left out of that split; where this holds for all splits,
    its reliability is NaN. With fewer than four spots everything is NaN.

    Raises
    ------
    ValueError
        Counts are not whole numbers, or as for `pearson_residuals`.

    Notes
    -----
    The intervals are normal on Fisher's z scale. Their standard error is the larger of two: that of the splits' mean
    correlation by the infinitesimal jackknife over spots, and that of a single correlation without signal,
    ``1 / sqrt(n - 3)``. They describe the sampling of spots, for independent measurement noise.

    Compare it only with `residual_pearson` on the same counts.

    References
    ----------
    Spearman, British Journal of Psychology 1910, doi:10.1111/j.2044-8295.1910.tb00206.x. Count splitting: Neufeld et
    al., Biostatistics 2024, doi:10.1093/biostatistics/kxac047. Infinitesimal jackknife: Jaeckel, Bell Laboratories
    Memorandum 1972; Efron, Biometrika 1981, doi:10.1093/biomet/68.3.589.

    Examples
    --------
    >>> import numpy as np
    >>> from sthisto import metrics
    >>> rng = np.random.default_rng(0)
    >>> rate = np.repeat([[5.0, 20.0, 60.0], [15.0, 10.0, 60.0]], 50, axis=0)
    >>> found = metrics.reproducibility(rng.poisson(rate))
    >>> 0.5 < found.overall < 1, bool(found.reproducibility[1] > 0.7)
    (True, True)
    """
    check_positive(n_splits, name="n_splits")
    if not 0 < interval < 1:
        msg = f"`interval` must be between 0 and 1, found {interval!r}."
        raise ValueError(msg)
    matrix = check_counts(counts)
    depth = check_totals(totals, matrix)
    filled = np.flatnonzero(depth > 0)  # spots without counts carry no information
    matrix, depth = matrix[filled], depth[filled]
    halves = _split(matrix, depth, n_splits=n_splits, seed=seed)
    weights = None if set_weights is None else _check_weights(set_weights, matrix.shape[1])
    shape = matrix.shape if weights is None else (matrix.shape[0], weights.shape[1])
    r, influence = _half_correlation(halves, shape, theta=theta, weights=weights)
    return _summary(r, influence, quantile=float(norm.ppf(0.5 + interval / 2)))


def noise_ceiling(counts: Matrix, **arguments: Any) -> Reproducibility:
    """Return `reproducibility`; deprecated, since it is no ceiling of what an image could reach.

    Parameters
    ----------
    counts
        (n_spots, n_genes) whole counts of one section.
    **arguments
        Keyword arguments of `reproducibility`.

    Returns
    -------
    What `reproducibility` returns.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.noise_ceiling([[4, 0], [2, 2], [0, 4], [3, 1]])  # doctest: +SKIP
    """
    warnings.warn(
        "`noise_ceiling` is now `reproducibility`: what a second sequencing of the same spots would reach, no target "
        "for an image. The old name will be removed in the next release.",
        FutureWarning,
        stacklevel=2,
    )
    return reproducibility(counts, **arguments)


def _check_weights(set_weights: ArrayLike, n_genes: int) -> NDArray[np.float64]:
    """Return weights of genes in sets, (n_genes, n_sets), after checking shape, type and values."""
    weights = as_array(set_weights, name="set_weights")
    if weights.ndim != 2 or len(weights) != n_genes:
        msg = f"`set_weights` must have a row for each of {n_genes} genes, found the shape {weights.shape}."
        raise ValueError(msg)
    check_numeric(weights.dtype, name="set_weights")
    if not np.isfinite(weights).all():
        msg = "`set_weights` must be finite, found NaN or infinity."
        raise ValueError(msg)
    return np.asarray(weights, dtype=np.float64)


def _split(
    matrix: Any, totals: NDArray[np.float64], *, n_splits: int, seed: int
) -> list[tuple[Any, NDArray, Any, NDArray]]:
    """Draw the halves of every split: counts, (n_spots, n_genes), and totals, (n_spots,), of one, then of the other."""
    values = sp.csc_matrix(matrix)
    whole = values.data.astype(np.int64)
    rest = np.rint(totals - np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel())
    if not (whole == values.data).all() or not np.allclose(rest, totals - np.asarray(matrix.sum(axis=1)).ravel()):
        msg = "`counts` and `totals` must be whole numbers to be split. Pass the layer that holds raw counts."
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    halves = []
    for _ in range(n_splits):
        first = rng.binomial(whole, 0.5)
        pair = [
            sp.csc_matrix((part.astype(np.int32), values.indices, values.indptr), shape=values.shape)
            for part in (first, whole - first)
        ]
        rest_first = rng.binomial(np.maximum(rest, 0).astype(np.int64), 0.5)
        depths = [np.asarray(pair[0].sum(axis=1)).ravel() + rest_first]
        depths.append(np.rint(totals) - depths[0])
        halves.append((pair[0], depths[0].astype(np.float64), pair[1], depths[1]))
    return halves


def _half_correlation(
    halves: list[tuple[Any, NDArray, Any, NDArray]], shape: tuple[int, int], *, theta: float, weights: NDArray | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean correlation of the halves, (n_genes,), and each spot's influence on it, (n_spots, n_genes), or of sets."""
    r, splits, influence = np.zeros(shape[1]), np.zeros(shape[1]), np.zeros(shape)
    for first, first_totals, second, second_totals in halves:
        measured = (first_totals > 0) & (second_totals > 0)
        n = int(measured.sum())
        if n < _FEWEST_SPOTS:
            continue
        pair = ((first[measured], first_totals[measured]), (second[measured], second_totals[measured]))
        for genes, *residuals in _residuals_of_halves(pair, theta=theta, weights=weights):
            x, y = (_standardized(values) for values in residuals)
            once = (x * y).mean(axis=0)
            varies = ~np.isnan(once)
            r[genes] += np.where(varies, once, 0.0)
            splits[genes] += varies
            contribution = x * y - once / 2 * (x**2 + y**2)
            influence[measured, genes] += np.where(varies, contribution, 0.0)
    counted = np.where(splits > 0, splits, np.nan)
    return r / counted, influence / counted


def _residuals_of_halves(
    pair: tuple[tuple[Any, NDArray], tuple[Any, NDArray]], *, theta: float, weights: NDArray | None
) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64]]]:
    """Yield residuals of both halves, (n_spots, n_block); with `weights`, (n_genes, n_sets), of all sets at once."""
    (first, first_totals), (second, second_totals) = pair
    clip = float(np.sqrt(len(first_totals)))
    sums = None
    for genes, *halves in gene_blocks(first, second):
        x, y = (
            residual_block(half, totals, theta=theta, clip=clip)
            for half, totals in zip(halves, (first_totals, second_totals), strict=True)
        )
        if weights is None:
            yield genes, x, y
        else:
            parts = np.stack([x @ weights[genes], y @ weights[genes]])
            sums = parts if sums is None else sums + parts
    if sums is not None:
        yield slice(None), sums[0], sums[1]


def _standardized(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Center and scale each column of (n_spots, n_columns); NaN for a constant one."""
    sd = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(sd > 1e-12, sd, np.nan)


def _summary(r: NDArray[np.float64], influence: NDArray[np.float64], *, quantile: float) -> Reproducibility:
    n = len(influence)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt((influence**2).sum(axis=0)) / n / (1 - r**2)
        error = np.maximum(error, 1 / np.sqrt(n - 3) if n >= _FEWEST_SPOTS else np.nan)
        z = np.arctanh(r)
        reliability, low, high = (_full_depth(np.tanh(z + s * quantile * error)) for s in (0, -1, 1))
        root = np.where(low > 0, np.sqrt(np.maximum(reliability, 0.0)), np.nan)
        slope = 2 / (1 + r) ** 2
    measured = np.isfinite(reliability)
    if not measured.any():
        return Reproducibility(reliability, low, high, root, np.nan, np.nan, np.nan, np.nan)
    mean = float(reliability[measured].mean())
    spread = float(np.linalg.norm((influence * slope)[:, measured].mean(axis=1))) / n
    overall, overall_low, overall_high = (float(np.sqrt(max(mean + s * quantile * spread, 0.0))) for s in (0, -1, 1))
    return Reproducibility(reliability, low, high, root, mean, overall, overall_low, overall_high)


def _full_depth(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman-Brown: the correlation of two measurements of twice the depth, (n_genes,)."""
    return 2 * r / (1 + r)
