"""Scores of each section on its own, so that offsets between sections never count as skill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sthisto._utils.arguments import checked
from sthisto._utils.checks import function
from sthisto.metrics._arrays import check_groups, check_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike

    from sthisto.metrics._arrays import Matrix


@checked(metric=function)
def per_section(
    metric: Callable[..., Any],
    truth: Matrix,
    prediction: Matrix,
    *,
    section: ArrayLike,
    spotwise: Mapping[str, ArrayLike] | None = None,
    **options: Any,
) -> dict[Any, Any]:
    """Apply a metric to each section alone.

    Every other function here takes all spots that it is given as one group. Over several sections that pools them, and
    a difference between sections, of staining or depth, counts as skill.

    Parameters
    ----------
    metric
        A function of `truth` and `prediction`, such as `pearson` or `residual_pearson`.
    truth, prediction
        (n_spots, n_genes) of all sections; for `residual_pearson`, `truth` are the counts.
    section
        (n_spots,) section of each spot.
    spotwise
        Further arguments with one row a spot, (n_spots, ...), that go to the metric by section, such as
        ``{"totals": totals}``.
    **options
        Further arguments of the metric, the same for all sections.

    Returns
    -------
    Section -> what the metric returns, in sorted order. `numpy.stack` of the values is (n_sections, n_genes).

    Raises
    ------
    ValueError
        Something does not have one row for each spot.

    Examples
    --------
    >>> from sthisto import metrics
    >>> truth, prediction = [[1.0], [2.0], [11.0], [12.0]], [[2.0], [1.0], [12.0], [11.0]]
    >>> metrics.per_section(metrics.pearson, truth, prediction, section=["A", "A", "B", "B"])
    {'A': array([-1.]), 'B': array([-1.])}
    >>> metrics.pearson(truth, prediction).round(2)
    array([0.98])
    """
    truth, prediction = check_pair(truth, prediction)
    labels = check_groups(section, truth.shape[0], name="section")
    columns = {name: np.asarray(values) for name, values in (spotwise or {}).items()}
    for name, values in columns.items():
        if not values.ndim or len(values) != len(labels):
            msg = f"`spotwise[{name!r}]` must have one row for each of the {len(labels)} spots, found {values.shape}."
            raise ValueError(msg)
    scores = {}
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        own = {name: values[rows] for name, values in columns.items()}
        scores[label.item() if isinstance(label, np.generic) else label] = metric(
            truth[rows], prediction[rows], **own, **options
        )
    return scores
