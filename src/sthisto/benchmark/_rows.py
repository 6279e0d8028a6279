"""From what was measured and predicted on one fold to the rows of a benchmark's table; the engine scores them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from sthisto._scoring.intervals import Scope, differences, intervals, reproducibility, scopes
from sthisto._scoring.measure import Measured
from sthisto._scoring.score import ScoreOptions, score_clusters, score_genes, varies
from sthisto._scoring.summary import gene_sets, mean_over_genes
from sthisto._sdata.slots import ALL_GENES
from sthisto.benchmark._protocol import Protocol
from sthisto.metrics import Interval, pearson

DEPTH: Final = "depth"
REPRODUCIBILITY: Final = "reproducibility"
SIBLINGS: Final = "siblings"
MEASURED: Final = "measured"
"""Rows beside those of the methods."""
RESIDUALS: Final = "pearson_residuals"
LOG1P: Final = "log1p"
IN_PANEL: Final = "log1p in panel"
LABELS: Final = "labels"
LEIDEN: Final = "leiden of measured"
"""What is scored against."""
OF_GENE: Final = "pcc of gene"
"""Metric of a row whose `genes` is one gene, picked because a method predicts it best on that section."""
DIFFERENCE: Final = "pcc_residual less "
_N_BEST = 5
_TARGETS: Final[dict[tuple[str, str], Callable[[Measured], np.ndarray]]] = {
    ("pcc_residual", RESIDUALS): lambda one: one.residuals,
    ("pcc", LOG1P): lambda one: one.truth,
    ("pcc", IN_PANEL): lambda one: one.in_panel(),
}
Row = dict[str, Any]
Key = tuple[str, int]
"""Label of a method and seed."""


@dataclass(frozen=True)
class Outcome:
    """What was measured and predicted on the test sections of one fold.

    Attributes
    ----------
    train
        Names of the training sections.
    sections
        The test sections, with a prediction for each (label of a method, seed).
    options
        What scores depend on beside them.
    seconds
        (label of a method, seed) -> seconds of the fit and of the prediction.
    """

    train: list[str]
    sections: list[Measured]
    options: ScoreOptions
    seconds: dict[Key, tuple[float, float]]

    @property
    def keys(self) -> list[Key]:
        """(label of a method, seed) of every prediction."""
        return list(self.seconds)


def rows_of(outcome: Outcome, protocol: Protocol) -> list[Row]:
    """Return the rows of one fold, with all columns but those that a protocol has in common."""
    rows: list[Row] = []
    tables = {
        (one.name, key): score_genes(one, key, outcome.options, references=[DEPTH, SIBLINGS])
        for one in outcome.sections
        for key in outcome.keys
    }
    for scope in scopes(outcome.sections):
        sets = [_gene_sets(one, protocol.data.markers) for one in scope.sections]
        for name in sets[0]:
            chosen = [of_section[name] for of_section in sets]
            shared = {"test": scope.name, "genes": _label(name, len(chosen[0]), protocol)}
            rows += [shared | row for row in _correlations(outcome, scope, chosen, protocol.reference)]
            if not scope.pooled:
                rows += [shared | row for row in _means(tables, scope.sections, chosen)]
    for one in outcome.sections:
        shared = {"test": one.name, "genes": _label(ALL_GENES, len(one.genes), protocol)}
        rows += [shared | row for row in _clusters(one, outcome.keys, leiden=protocol.data.leiden)]
        rows += [{"test": one.name, **row} for row in _best_genes(one, outcome.keys)]
    train = "+".join(outcome.train)
    return [{"train": train, **row, **_seconds(outcome, row)} for row in rows]


def _label(name: str, n_genes: int, protocol: Protocol) -> str:
    return f"{name} ({n_genes}; {protocol.genes_rule})"


def _gene_sets(one: Measured, markers: Sequence[str]) -> dict[str, np.ndarray]:
    is_marker = np.isin(np.asarray(one.genes, dtype=str), list(markers))
    return gene_sets(one.truth.mean(axis=0), variance=one.truth.var(axis=0), is_marker=is_marker)


def _correlations(outcome: Outcome, scope: Scope, chosen: Sequence[np.ndarray], reference: str) -> Iterator[Row]:
    """Yield each correlation with its interval, those of depth last; a constant prediction has none.

    `chosen` has the positions of the genes in each section, (n_chosen,).
    """
    for seed in dict.fromkeys(seed for _, seed in outcome.keys):
        keys = [key for key in outcome.keys if key[1] == seed]
        for (metric, scale), target in _TARGETS.items():
            for (method, _), found in intervals(scope, chosen, keys, target=target).items():
                yield {"method": method, "seed": seed, **_row(metric, scale, found)}
        for (method, _), found in differences(scope, chosen, keys, reference=(reference, seed)).items():
            yield {"method": method, "seed": seed, **_row(f"{DIFFERENCE}{reference}", RESIDUALS, found)}
    for (metric, scale), target in _TARGETS.items():
        for found in intervals(_of_depth(scope), chosen, [DEPTH], target=target).values():
            yield {"method": DEPTH, **_row(metric, scale, found)}


def _means(
    tables: Mapping[tuple[str, Key], pd.DataFrame], sections: Sequence[Measured], chosen: Sequence[np.ndarray]
) -> Iterator[Row]:
    """Yield the references, and the other scores of each prediction: means over genes, then sections.

    `chosen` has the positions of the genes in each section, (n_chosen,).
    """
    yield {"method": REPRODUCIBILITY, **_row("pcc_residual", RESIDUALS, reproducibility(sections, chosen))}
    siblings = [
        tables[one.name, next(iter(tables))[1]]["sibling"].iloc[at].mean()
        for one, at in zip(sections, chosen, strict=True)
    ]
    yield {"method": SIBLINGS, **_row("pcc_residual", RESIDUALS, _alone(float(np.mean(siblings))))}
    for key in dict.fromkeys(key for _, key in tables):
        parts = [tables[one.name, key].iloc[at] for one, at in zip(sections, chosen, strict=True)]
        partial = [mean_over_genes(one["pcc_partial_depth"], one["depth_pcc_residual"].notna()) for one in parts]
        error = [one["rmse"].mean() for one in parts]
        for metric, values in {"pcc_partial_depth": partial, "rmse": error}.items():
            if np.isfinite(mean := float(np.mean(values))):
                yield {"method": key[0], "seed": key[1], **_row(metric, LOG1P, _alone(mean))}


def _clusters(one: Measured, keys: Sequence[Key], *, leiden: bool) -> Iterator[Row]:
    """Yield how well clusters of predicted and of measured expression agree with the labels of a section."""
    measured = {(MEASURED, seed): one.truth for seed in dict.fromkeys(seed for _, seed in keys)}
    for (method, seed), values in ({key: one.predictions[key] for key in keys} | measured).items():
        if varies(values) and (found := score_clusters(one, values, leiden=leiden, seed=seed)) is not None:
            yield {"method": method, "seed": seed, **_row("ari", found[0], _alone(found[1]))}


def _best_genes(one: Measured, keys: Sequence[Key]) -> Iterator[Row]:
    """Yield the genes of the highest correlation on this section, which picks them with its own measurement."""
    for method, seed in keys:
        for scale, truth in ((LOG1P, one.truth), (IN_PANEL, one.in_panel())):
            found = pearson(truth, one.predictions[method, seed])
            for i in np.argsort(-np.nan_to_num(found, nan=-np.inf), kind="stable")[:_N_BEST]:
                if np.isfinite(found[i]):
                    row = _row(OF_GENE, scale, _alone(float(found[i])))
                    yield {"method": method, "seed": seed, "genes": str(one.genes[i]), **row}


def _of_depth(scope: Scope) -> Scope:
    """Return the sections with the prediction of depth alone."""
    return Scope(scope.name, [one.with_depth(DEPTH) for one in scope.sections], scope.pooled)


def _seconds(outcome: Outcome, row: Row) -> dict[str, float]:
    fit, predict = outcome.seconds.get((row["method"], row.get("seed", -1)), (np.nan, np.nan))
    return {"seconds_fit": fit, "seconds_predict": predict}


def _alone(value: float) -> Interval:
    return Interval(value, np.nan, np.nan, level=np.nan)


def _row(metric: str, normalization: str, found: Interval) -> Row:
    return {
        "metric": metric,
        "normalization": normalization,
        "value": found.value,
        "low": found.low,
        "high": found.high,
    }
