"""Intervals of mean scores from spatial blocks: of one section, of the mean over several, or of several pooled."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd

from sthisto import metrics
from sthisto._scoring.measure import Measured
from sthisto._scoring.score import varies
from sthisto.metrics import Interval, bootstrap_pearson, paired_difference

INTERVAL: Final = ("pcc_residual_low", "pcc_residual_high")
Target = Callable[[Measured], np.ndarray]
"""Function that returns what predictions are correlated with, (n_spots, n_genes)."""
Key = TypeVar("Key", bound=Hashable)


def residuals(one: Measured) -> np.ndarray:
    """Return the target of the primary score, (n_spots, n_genes)."""
    return one.residuals


@dataclass(frozen=True)
class Scope:
    """Sections that are scored together: one, the mean over several, or several pooled.

    Attributes
    ----------
    name
        What tables call it.
    sections
        What was measured and predicted on each.
    pooled
        Correlations are taken over the spots of all sections at once.
    """

    name: str
    sections: Sequence[Measured]
    pooled: bool = False

    def section_of(self) -> np.ndarray | None:
        """Return (n_spots,) the section that each spot's correlations are taken in; None pools them."""
        return None if self.pooled else np.repeat(np.arange(len(self.sections)), [len(one) for one in self.sections])

    def blocks(self) -> np.ndarray:
        """Return (n_spots,) blocks, numbered through all sections."""
        starts = np.cumsum([0, *(one.blocks.max() + 1 for one in self.sections)])[:-1]
        return np.concatenate([one.blocks + start for one, start in zip(self.sections, starts, strict=True)])

    def varying(self, keys: Iterable[Key]) -> list[Key]:
        """Return those of some predictions that differ between spots in any section."""
        return [key for key in keys if any(varies(one.predictions[key]) for one in self.sections)]

    def has_blocks(self) -> bool:
        """Return whether every section has the two blocks that a bootstrap needs."""
        return all(len(np.unique(one.blocks)) > 1 for one in self.sections)


def scopes(sections: Sequence[Measured]) -> list[Scope]:
    """Return each section, and for several their mean and their pool, labeled as such."""
    single = [Scope(one.name, [one]) for one in sections]
    if len(sections) < 2:
        return single
    names = "+".join(one.name for one in sections)
    return [*single, Scope(f"mean of {names}", sections), Scope(f"pooled {names}", sections, pooled=True)]


def intervals(
    scope: Scope,
    chosen: Sequence[np.ndarray],
    keys: Iterable[Key],
    *,
    target: Target = residuals,
    n_boot: int = 1000,
    seed: int = 0,
) -> dict[Key, Interval]:
    """Return the mean correlation of predictions over some genes, with its interval at 95 %.

    Parameters
    ----------
    scope
        The sections.
    chosen
        (n_chosen,) positions of the genes in each section.
    keys
        Names of the predictions.
    target
        What they are correlated with.
    n_boot
        Resamples of blocks.
    seed
        Seed of the resamples.

    Returns
    -------
    Name -> score and interval, but for predictions that do not vary; empty where a section has fewer than two blocks.
    """
    used = scope.varying(keys)
    if not used or not scope.has_blocks():
        return {}
    truth, stacked = _stacked(scope, chosen, used, target)
    blocks, section = scope.blocks(), scope.section_of()
    found = {}
    for key, values in stacked.items():
        of_one = bootstrap_pearson(truth, {"": values}, blocks, section=section, n_boot=n_boot, seed=seed)
        found[key] = of_one[""]
    return found


def differences(
    scope: Scope, chosen: Sequence[np.ndarray], keys: Iterable[Key], *, reference: Key
) -> dict[Key, Interval]:
    """Return the difference of the residual score of predictions from that of a reference, on the same resamples.

    Parameters
    ----------
    scope, chosen, keys
        See `intervals`; predictions that do not vary are left out.
    reference
        Name of the prediction whose score is subtracted.

    Returns
    -------
    Name of each other prediction -> difference and interval; empty where the reference is none of the predictions or a
    section has fewer than two blocks.
    """
    used = scope.varying(keys)
    if reference not in used or not scope.has_blocks():
        return {}
    truth, stacked = _stacked(scope, chosen, used, residuals)
    names: dict[str, Any] = {str(i): values for i, values in enumerate(stacked.values())}
    found = paired_difference(
        truth, names, scope.blocks(), section=scope.section_of(), reference=str(used.index(reference))
    )
    return {used[int(i)]: interval for i, interval in found.items()}


def reproducibility(sections: Sequence[Measured], chosen: Sequence[np.ndarray]) -> Interval:
    """Return what a second sequencing of the same spots would reach: of several sections, from their mean reliability.

    `chosen` has the positions of the genes in each section, (n_chosen,). The interval of several sections is NaN. The
    order of the genes, which decides the random splits, is the sections'.
    """
    found = [
        metrics.reproducibility(one.counts[:, np.sort(at)], totals=one.totals)
        for one, at in zip(sections, chosen, strict=True)
    ]
    if len(found) == 1:
        return Interval(found[0].overall, found[0].overall_low, found[0].overall_high, level=0.95)
    mean = float(np.mean([one.mean_reliability for one in found]))
    return Interval(float(np.sqrt(max(mean, 0.0))), np.nan, np.nan, level=0.95)


def with_intervals(summary: pd.DataFrame, found: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Add the intervals of the sections, and those of their means, to which sections contribute independently.

    Parameters
    ----------
    summary
        One row per section and set of genes, as `summarize` returns; the section "all" is the mean over sections.
    found
        Section, genes and the two limits, of the sections that have an interval.
    """
    known = pd.DataFrame(found, columns=["section", "genes", *INTERVAL]).astype(dict.fromkeys(INTERVAL, float))
    table = summary.merge(known, on=["section", "genes"], how="left", validate="one_to_one")
    half = (table[INTERVAL[1]] - table[INTERVAL[0]]) / 2
    overall = table["section"] == "all"
    for i in table.index[overall]:
        of_sections = half[~overall & (table["genes"] == table.loc[i, "genes"])]
        half_of_mean = np.sqrt(np.square(of_sections.to_numpy()).sum()) / len(of_sections)
        table.loc[i, list(INTERVAL)] = table.loc[i, "pcc_residual"] + np.array([-1, 1]) * half_of_mean
    return table


def _stacked(
    scope: Scope, chosen: Sequence[np.ndarray], keys: Sequence[Key], target: Target
) -> tuple[np.ndarray, dict[Key, np.ndarray]]:
    """Return target and predictions of all sections, (n_spots, n_genes).

    Of one section, these are the chosen genes alone; of several, the target is NaN for genes that are not chosen.
    """
    if len(scope.sections) == 1:
        (one,), (at,) = scope.sections, chosen
        return target(one)[:, at], {key: one.predictions[key][:, at] for key in keys}
    parts = []
    for one, at in zip(scope.sections, chosen, strict=True):
        whole = target(one)
        part = np.full(whole.shape, np.nan, dtype=whole.dtype)
        part[:, at] = whole[:, at]
        parts.append(part)
    stacked = {key: np.concatenate([one.predictions[key] for one in scope.sections]) for key in keys}
    return np.concatenate(parts), stacked
