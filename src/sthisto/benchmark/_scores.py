"""From predictions of test sections to rows of scores, each beside what depth and noise allow. Arrays only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from sthisto import metrics
from sthisto._sdata.expression import Normalization

N_TOP = 50
N_BEST = 5
OF_GENE = "pcc of gene"
"""Metric of a row whose `genes` is one gene, picked because a method predicts it best on that section."""
_BLOCKS_ACROSS = 5
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured on the spots with counts of one test section.

    Attributes
    ----------
    log1p, in_panel
        (n_spots, n_genes) log1p of counts scaled to 1e4, over all genes and over the panel alone.
    residuals
        (n_spots, n_genes) Pearson residuals with all-gene depth.
    counts, totals
        (n_spots, n_genes) of the panel and (n_spots,) over all genes.
    centers
        (n_spots, 2) px.
    labels
        (n_spots,) labels of the tissue, None where there are none.
    filled
        (n_all_spots,) bool: which spots of the section these are.
    """

    name: str
    log1p: np.ndarray
    in_panel: np.ndarray
    residuals: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    centers: np.ndarray
    labels: np.ndarray | None
    filled: np.ndarray

    @classmethod
    def of(
        cls, name: str, counts: sp.csr_array, columns: np.ndarray, centers: np.ndarray, labels: np.ndarray | None
    ) -> Measured:
        """Normalize the counts (n_all_spots, n_all_genes) of a section; `columns` are the panel's."""
        filled = np.asarray(counts.sum(axis=1)).ravel() > 0
        counts = counts[np.flatnonzero(filled)]
        panel, totals = counts[:, columns], np.asarray(counts.sum(axis=1), dtype=float).ravel()
        normalize = Normalization("log1p")
        known = None if labels is None or not _labeled(labels[filled]).any() else labels[filled]
        return cls(
            name=name,
            log1p=normalize(counts, columns),
            in_panel=normalize(sp.csr_array(panel)),
            residuals=metrics.pearson_residuals(panel, totals=totals),
            counts=panel.toarray(),
            totals=totals,
            centers=centers[filled],
            labels=known,
            filled=filled,
        )

    @property
    def log_totals(self) -> np.ndarray:
        """(n_spots, n_genes): the prediction of the `depth` baseline."""
        return np.repeat(np.log(self.totals)[:, None], self.log1p.shape[1], axis=1)

    def gene_sets(self, genes: Sequence[str], markers: Sequence[str]) -> dict[str, np.ndarray]:
        """Return name -> (n_genes,) bool; the 50 most expressed and most variable ones are this section's."""
        sets = {"panel": np.ones(len(genes), dtype=bool)}
        if len(genes) > N_TOP:
            for name, values in (
                ("most expressed", self.log1p.mean(axis=0)),
                ("most variable", self.log1p.var(axis=0)),
            ):
                sets[f"{N_TOP} {name}"] = np.isin(np.arange(len(genes)), np.argsort(-values, kind="stable")[:N_TOP])
        if (chosen := np.isin(np.asarray(genes, dtype=str), list(markers))).any():
            sets["markers"] = chosen
        return sets


@dataclass(frozen=True)
class Scope:
    """Test sections that are scored together, and how: one, the mean over several, or pooled."""

    name: str
    sections: Sequence[Measured]
    pooled: bool = False

    @property
    def section_of(self) -> np.ndarray | None:
        """(n_spots,) section that each spot's correlations are taken in; None pools them."""
        numbers = np.repeat(np.arange(len(self.sections)), [len(one.totals) for one in self.sections])
        return None if self.pooled else numbers

    def blocks(self) -> np.ndarray:
        """(n_spots,) squares a fifth of the section wide, the units of the bootstrap."""
        start, parts = 0, []
        for one in self.sections:
            size = np.ptp(one.centers, axis=0).max() / _BLOCKS_ACROSS * (1 + 1e-9)
            parts.append(metrics.spatial_blocks(one.centers, size) + start)
            start = parts[-1].max() + 1
        return np.concatenate(parts)


def scopes(sections: Sequence[Measured]) -> list[Scope]:
    """Return each section, and for several their mean and their pool, labeled as such."""
    single = [Scope(one.name, [one]) for one in sections]
    if len(sections) < 2:
        return single
    names = "+".join(one.name for one in sections)
    return [*single, Scope(f"mean of {names}", sections), Scope(f"pooled {names}", sections, pooled=True)]


def correlations(
    scope: Scope,
    chosen: Sequence[np.ndarray],
    predictions: Mapping[str, Sequence[np.ndarray]],
    *,
    reference: str | None,
) -> Iterator[tuple[str, Row]]:
    """Yield method and row of each correlation with an interval from spatial blocks.

    Parameters
    ----------
    chosen
        (n_genes,) bool for each section of the scope.
    predictions
        Method -> (n_spots, n_genes) for each section.
    reference
        Method that residual scores are compared with on the same resamples.
    """
    blocks, section = scope.blocks(), scope.section_of
    stacked = {method: np.concatenate(values) for method, values in predictions.items()}
    targets = {
        ("pcc_residual", "pearson_residuals"): "residuals",
        ("pcc", "log1p"): "log1p",
        ("pcc", "log1p in panel"): "in_panel",
    }
    for (metric, normalization), attribute in targets.items():
        measured = [
            np.where(mine, getattr(one, attribute), np.nan) for one, mine in zip(scope.sections, chosen, strict=True)
        ]
        truth = np.concatenate(measured)
        for method, values in stacked.items():
            found = metrics.bootstrap_pearson(truth, {method: values}, blocks, section=section)[method]
            yield method, _row(metric, normalization, found.value, found.low, found.high)
        if metric == "pcc_residual" and reference is not None:
            differences = metrics.paired_difference(truth, stacked, blocks, reference=reference, section=section)
            for method, found in differences.items():
                name = f"pcc_residual less {reference}"
                yield method, _row(name, normalization, found.value, found.low, found.high)


def beyond_depth(
    sections: Sequence[Measured],
    chosen: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    spline: metrics.DepthSpline,
) -> Iterator[Row]:
    """Yield the partial correlation given a spline of the log total count, and the error on log1p counts.

    Both are means over the genes of each section, then over the sections.
    """
    partial, error = [], []
    for one, mine, prediction in zip(sections, chosen, predictions, strict=True):
        truth, guess = one.log1p[:, mine], prediction[:, mine]
        found = metrics.partial_pearson(truth, guess, spline.transform(np.log(one.totals)))
        if np.isfinite(found).any():
            found[np.isnan(found) & (np.ptp(truth, axis=0) > 0) & (np.ptp(guess, axis=0) == 0)] = 0.0
        partial.append(_mean(found))
        error.append(_mean(metrics.rmse(truth, guess)))
    yield _row("pcc_partial_depth", "log1p", float(np.mean(partial)))
    yield _row("rmse", "log1p", float(np.mean(error)))


def ceiling(sections: Sequence[Measured], chosen: Sequence[np.ndarray]) -> Row:
    """Return the residual score that noise allows on some genes: of several sections, from their mean reliability."""
    found = [
        metrics.noise_ceiling(one.counts[:, mine], totals=one.totals)
        for one, mine in zip(sections, chosen, strict=True)
    ]
    if len(found) == 1:
        only = found[0]
        return _row("pcc_residual", "pearson_residuals", only.overall, only.overall_low, only.overall_high)
    mean = float(np.mean([one.mean_reliability for one in found]))
    return _row("pcc_residual", "pearson_residuals", float(np.sqrt(max(mean, 0.0))))


def best_genes(one: Measured, genes: Sequence[str], prediction: np.ndarray) -> Iterator[Row]:
    """Yield the genes of the highest correlation on this section, which picks them with its own measurement."""
    for normalization, truth in (("log1p", one.log1p), ("log1p in panel", one.in_panel)):
        found = metrics.pearson(truth, prediction)
        for i in np.argsort(-np.nan_to_num(found, nan=-np.inf), kind="stable")[:N_BEST]:
            if np.isfinite(found[i]):
                yield {"genes": str(genes[i]), **_row(OF_GENE, normalization, float(found[i]))}


def clusters(one: Measured, values: np.ndarray, *, leiden: bool, seed: int) -> Row | None:
    """Return how well clusters of predicted or measured expression agree with the labels of a section.

    With `leiden`, where there are no labels, these are the clusters that Leiden finds in the measured expression.
    """
    if one.labels is not None:
        return _row("ari", "labels", metrics.cluster_ari(values, one.labels, seed=seed))
    if leiden:
        labels = metrics.cluster(one.log1p, method="leiden", seed=0)
        return _row("ari", "leiden of measured", metrics.cluster_ari(values, labels.astype(str), seed=seed))
    return None


def _labeled(labels: np.ndarray) -> np.ndarray:
    return np.array([isinstance(label, str) and label != "undetermined" for label in labels], dtype=bool)


def _mean(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else float("nan")


def _row(metric: str, normalization: str, value: float, low: float = np.nan, high: float = np.nan) -> Row:
    return {"metric": metric, "normalization": normalization, "value": value, "low": low, "high": high}
