"""Mutual information of predicted and measured expression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sthisto._utils.arguments import checked
from sthisto._utils.validate import check_positive
from sthisto.metrics._columns import by_gene, ranks, variance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sthisto.metrics._arrays import Matrix


@checked()
def mutual_information(truth: Matrix, prediction: Matrix, *, n_bins: int = 8) -> NDArray[np.float64]:
    """Measure how much each gene's prediction tells of its measurement, in nats, whatever the form of their relation.

    Both are binned by rank into bins of about equal size; equal values share a bin. The expected value without signal,
    ``(a - 1) (b - 1) / (2 n)`` for a and b occupied bins and n spots, is subtracted.

    Parameters
    ----------
    truth, prediction
        Measured and predicted expression, (n_spots, n_genes).
    n_bins
        Most bins of each. Binning can only lose information.

    Returns
    -------
    (n_genes,), about 0 without signal and possibly below, at most the logarithm of `n_bins`; NaN for a gene that is
    constant in either matrix.

    References
    ----------
    Miller, Note on the bias of information estimates, 1955; Roulston, Physica D 1999,
    doi:10.1016/S0167-2789(98)00269-3.

    Examples
    --------
    >>> import numpy as np
    >>> from sthisto import metrics
    >>> x = np.linspace(-1, 1, 200)[:, None]
    >>> metrics.mutual_information(x, x**2).round(1)
    array([1.3])
    """
    check_positive(n_bins, name="n_bins")

    def score(t: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
        n = (~np.isnan(t)).sum(axis=0)
        genes = np.broadcast_to(np.arange(t.shape[1]), t.shape)
        cells = (genes * n_bins + _bins(t, n, n_bins)) * n_bins + _bins(p, n, n_bins)
        joint = np.bincount(cells[~np.isnan(t)], minlength=t.shape[1] * n_bins**2).reshape(-1, n_bins, n_bins)
        rows, columns = joint.sum(axis=2), joint.sum(axis=1)
        information = (_entropy(rows, n) + _entropy(columns, n)) - _entropy(joint.reshape(-1, n_bins**2), n)
        freedom = ((rows > 0).sum(axis=1) - 1) * ((columns > 0).sum(axis=1) - 1)
        varies = (variance(t) > 0) & (variance(p) > 0)
        return np.where(varies, information - freedom / (2 * n), np.nan)

    return by_gene(score, truth, prediction)


def _bins(x: NDArray[np.float64], n: NDArray[np.int64], n_bins: int) -> NDArray[np.int64]:
    return np.nan_to_num((ranks(x) - 0.5) / n * n_bins).astype(np.int64).clip(0, n_bins - 1)


def _entropy(counts: NDArray[np.int64], n: NDArray[np.int64]) -> NDArray[np.float64]:
    share = counts / n[:, None]
    return -(share * np.log(np.where(counts > 0, share, 1.0))).sum(axis=1)
