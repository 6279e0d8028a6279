"""Run a protocol: fit and predict what is not kept yet, then score everything that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from sthisto._scoring.measure import Measured, measure
from sthisto._scoring.score import ScoreOptions
from sthisto._sdata.expression import Normalization
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.slots import TRAIN
from sthisto._sdata.training import depth_knots, sibling_components
from sthisto._splits.folds import Fold
from sthisto._utils.arguments import checked
from sthisto._utils.checks import Check
from sthisto._utils.jobs import run_calls
from sthisto._utils.validate import check_key, listed
from sthisto.benchmark._protocol import Protocol
from sthisto.benchmark._results import Results
from sthisto.benchmark._rows import Key, Outcome, Row, rows_of
from sthisto.metrics import SiblingReference, spatial_blocks
from sthisto.tl._fit import check_fit
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
"""Columns of the table of scores that `sthisto.benchmark.run` returns."""


_PROTOCOL: Final = Check("a sthisto.benchmark.Protocol", lambda value: isinstance(value, Protocol))


@checked(protocol=_PROTOCOL)
def run(sdata: SpatialData, protocol: Protocol, *, out: str | Path, n_jobs: int = 1) -> pd.DataFrame:
    """Run every method of a protocol and score it beside baselines and references.

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
    n_jobs
        Processes that fit at the same time, -1 for one a core. Scores are the same; the seconds are those of a busy
        machine.

    Returns
    -------
    One row per score, with `COLUMNS`. Reference rows: "depth" is the score of the spots' total counts, "siblings" the
    score of the other genes of the same spot, "reproducibility" the score of a second sequencing of the same
    spots, "measured" the clusters of the measured expression. ``test`` is a section, "mean of" several, or
    several "pooled". Intervals are at 95 %, from spatial blocks.

    Raises
    ------
    KeyError
        A section or gene is missing.
    ValueError
        A section or, split by patient, a patient would stand on both sides, or a spot does, recognized by its pixels.
    """
    rows: list[Row] = []
    for outcome in outcomes(sdata, protocol, out=out, n_jobs=n_jobs):
        rows += rows_of(outcome, protocol)
    shared = {"dataset": protocol.dataset, "encoder": protocol.encoder_name, "split": protocol.split}
    return Results([{**shared, **row} for row in rows], columns=list(COLUMNS))


def outcomes(sdata: SpatialData, protocol: Protocol, *, out: str | Path, n_jobs: int = 1) -> Iterator[Outcome]:
    """Yield what was measured and predicted on each fold of a protocol.

    Parameters
    ----------
    sdata, protocol, out, n_jobs
        See `run`.
    """
    sections = {_of_obs(one, "section"): one for one in read_sections(sdata)}
    patient_of = {name: _of_obs(one, "patient") for name, one in sections.items()}
    arguments: dict[str, Any] = protocol.patches() | protocol.gene_choice() | {"image_encoder": protocol.encoder}
    encoder = load_shared_encoder([spec.method for spec in protocol.specs()], arguments)
    context = FoldContext([sdata], list(sections.values()), encoder, arguments, None)
    folds = [(train, _fold(sections, train, test)) for train, test in protocol.folds(patient_of).values()]
    runs = Path(out) / "runs"
    if n_jobs != 1:  # what each process predicts is kept, and found below
        calls = [(context, run, runs, _is_first(protocol, run)) for _, fold in folds for run in _runs(protocol, fold)]
        run_calls(_predicted, calls, n_jobs=n_jobs)
    for train, fold in folds:
        yield _outcome(context, fold, protocol, runs, train)


def _of_obs(section: Section, column: str) -> str:
    check_key(column, section.table.obs.columns, name="column", where="the columns of obs")
    return str(section.table.obs[column].iloc[section.rows[0]])


def _fold(sections: Mapping[str, Section], train: Sequence[str], test: Sequence[str]) -> Fold:
    return Fold(
        f"{'+'.join(test)}",
        [np.full(len(one), name in train) for name, one in sections.items()],
        [np.full(len(one), name in test) for name, one in sections.items()],
    )


def _runs(protocol: Protocol, fold: Fold) -> list[FoldRun]:
    """Return what is run on a fold: each method with each of its seeds."""
    return [
        FoldRun(fold, spec.method, seed, spec.options) for spec in protocol.specs() for seed in protocol.seeds_of(spec)
    ]


def _is_first(protocol: Protocol, run: FoldRun) -> bool:
    """Return whether a run is timed after one that only warms up."""
    return protocol.warm_up and run.seed == 0


def _outcome(context: FoldContext, fold: Fold, protocol: Protocol, out: Path, train: Sequence[str]) -> Outcome:
    kept: dict[Key, dict[str, np.ndarray]] = {}
    genes_of: dict[tuple[str, ...], str] = {}
    for spec in protocol.specs():
        for seed in protocol.seeds_of(spec):
            run = FoldRun(fold, spec.method, seed, spec.options)
            found = kept[spec.label, seed] = _predicted(context, run, out, _is_first(protocol, run))
            genes_of[tuple(str(gene) for gene in found["genes"])] = spec.label
    if len(genes_of) > 1:
        msg = f"{listed(genes_of.values())} model different genes, so their scores are not comparable."
        raise ValueError(msg)
    (genes,) = genes_of
    known, hidden = context.sides(fold)
    hidden.reveal()
    measured = [
        _measured(one, genes, {key: found[f"section {i}"] for key, found in kept.items()}, protocol.block_spots)
        for i, one in enumerate(read_sections(hidden.sdata))
    ]
    fitted = read_sections(known.sdata)
    roles = [np.full(len(one), TRAIN) for one in fitted]
    options = ScoreOptions(
        depth_knots=depth_knots(fitted, roles, Normalization()),
        siblings=SiblingReference(
            sibling_components(fitted, roles, Normalization(), genes=list(genes), gene_symbols=None)
        ),
    )
    seconds = {key: (float(found["seconds"][0]), float(found["seconds"][1])) for key, found in kept.items()}
    return Outcome(list(train), measured, options, seconds)


def _predicted(context: FoldContext, run: FoldRun, out: Path, warm_up: bool) -> dict[str, np.ndarray]:
    """Return the predictions of a run, as `FoldContext.predictions`, from its file, or make and keep them."""
    if warm_up and not context.path(run, out, ".npz").is_file():
        has_epochs = check_fit(run.method, run.options)[0].has_epochs
        brief = {"max_epochs": 1} if has_epochs else {}
        context.predictions(FoldRun(run.fold, run.method, run.seed, {**run.options, **brief}))
    return context.predictions(run, out)


def _measured(
    section: Section, genes: Sequence[str], predictions: Mapping[Key, np.ndarray], block_spots: int | None
) -> Measured:
    obs = section.table.obs.iloc[section.rows]
    blocks = None
    if block_spots is not None:
        blocks = spatial_blocks(obs[["array_col", "array_row"]].to_numpy(dtype=float), block_spots)
    labels = obs["annotation"].to_numpy(dtype=object) if "annotation" in obs else None
    return measure(section, genes, predictions, labels=labels, blocks=blocks, name=_of_obs(section, "section"))
