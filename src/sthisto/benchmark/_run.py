"""Run a protocol: fit and predict what is not kept yet, then score everything that is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from sthisto import metrics
from sthisto._sdata.inputs import section_input
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.tables import gene_positions, read_rows
from sthisto._splits.folds import Fold
from sthisto._utils.files import load_arrays, save_arrays
from sthisto._utils.validate import check_key, listed
from sthisto.benchmark import _scores as scoring
from sthisto.benchmark._protocol import MARKERS, MethodSpec, Protocol
from sthisto.tl._fold_run import FoldContext, FoldRun, load_shared_encoder

if TYPE_CHECKING:
    from spatialdata import SpatialData

COLUMNS: Final = (
    "dataset",
    "method",
    "encoder",
    "split",
    "train",
    "test",
    "seed",
    "genes",
    "normalization",
    "metric",
    "value",
    "low",
    "high",
    "seconds_fit",
    "seconds_predict",
)


@dataclass(frozen=True)
class Outcome:
    """What the methods said of one fold.

    Attributes
    ----------
    predictions
        (method, seed) -> (n_spots, n_genes) for each test section.
    seconds
        (method, seed) -> seconds of the fit and of the prediction.
    """

    genes: list[str]
    train: list[str]
    measured: list[scoring.Measured]
    spline: metrics.DepthSpline
    predictions: dict[tuple[str, int], list[np.ndarray]]
    seconds: dict[tuple[str, int], tuple[float, float]]


def run(sdata: SpatialData, protocol: Protocol, *, out: str | Path) -> pd.DataFrame:
    """Run every method of a protocol and score it beside baselines and ceilings.

    Parameters
    ----------
    sdata
        Sections whose table holds raw counts in ``X`` and ``obs["section"]``, ``obs["patient"]`` and, where there are
        labels, ``obs["annotation"]``, as our data sets have them.
    protocol
        What is trained on what.
    out
        Folder; ``runs/`` in it keeps the predictions of each method, seed and fold, so that a run that was killed goes
        on where it stopped.

    Returns
    -------
    One row a score, with `COLUMNS`. Beside the methods: "depth" is what the spots' total count alone scores, "ceiling"
    what noise allows, "measured" the clusters of the measured expression. ``test`` is a section, "mean of" several, or
    several "pooled". Intervals are at 95 %, from spatial blocks.

    Raises
    ------
    KeyError
        A section or gene is missing.
    ValueError
        A section or, split by patient, a patient would stand on both sides, or a spot does, recognized by its pixels.
    """
    sections = {_of_obs(one, "section"): one for one in read_sections(sdata)}
    patient_of = {name: _of_obs(one, "patient") for name, one in sections.items()}
    specs = protocol.specs()
    arguments: dict[str, Any] = protocol.patches() | {"image_encoder": protocol.encoder}
    if protocol.genes is not None:
        arguments["genes"] = list(protocol.genes)
    encoder = load_shared_encoder([spec.method for spec in specs], arguments)
    job = FoldContext([sdata], list(sections.values()), encoder, arguments, None)
    rows: list[scoring.Row] = []
    for train, test in protocol.folds(patient_of).values():
        fold = _fold(sections, train, test)
        outcome = _outcome(job, fold, specs, range(protocol.seeds), Path(out) / "runs", test=test, train=train)
        rows += _rows(outcome, protocol)
    shared = {"dataset": protocol.dataset, "encoder": protocol.encoder_name, "split": protocol.split}
    return pd.DataFrame([{**shared, **row} for row in rows], columns=list(COLUMNS))


def _of_obs(section: Section, column: str) -> str:
    check_key(column, section.table.obs.columns, name="column", where="the columns of obs")
    return str(section.table.obs[column].iloc[section.rows[0]])


def _fold(sections: Mapping[str, Section], train: Sequence[str], test: Sequence[str]) -> Fold:
    return Fold(
        f"{'+'.join(test)}",
        [np.full(len(one), name in train) for name, one in sections.items()],
        [np.full(len(one), name in test) for name, one in sections.items()],
    )


def _outcome(
    job: FoldContext,
    fold: Fold,
    specs: Sequence[MethodSpec],
    seeds: Sequence[int],
    out: Path,
    *,
    test: Sequence[str],
    train: Sequence[str],
) -> Outcome:
    predictions, seconds, by_run = {}, {}, {}
    for spec in specs:
        for seed in seeds:
            found = _predicted(job, FoldRun(fold, spec.method, seed, spec.options), out)
            by_run[tuple(str(gene) for gene in found["genes"])] = spec.label
            predictions[spec.label, seed] = [found[f"section {i}"] for i in range(len(test))]
            seconds[spec.label, seed] = (float(found["seconds"][0]), float(found["seconds"][1]))
    if len(by_run) > 1:
        msg = f"{listed(by_run.values())} model different genes, so that their scores say nothing of each other."
        raise ValueError(msg)
    (genes,) = (list(genes) for genes in by_run)
    known, hidden = job.sides(fold)
    hidden.reveal()
    measured = [_measure(one, genes) for one in read_sections(hidden.sdata)]
    totals = np.concatenate(
        [np.asarray(read_rows(one, None).sum(axis=1)).ravel() for one in read_sections(known.sdata)]
    )
    spline = metrics.DepthSpline.fit(np.log(totals[totals > 0]))
    return Outcome(genes, list(train), measured, spline, predictions, seconds)


def _predicted(job: FoldContext, run: FoldRun, out: Path) -> dict[str, np.ndarray]:
    """Return the predictions of a run from its file, or make and keep them."""
    path = job.path(run, out)
    found = load_arrays(path)
    if found is not None:
        return found
    known, hidden = job.sides(run.fold)
    start = time.perf_counter()
    model = job.fit(run, known)
    fitted = time.perf_counter()
    arrays: dict[str, np.ndarray] = {"genes": np.asarray(model.genes, dtype=str)}
    for i, section in enumerate(read_sections(hidden.sdata, job.keys(hidden))):
        prediction = model.predict(section_input(section, model.patch))
        if prediction.seen.any():
            msg = (
                f"{prediction.seen.sum()} of the spots of test section {section.name!r} are training spots under "
                "another name: their pixels are the same. Leave one of the sections out."
            )
            raise ValueError(msg)
        arrays[f"section {i}"] = prediction.expression
    arrays["seconds"] = np.array([fitted - start, time.perf_counter() - fitted])
    save_arrays(path, arrays)
    return arrays


def _measure(section: Section, genes: Sequence[str]) -> scoring.Measured:
    obs = section.table.obs.iloc[section.rows]
    labels = obs["annotation"].to_numpy(dtype=object) if "annotation" in obs else None
    columns = gene_positions(section.table, genes)
    return scoring.Measured.of(_of_obs(section, "section"), read_rows(section, None), columns, section.centers, labels)


def _rows(outcome: Outcome, protocol: Protocol) -> list[scoring.Row]:
    rule = "given" if protocol.genes is not None else "variable on training spots"
    markers = MARKERS.get(protocol.dataset, ())
    rows: list[scoring.Row] = []
    for scope in scoring.scopes(outcome.measured):
        at = [outcome.measured.index(one) for one in scope.sections]
        sets = [one.gene_sets(outcome.genes, markers) for one in scope.sections]
        for name in sets[0]:
            chosen = [mine[name] for mine in sets]
            shared = {"test": scope.name, "genes": f"{name} ({chosen[0].sum()}; {rule})"}
            rows += [shared | row for row in _correlation_rows(outcome, scope, chosen, at, protocol.reference)]
            if not scope.pooled:
                rows += [shared | row for row in _mean_rows(outcome, at, chosen)]
    for i, one in enumerate(outcome.measured):
        rows += [
            {"test": one.name, "genes": f"panel ({len(outcome.genes)}; {rule})"} | r
            for r in _clusters(outcome, i, protocol)
        ]
        rows += [
            {"test": one.name, "method": method, "seed": seed} | row
            for (method, seed), values in outcome.predictions.items()
            for row in scoring.best_genes(one, outcome.genes, values[i][one.filled])
        ]
    rows += _shares(rows)
    train = "+".join(outcome.train)
    return [{"train": train, **row, **_seconds(outcome, row)} for row in rows]


def _correlation_rows(
    outcome: Outcome, scope: scoring.Scope, chosen: Sequence[np.ndarray], at: Sequence[int], reference: str
) -> list[scoring.Row]:
    rows: list[scoring.Row] = []
    for seed in dict.fromkeys(seed for _, seed in outcome.predictions):
        said = {
            method: [values[i][outcome.measured[i].filled] for i in at]
            for (method, s), values in outcome.predictions.items()
            if s == seed
        }
        varying = {m: v for m, v in said.items() if any(np.ptp(part, axis=0).max() > 0 for part in v)}
        base = reference if reference in varying else None
        found = list(scoring.correlations(scope, chosen, varying, reference=base)) if varying else []
        rows += [{"method": method, "seed": seed} | row for method, row in found]
    depth = {"depth": [outcome.measured[i].log_totals for i in at]}
    rows += [{"method": m} | row for m, row in scoring.correlations(scope, chosen, depth, reference=None)]
    return rows


def _mean_rows(outcome: Outcome, at: Sequence[int], chosen: Sequence[np.ndarray]) -> list[scoring.Row]:
    """Return ceiling, partial correlation and error of one section, or their means over several."""
    sections = [outcome.measured[i] for i in at]
    rows: list[scoring.Row] = [{"method": "ceiling"} | scoring.ceiling(sections, chosen)]
    for (method, seed), values in outcome.predictions.items():
        found = scoring.beyond_depth(
            sections, chosen, [values[i][outcome.measured[i].filled] for i in at], outcome.spline
        )
        rows += [{"method": method, "seed": seed} | row for row in found if np.isfinite(row["value"])]
    return rows


def _clusters(outcome: Outcome, i: int, protocol: Protocol) -> list[scoring.Row]:
    one = outcome.measured[i]
    leiden = protocol.dataset == "liver"
    seeds = list(dict.fromkeys(seed for _, seed in outcome.predictions))
    said = {key: values[i][one.filled] for key, values in outcome.predictions.items()}
    said |= {("measured", seed): one.log1p for seed in seeds}
    rows = []
    for (method, seed), values in said.items():
        if np.ptp(values, axis=0).max() > 0:
            row = scoring.clusters(one, values, leiden=leiden, seed=seed)
            rows += [] if row is None else [{"method": method, "seed": seed} | row]
    return rows


def _shares(rows: Sequence[scoring.Row]) -> list[scoring.Row]:
    """Return each residual score as a share of the ceiling of the same section and genes."""
    ceilings = {(row["test"], row["genes"]): row["value"] for row in rows if row["method"] == "ceiling"}
    shares = []
    for row in rows:
        above = ceilings.get((row["test"], row["genes"]), 0.0)
        if row["metric"] == "pcc_residual" and row["method"] != "ceiling" and above > 0:
            share = {name: row[name] / above for name in ("value", "low", "high")}
            shares.append({**row, "metric": "share_of_ceiling", **share})
    return shares


def _seconds(outcome: Outcome, row: scoring.Row) -> dict[str, float]:
    fit, predict = outcome.seconds.get((row["method"], row.get("seed", -1)), (np.nan, np.nan))
    return {"seconds_fit": fit, "seconds_predict": predict}
