"""Whether the prediction keeps what genes have to do with each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sthisto.metrics._arrays import check_pair, predicted_part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sthisto.metrics._arrays import Matrix

_GENES_AT_ONCE = 512


def gene_correlation_agreement(truth: Matrix, prediction: Matrix) -> float:
    """Correlate the gene-gene correlations of the prediction with those of the measurement.

    The Pearson correlations of all pairs of genes over the spots are computed in both matrices; the value is the
    Pearson correlation of these two lists. Depth correlates all genes in log-normalized data: with residuals as
    `truth`, it does not count.

    Parameters
    ----------
    truth, prediction
        (n_spots, n_genes), dense or sparse. Genes that are NaN throughout, or constant, in either matrix are left out;
        then spots with any NaN.

    Returns
    -------
    1 for the same structure, about 0 without agreement, NaN with fewer than three genes or spots.

    Raises
    ------
    ValueError
        The matrices have different shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from sthisto import metrics
    >>> x = np.random.default_rng(0).normal(size=(50, 1)) + np.random.default_rng(1).normal(size=(50, 4))
    >>> round(metrics.gene_correlation_agreement(x, 2 * x + 1), 3)
    1.0
    """
    truth, prediction = check_pair(truth, prediction)
    t, p = _complete(truth, prediction)
    if min(t.shape) < 3:
        return float("nan")
    sums = np.zeros(5)
    pairs = 0
    for start in range(0, t.shape[1], _GENES_AT_ONCE):
        genes = slice(start, start + _GENES_AT_ONCE)
        rows = np.arange(t.shape[1])[genes]
        above = rows[:, None] < np.arange(t.shape[1])
        a, b = (t[:, genes].T @ t)[above], (p[:, genes].T @ p)[above]
        sums += a.sum(), b.sum(), a @ a, b @ b, a @ b
        pairs += a.size
    mean_a, mean_b, aa, bb, ab = sums / pairs
    spread = (aa - mean_a**2) * (bb - mean_b**2)
    return float((ab - mean_a * mean_b) / np.sqrt(spread)) if spread > 0 else float("nan")


def _complete(truth: Any, prediction: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standardize both matrices, (n_spots, n_genes), over shared spots and varying genes, each gene to length 1."""
    both = [np.asarray(m if isinstance(m, np.ndarray) else m.toarray(), dtype=np.float64) for m in (truth, prediction)]
    genes = np.logical_and(*(predicted_part(m)[1] for m in both))
    both = [m[:, genes] for m in both]
    spots = np.logical_and(*(predicted_part(m)[0] for m in both))
    both = [m[spots] for m in both]
    if not spots.any():
        return both[0], both[1]
    varies = np.logical_and(*(m.max(axis=0) > m.min(axis=0) for m in both))
    centered = [m[:, varies] - m[:, varies].mean(axis=0) for m in both]
    t, p = (m / np.linalg.norm(m, axis=0) for m in centered)
    return t, p
