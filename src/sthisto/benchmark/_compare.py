"""Several protocols averaged over all their test sections, with paired differences between methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from sthisto._scoring.intervals import Scope, differences, reproducibility
from sthisto._scoring.measure import Measured
from sthisto._scoring.score import ScoreOptions, score_genes
from sthisto._scoring.summary import gene_sets, overall_means, section_means
from sthisto._sdata.slots import ALL_GENES
from sthisto._utils.arguments import checked
from sthisto._utils.checks import Check, list_of, text
from sthisto.benchmark._protocol import Protocol
from sthisto.benchmark._rows import DEPTH, DIFFERENCE, REPRODUCIBILITY, SIBLINGS, Key, Outcome
from sthisto.benchmark._run import outcomes

if TYPE_CHECKING:
    from spatialdata import SpatialData

_METRICS: Final = ("pcc_residual", "pcc")
_COLUMNS: Final = ("method", "genes", "metric", "value", "sd", "low", "high")


_PROTOCOLS: Final = list_of(
    Check("a protocol", lambda value: isinstance(value, Protocol)), "a list of sthisto.benchmark.Protocol"
)


@checked(protocols=_PROTOCOLS, references=list_of(text, "a list of names, () for none", least=0))
def compare(
    sdata: SpatialData, protocols: Sequence[Protocol], *, out: str | Path, references: Sequence[str] = ("ridge",)
) -> pd.DataFrame:
    """Run several protocols and average each method over all their test sections.

    Parameters
    ----------
    sdata
        Sections with counts, see `run`.
    protocols
        Protocols with the same methods and panel, each with test sections of its own.
    out
        Folder that keeps the predictions, as for `run`.
    references
        Methods that paired differences are taken from, by their first seed; () for none.

    Returns
    -------
    One row per method, set of genes and metric: value, the mean over test sections and seeds; sd, the standard
    deviation over seeds (NaN for one); low and high, the interval of a difference at 95 %, its mean over seeds. The
    metrics are "pcc_residual", "pcc", "seconds_fit", "seconds_predict" and, for each reference,
    "pcc_residual less {reference}". "depth", "siblings" and "reproducibility" stand below the methods.

    Raises
    ------
    ValueError
        The protocols do not have the same methods and genes, or as for `run`.
    """
    found = [outcome for protocol in protocols for outcome in outcomes(sdata, protocol, out=out)]
    sections = [one for outcome in found for one in outcome.sections]
    if any(one.genes != sections[0].genes or set(one.predictions) != set(sections[0].predictions) for one in sections):
        msg = "The protocols to compare must have the same methods, seeds and genes. Pass genes=… to all of them."
        raise ValueError(msg)
    keys = found[0].keys
    rows = [*_scores(sections, keys), *_seconds(found, keys)]
    for reference in references:
        rows += _differences(sections, keys, reference)
    rows += _scores([one.with_depth((DEPTH, 0)) for one in sections], [(DEPTH, 0)])
    rows += _siblings(found)
    rows += _reproducibilities(sections)
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _scores(sections: Sequence[Measured], keys: Sequence[Key]) -> Iterator[dict[str, Any]]:
    """Yield mean and deviation over seeds of each score, averaged over genes and then over sections."""
    parts = []
    for method, seed in keys:
        tables = [score_genes(one, (method, seed), ScoreOptions(), references=[DEPTH]) for one in sections]
        by_section = pd.concat([section_means(table) for table in tables], ignore_index=True)
        parts.append(overall_means(by_section, ["genes"]).assign(method=method))
    for (method, genes), part in pd.concat(parts).groupby(["method", "genes"], sort=False):
        for metric in _METRICS:
            yield {"method": method, "genes": genes, **_over_seeds(metric, part[metric])}


def _seconds(found: Sequence[Outcome], keys: Sequence[Key]) -> Iterator[dict[str, Any]]:
    for method in dict.fromkeys(method for method, _ in keys):
        taken = pd.DataFrame(
            [seconds for one in found for key, seconds in one.seconds.items() if key[0] == method],
            columns=["seconds_fit", "seconds_predict"],
        )
        for metric in taken:
            yield {"method": method, **_over_seeds(str(metric), taken[metric])}


def _differences(sections: Sequence[Measured], keys: Sequence[Key], reference: str) -> Iterator[dict[str, Any]]:
    """Yield the difference of each method from a reference over all genes and sections: means over seeds."""
    chosen = [np.arange(len(one.genes)) for one in sections]
    found = differences(Scope("all", sections), chosen, keys, reference=(reference, 0))
    for method in dict.fromkeys(method for method, _ in found):
        limits = [(one.value, one.low, one.high) for (name, _), one in found.items() if name == method]
        value, low, high = np.mean(limits, axis=0)
        metric = f"{DIFFERENCE}{reference}"
        yield {"method": method, "genes": ALL_GENES, "metric": metric, "value": value, "low": low, "high": high}


def _siblings(found: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
    """Yield what the other genes of the same spots predict, averaged as the methods' scores are."""
    tables = [
        score_genes(one, outcome.keys[0], outcome.options, references=[DEPTH, SIBLINGS])
        for outcome in found
        for one in outcome.sections
    ]
    by_section = pd.concat([section_means(table) for table in tables], ignore_index=True)
    for genes, part in by_section.groupby("genes", sort=False):
        yield {"method": SIBLINGS, "genes": genes, "metric": "pcc_residual", "value": float(part["sibling"].mean())}


def _reproducibilities(sections: Sequence[Measured]) -> Iterator[dict[str, Any]]:
    sets = [gene_sets(one.truth.mean(axis=0)) for one in sections]
    for genes in sets[0]:
        found = reproducibility(sections, [of_section[genes] for of_section in sets])
        yield {"method": REPRODUCIBILITY, "genes": genes, "metric": "pcc_residual", "value": found.value}


def _over_seeds(metric: str, values: pd.Series) -> dict[str, Any]:
    return {"metric": metric, "value": float(values.mean()), "sd": float(values.std())}
