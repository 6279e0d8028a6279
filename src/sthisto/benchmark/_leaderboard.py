"""Predictions of several tools on the same spots and genes, scored anew and compared in pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from anndata import AnnData

from sthisto._scoring.intervals import Scope, differences, intervals, reproducibility
from sthisto._scoring.measure import Measured, measure
from sthisto._scoring.score import ScoreOptions, score_genes
from sthisto._scoring.summary import gene_sets, summarize
from sthisto._sdata.given import Given, read_given
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import Section, read_sections
from sthisto._utils.arguments import checked
from sthisto._utils.checks import list_of, mapping, text
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key, listed
from sthisto.benchmark._baselines import predict_baselines
from sthisto.benchmark._rows import DEPTH, REPRODUCIBILITY, SIBLINGS
from sthisto.tl._to_score import check_scale, counts_scale, is_test, references_of

if TYPE_CHECKING:
    from spatialdata import SpatialData

ALL: Final = "all"
_COLUMNS: Final = (
    *("rank", "method", "section", "genes", "n_genes", "n_spots", "pcc_residual", "pcc_residual_low"),
    *("pcc_residual_high", "difference", "difference_low", "difference_high", "pcc", "rmse"),
    *("predicted_genes", "predicted_spots", "note"),
)


@dataclass(frozen=True, eq=False)
class _Entry:
    """A prediction that can be compared: what it gives for the test spots of each section.

    Attributes
    ----------
    genes
        (n_genes,) predicted genes.
    values
        Name of a section -> (n_spots, n_genes), NaN where nothing was predicted.
    """

    genes: list[str]
    values: Mapping[str, np.ndarray]

    def complete(self, genes: Sequence[str], section: Section) -> np.ndarray:
        """Return (n_spots, n_genes) of some genes; NaN where nothing was predicted."""
        if section.name not in self.values:
            return np.full((len(section), len(genes)), np.nan, dtype=np.float32)
        return self.values[section.name][:, pd.Index(self.genes).get_indexer(list(genes))]

    def n_spots(self, sections: Sequence[Section]) -> int:
        return sum(
            int((is_test(one) & np.isfinite(self.complete(self.genes, one)).all(axis=1)).sum()) for one in sections
        )


@checked(
    predictions=mapping("a mapping from name to prediction"),
    reference=text,
    baselines=list_of(text, "a list of methods", least=0),
)
def leaderboard(
    sdata: SpatialData | Sequence[SpatialData],
    predictions: Mapping[str, str | AnnData],
    *,
    reference: str | None = None,
    baselines: Sequence[str] = (),
    counts_layer: str | None = None,
    n_boot: int = 1000,
    seed: int = 0,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
) -> pd.DataFrame:
    """Score predictions of several tools from their values, on the spots and genes that all of them predict.

    Parameters
    ----------
    sdata
        One SpatialData or a list of them, with the measured counts. With ``obs["sthisto_split"]``, the spots marked
        "test" are scored.
    predictions
        Name -> "layer:NAME", "table:NAME" or an AnnData, as `sthisto.tl.evaluate` takes them.
    reference
        Name of the prediction or baseline that differences are taken from. None: the prediction of the highest score.
    baselines
        Methods that are fitted on the spots marked "train" and "val" and predict the same test spots, such as "color"
        and "ridge" (on the features of the encoder "texture"). They stand below the predictions, with the same paired
        differences. Depth always does.
    counts_layer
        Layer of raw counts. None: X.
    n_boot
        Resamples of spatial blocks for the intervals; 0 leaves the intervals out.
    seed
        Seed of the resamples and of the splits of the counts.
    image_key
        H&E image, or a mapping from region to image. None: inferred if there is exactly one candidate; of several RGB
        images of one place, the finest.
    shapes_key
        Region or regions to use, shapes or labels. None: all regions that the table annotates.
    table_key
        Table that annotates the regions. None: inferred if there is exactly one.
    coordinate_system
        Coordinate system in which images and regions are aligned. None: inferred from those that both share.

    Returns
    -------
    One row per prediction, section and set of genes, the best first; section "all" is the mean over sections. Columns
    rank, method, section, genes, n_genes, n_spots; pcc_residual (the primary score) with its interval at 95 %;
    difference from `reference`, paired over the same spots, with its interval; pcc and rmse on the log1p scale;
    predicted_genes and predicted_spots, what the prediction gives by itself. The baselines, "depth", "siblings" and
    "reproducibility" stand below, without a rank. A prediction that cannot be compared, as one on another scale, has no
    score, and ``note`` says why.

    Raises
    ------
    KeyError
        `reference` is none of the predictions that can be compared.
    ValueError
        There is no prediction, none can be compared, or they have no gene or test spot in common. `baselines` are
        given and there is no training spot, or one has the name of a prediction.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=3, n_patients=3)
    >>> sth.pp.split(sdata, by="patient", patient_key="patient")
    >>> for method in ("color", "ridge"):
    ...     model = sth.tl.fit(sdata, method=method, image_encoder="texture", key_added=method)
    ...     sth.tl.predict(sdata, model, key_added=method)
    >>> table = sth.benchmark.leaderboard(sdata, {"one": "layer:color_pred", "other": "layer:ridge_pred"})
    """
    if not predictions:
        msg = "`predictions` is empty; pass at least one prediction."
        raise ValueError(msg)
    keys = ElementKeys(image_key, shapes_key, table_key, coordinate_system)
    sections = read_sections(sdata, keys)
    entries, notes = _entries(sdata, sections, predictions, counts_layer)
    genes = _shared_genes(entries)
    if both := set(entries) & {*baselines, DEPTH}:
        msg = f"{listed(sorted(both))} name predictions and baselines. Name the predictions otherwise."
        raise ValueError(msg)
    fitted = (
        predict_baselines(sdata, baselines, keys=keys, genes=genes, counts_layer=counts_layer, seed=seed)
        if baselines
        else {}
    )
    beside = {name: _Entry(genes, values) for name, values in fitted.items()}
    measured = _measured(sections, entries | beside, genes, counts_layer)
    of_sections, references = references_of(sdata, sections, keys, counts_scale(counts_layer), genes, seed)
    tables = {
        name: pd.concat(
            [
                score_genes(one, name, ScoreOptions(references[i].depth_knots, 10, seed, of_sections[i]))
                for i, one in measured.items()
            ]
        )
        for name in (*entries, *beside)
    }
    summaries = {name: summarize(table) for name, table in tables.items()}
    best = _best(summaries, reference, list(entries))
    rows = list(_scores(list(measured.values()), summaries, best, n_boot, seed, ranked=list(entries)))
    rows += _references(list(measured.values()), summaries[best], best, n_boot, seed)
    frame = pd.DataFrame(rows)
    frame["predicted_genes"] = frame["method"].map({name: len(one.genes) for name, one in entries.items()})
    frame["predicted_spots"] = frame["method"].map({name: one.n_spots(sections) for name, one in entries.items()})
    refused = pd.DataFrame([{"method": name, "section": ALL, "note": note} for name, note in notes.items()])
    return pd.concat([frame, refused], ignore_index=True).reindex(columns=list(_COLUMNS))


def _entries(
    sdata: SpatialData | Sequence[SpatialData],
    sections: Sequence[Section],
    predictions: Mapping[str, str | AnnData],
    counts_layer: str | None,
) -> tuple[dict[str, _Entry], dict[str, str]]:
    """Return the predictions that can be compared, and why the others can't."""
    entries, notes = {}, {}
    for name, prediction in predictions.items():
        try:
            found = read_given(sdata, sections, prediction)
            _check(found, name, counts_layer)
        except (KeyError, ValueError) as error:
            notes[name] = str(error.args[0])
            logger.warning("Prediction %r is not compared: %s", name, notes[name])
            continue
        entries[name] = _Entry(found.genes, {one.section.name: one.values for one in found.sections})
    if not entries:
        msg = f"None of the predictions can be compared. {' '.join(f'{name}: {note}' for name, note in notes.items())}"
        raise ValueError(msg)
    return entries, notes


def _check(found: Given, name: str, counts_layer: str | None) -> None:
    """Raise ValueError for a prediction on another scale, of no test spot, or of spots it was trained on."""
    measured = []
    for one in found.sections:
        spots = np.flatnonzero(is_test(one.section) & np.isfinite(one.values).all(axis=1))
        if one.is_seen[spots].any():
            msg = f"It was trained on {one.is_seen[spots].sum()} of the spots to score in section {one.section.name!r}."
            raise ValueError(msg)
        if len(spots):
            predictions = {name: one.values[spots]}
            scale = counts_scale(counts_layer)
            measured.append(measure(one.section, found.genes, predictions, spots=spots, normalization=scale))
    if not any(len(one) for one in measured):
        msg = "It predicts none of the spots that are scored."
        raise ValueError(msg)
    check_scale([one for one in measured if len(one)], name)


def _shared_genes(entries: Mapping[str, _Entry]) -> list[str]:
    first, *others = (one.genes for one in entries.values())
    shared = set(first).intersection(*others)
    if not shared:
        msg = f"The predictions {listed(entries)} have no gene in common. Compare those that share genes."
        raise ValueError(msg)
    most = max(len(one.genes) for one in entries.values())
    if len(shared) < most:
        fewest = min(entries, key=lambda name: len(entries[name].genes))
        logger.warning(
            "Compared are the %d genes that all predictions have, of up to %d; %r has the fewest.",
            len(shared),
            most,
            fewest,
        )
    return [gene for gene in first if gene in shared]


def _measured(
    sections: Sequence[Section], entries: Mapping[str, _Entry], genes: Sequence[str], counts_layer: str | None
) -> dict[int, Measured]:
    """Return what was measured and predicted at the test spots that all predict, by the number of the section."""
    measured: dict[int, Measured] = {}
    for i, section in enumerate(sections):
        values = {name: one.complete(genes, section) for name, one in entries.items()}
        known = np.all([np.isfinite(one).all(axis=1) for one in values.values()], axis=0)
        spots = np.flatnonzero(is_test(section) & known)
        if len(spots):
            chosen = {name: one[spots] for name, one in values.items()}
            one = measure(section, genes, chosen, spots=spots, normalization=counts_scale(counts_layer))
            measured |= {i: one} if len(one) else {}
    if not measured:
        msg = f"No spot that is scored is predicted by all of {listed(entries)}. Compare those that share spots."
        raise ValueError(msg)
    return measured


def _best(summaries: Mapping[str, pd.DataFrame], reference: str | None, ranked: Sequence[str]) -> str:
    if reference is not None:
        check_key(reference, summaries, name="reference", where="the predictions that can be compared")
        return reference
    return max(ranked, key=lambda name: _overall(summaries[name]))


def _overall(summary: pd.DataFrame) -> float:
    """Return the mean over all genes and sections, below all others where the prediction is constant."""
    score = float(summary.loc[summary["section"] == ALL, "pcc_residual"].iloc[0])
    return -2.0 if np.isnan(score) else score


def _scopes(measured: Sequence[Measured]) -> list[Scope]:
    return [Scope(ALL, measured), *(Scope(one.name, [one]) for one in measured)]


def _scores(
    measured: Sequence[Measured],
    summaries: Mapping[str, pd.DataFrame],
    best: str,
    n_boot: int,
    seed: int,
    *,
    ranked: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the predictions, in the order of their score over all sections; then those of baselines."""
    order = sorted(summaries, key=lambda name: (name not in ranked, -_overall(summaries[name])))
    for scope in _scopes(measured):
        sets = [gene_sets(one.truth.mean(axis=0)) for one in scope.sections]
        for genes in sets[0]:
            chosen = [of_section[genes] for of_section in sets]
            limits = intervals(scope, chosen, order, n_boot=n_boot, seed=seed) if n_boot else {}
            paired = differences(scope, chosen, order, reference=best) if n_boot else {}
            for rank, name in enumerate(order, 1):
                table = summaries[name]
                row = table[(table["section"] == scope.name) & (table["genes"] == genes)].iloc[0]
                found: dict[str, Any] = {
                    "rank": rank if name in ranked else None,
                    "method": name,
                    "section": scope.name,
                    "genes": genes,
                }
                found |= {column: row[column] for column in ("n_genes", "n_spots", "pcc_residual", "pcc", "rmse")}
                if name in limits:
                    found |= {"pcc_residual_low": limits[name].low, "pcc_residual_high": limits[name].high}
                if name in paired:
                    one = paired[name]
                    found |= {"difference": one.value, "difference_low": one.low, "difference_high": one.high}
                yield found


def _references(
    measured: Sequence[Measured], summary: pd.DataFrame, best: str, n_boot: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield what the predictions are read against: depth alone, sibling genes, and a second sequencing."""
    deep = [one.with_depth(DEPTH) for one in measured]
    for scope in _scopes(deep):
        sets = [gene_sets(one.truth.mean(axis=0)) for one in scope.sections]
        for genes in sets[0]:
            chosen = [of_section[genes] for of_section in sets]
            row = summary[(summary["section"] == scope.name) & (summary["genes"] == genes)].iloc[0]
            shared = {"section": scope.name, "genes": genes, "n_genes": row["n_genes"], "n_spots": row["n_spots"]}
            depth = {"pcc_residual": row["depth_pcc_residual"], "pcc": row["depth_pcc"]}
            for limits in intervals(scope, chosen, [DEPTH], n_boot=n_boot, seed=seed).values() if n_boot else ():
                depth |= {"pcc_residual_low": limits.low, "pcc_residual_high": limits.high}
            for paired in differences(scope, chosen, [best, DEPTH], reference=best).values() if n_boot else ():
                depth |= {"difference": paired.value, "difference_low": paired.low, "difference_high": paired.high}
            yield {"method": DEPTH, **shared, **depth}
            yield {"method": SIBLINGS, **shared, "pcc_residual": row["sibling"]}
            yield {"method": REPRODUCIBILITY, **shared, "pcc_residual": reproducibility(scope.sections, chosen).value}
