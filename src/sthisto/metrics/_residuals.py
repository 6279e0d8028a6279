"""Analytic Pearson residuals, and the score against them: what is left of a gene when a spot's depth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sthisto._utils.arguments import checked
from sthisto.metrics._arrays import check_amounts, check_matrix, gene_blocks
from sthisto.metrics._pearson import pearson

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from sthisto.metrics._arrays import Matrix


@checked()
def pearson_residuals(
    counts: Matrix,
    *,
    totals: ArrayLike | None = None,
    theta: float = 100.0,
    clip: float | None = None,
) -> NDArray[np.float64]:
    """Express counts as deviations from what each spot's depth leads to expect.

    With ``mu = totals * counts.sum(0) / totals.sum()``, the residual is ``(counts - mu) / sqrt(mu + mu² / theta)``, a
    negative binomial model whose only parameter per gene is its share of all counts.

    Parameters
    ----------
    counts
        (n_spots, n_genes) raw counts of one section, dense or sparse; possibly a panel of the measured genes.
    totals
        (n_spots,) counts of each spot over *all* measured genes. None takes the sums of `counts`, which is right only
        if these are all genes.
    theta
        Overdispersion shared by the genes; `numpy.inf` is the Poisson model.
    clip
        Residuals are clipped to ±clip; None is the square root of the number of spots that have counts.

    Returns
    -------
    (n_spots, n_genes). Spots without any count are NaN and take no part in the model or in `clip`. A gene without
    counts is 0, the limit of its residual.

    Raises
    ------
    ValueError
        Counts are negative or not finite, or a spot's total is below the sum of its counts.

    References
    ----------
    Lause, Berens and Kobak, Genome Biology 2021, doi:10.1186/s13059-021-02451-7. Equal to
    `scanpy.experimental.pp.normalize_pearson_residuals` when `counts` are all genes.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.pearson_residuals([[4, 0], [2, 2], [0, 4]]).round(2)
    array([[ 1.4, -1.4],
           [ 0. ,  0. ],
           [-1.4,  1.4]])
    """
    matrix = check_counts(counts)
    depth = check_totals(totals, matrix)
    limit = float(np.sqrt((depth > 0).sum())) if clip is None else clip
    if limit < 0:
        msg = f"`clip` must not be negative, found {clip!r}."
        raise ValueError(msg)
    residuals = np.empty(matrix.shape)
    for genes, block in gene_blocks(matrix):
        residuals[:, genes] = residual_block(block, depth, theta=theta, clip=limit)
    return residuals


def residual_block(
    counts: NDArray[np.float64], totals: NDArray[np.float64], *, theta: float, clip: float
) -> NDArray[np.float64]:
    """Residuals of some genes, (n_spots, n_block), given the totals over all genes."""
    grand_total = totals.sum()
    if grand_total == 0:
        return np.full(counts.shape, np.nan)
    mu = np.outer(totals, counts.sum(axis=0) / grand_total)
    with np.errstate(invalid="ignore", divide="ignore"):
        residuals = (counts - mu) / np.sqrt(mu + mu**2 / theta)
    residuals[:, counts.sum(axis=0) == 0] = 0.0
    residuals[totals == 0] = np.nan
    return np.clip(residuals, -clip, clip)


@checked()
def residual_pearson(
    counts: Matrix,
    prediction: Matrix,
    *,
    totals: ArrayLike | None = None,
    theta: float = 100.0,
) -> NDArray[np.float64]:
    """Correlate each gene's prediction with the Pearson residuals of its measured counts: the primary score.

    A spot's total count predicts much of every gene after log normalization; against residuals it predicts nothing. The
    prediction may be on any scale.

    Parameters
    ----------
    counts, totals, theta
        Counts of *one* section and what `pearson_residuals` makes of them. For several sections, see `per_section`.
    prediction
        (n_spots, n_genes); NaN where a spot or gene was not predicted. Residuals are computed before those are left
        out, so that the target does not depend on the method.

    Returns
    -------
    (n_genes,), NaN for a gene without counts or with a constant prediction. Spots without counts are left out.

    Raises
    ------
    ValueError
        For the same reasons as `pearson_residuals` and `pearson`.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.residual_pearson([[4, 0], [2, 2], [0, 4]], [[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]])
    array([1., 1.])
    """
    return pearson(pearson_residuals(counts, totals=totals, theta=theta), prediction)


def check_counts(counts: Matrix) -> Any:
    """Return counts as a matrix, (n_spots, n_genes), after checking that none is negative, NaN or infinite."""
    matrix = check_matrix(counts, name="counts")
    values = getattr(matrix, "data", matrix) if not isinstance(matrix, np.ndarray) else matrix
    if values.size and not (values.min() >= 0 and np.isfinite(values.max())):
        msg = "`counts` must be raw counts: finite and not negative. Pass the layer that holds the counts."
        raise ValueError(msg)
    return matrix


def check_totals(totals: ArrayLike | None, counts: Any) -> NDArray[np.float64]:
    """Return the depth of each spot over all genes, (n_spots,) float64, at least the sum of its counts."""
    sums = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    if totals is None:
        return sums
    depth = check_amounts(totals, counts.shape[0], name="totals")
    below = np.flatnonzero(~(depth >= sums * (1 - 1e-6)))
    if below.size:
        i = below[0]
        msg = (
            f"`totals` must be counts over all genes, at least the sum of `counts`; {below.size} spots have less or "
            f"NaN, the first is spot {i} with {depth[i]:g} against {sums[i]:g}."
        )
        raise ValueError(msg)
    return depth
