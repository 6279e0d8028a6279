"""Scores of each gene. A further one is one function here, or in `sthisto.metrics`, and one line in a table below.

`SCORES` are computed from a prediction. `REFERENCES` are computed from the measurement: what predictions are read
against. The names become columns of the tables that `tl.evaluate` and `tl.cross_validate` write, and their means
columns of the summaries.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import pandas as pd

from sthisto._scoring.measure import Measured
from sthisto.metrics import (
    DepthSpline,
    SiblingReference,
    cluster,
    cluster_ari,
    depth_pearson,
    partial_pearson,
    pearson,
    reproducibility,
    rmse,
    sibling_score,
)

FEWEST_SCORED: Final = 3
"""Fewest spots of a section that are scored: any two columns of two spots correlate perfectly."""


@dataclass(frozen=True)
class ScoreOptions:
    """What scores depend on beside the measurement and the prediction.

    Attributes
    ----------
    depth_knots
        Knots of the spline of the training spots' log total counts; empty where there are none.
    n_splits
        Random splits of the counts for the reproducibility.
    seed
        Seed of the splits.
    siblings
        Components of the training residuals of the scored genes, from which genes predict each other; None where there
        are none.
    """

    depth_knots: tuple[float, ...] = ()
    n_splits: int = 10
    seed: int = 0
    siblings: SiblingReference | None = None


@dataclass(frozen=True)
class Score:
    """A score of a prediction.

    Attributes
    ----------
    compute
        Function of what was measured, a prediction (n_spots, n_genes) and the options that returns (n_genes,).
    is_correlation
        In means, NaN counts as 0 for a gene that varies: the prediction does not vary, and is no better for it.
    """

    compute: Callable[[Measured, np.ndarray, ScoreOptions], np.ndarray]
    is_correlation: bool = True


Reference: TypeAlias = Callable[[Measured, ScoreOptions], dict[str, np.ndarray]]
"""Function of what was measured and the options that returns columns, (n_genes,) each."""


def _pcc(one: Measured, prediction: np.ndarray, options: ScoreOptions) -> np.ndarray:
    return pearson(one.truth, prediction)


def _pcc_residual(one: Measured, prediction: np.ndarray, options: ScoreOptions) -> np.ndarray:
    return pearson(one.residuals, prediction)


def _pcc_partial_depth(one: Measured, prediction: np.ndarray, options: ScoreOptions) -> np.ndarray:
    """Correlate what a spline of the log total count, its knots from the training spots, leaves of both, (n_genes,)."""
    if not len(options.depth_knots):
        return np.full(len(one.genes), np.nan)
    if not np.isfinite(one.totals).all():
        return np.full(len(one.genes), np.nan)
    covariates = DepthSpline(options.depth_knots).transform(np.log(one.totals))
    return partial_pearson(one.truth, prediction, covariates)


def _rmse(one: Measured, prediction: np.ndarray, options: ScoreOptions) -> np.ndarray:
    return rmse(one.truth, prediction)


def _reproducibility(one: Measured, options: ScoreOptions) -> dict[str, np.ndarray]:
    if not one.counts.shape[1]:
        unknown = np.full(len(one.genes), np.nan)
        return {"reproducibility": unknown, "reliability": unknown}
    found = reproducibility(
        one.counts, totals=one.totals, set_weights=one.set_weights, n_splits=options.n_splits, seed=options.seed
    )
    return {"reproducibility": found.reproducibility, "reliability": found.reliability}


def _siblings(one: Measured, options: ScoreOptions) -> dict[str, np.ndarray]:
    if options.siblings is None:
        return {"sibling": np.full(len(one.genes), np.nan)}
    return {"sibling": sibling_score(one.residuals, options.siblings)}


def _depth(one: Measured, options: ScoreOptions) -> dict[str, np.ndarray]:
    if not np.isfinite(one.totals).all():
        return dict.fromkeys(("depth_pcc", "depth_pcc_residual"), np.full(len(one.genes), np.nan))
    return {
        "depth_pcc": depth_pearson(one.truth, one.totals),
        "depth_pcc_residual": depth_pearson(one.residuals, one.totals),
    }


SCORES: Final[dict[str, Score]] = {
    "pcc": Score(_pcc),
    "pcc_residual": Score(_pcc_residual),
    "pcc_partial_depth": Score(_pcc_partial_depth),
    "rmse": Score(_rmse, is_correlation=False),
}
"""Column -> score of a prediction."""

REFERENCES: Final[dict[str, Reference]] = {
    "reproducibility": _reproducibility,
    "siblings": _siblings,
    "depth": _depth,
}
"""Name -> what predictions are read against."""


def score_genes(
    one: Measured,
    key: Hashable,
    options: ScoreOptions,
    *,
    references: Iterable[str] | None = None,
) -> pd.DataFrame:
    """Return the scores of one prediction.

    Parameters
    ----------
    one
        What was measured and predicted.
    key
        Name of the prediction in it.
    options
        What scores depend on beside these.
    references
        Names in `REFERENCES`; None is all.

    Returns
    -------
    One row a gene: section, gene, n_spots, mean_expression (on the scale of the prediction), a column for each of
    `SCORES`, and the columns of the references.
    """
    prediction = one.predictions[key]
    columns = {"mean_expression": one.truth.mean(axis=0)}
    columns |= {name: score.compute(one, prediction, options) for name, score in SCORES.items()}
    for name in REFERENCES if references is None else references:
        columns |= REFERENCES[name](one, options)
    floats = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    return pd.DataFrame({"section": one.name, "gene": list(one.genes), "n_spots": len(one), **floats})


def varies(prediction: np.ndarray) -> bool:
    """Return whether any gene of a prediction, (n_spots, n_genes), differs between spots."""
    return bool(len(prediction)) and bool(np.ptp(prediction, axis=0).max() > 0)


def score_clusters(one: Measured, prediction: np.ndarray, *, leiden: bool, seed: int) -> tuple[str, float] | None:
    """Compare clusters of predicted or measured expression with the labels of a section, by the adjusted Rand index.

    Parameters
    ----------
    one
        What was measured.
    prediction
        (n_spots, n_genes) expression to cluster.
    leiden
        Where there are no labels, compare with the clusters that Leiden finds in the measured expression.
    seed
        Seed of the clusters of the prediction.

    Returns
    -------
    What the clusters were compared with, "labels" or "leiden of measured", and the index; None where there is nothing
    to compare with.
    """
    if one.labels is not None:
        return "labels", cluster_ari(prediction, one.labels, seed=seed)
    if leiden:
        found = cluster(one.truth, method="leiden", seed=0)
        return "leiden of measured", cluster_ari(prediction, found.astype(str), seed=seed)
    return None
