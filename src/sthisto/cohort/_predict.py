"""Predict many slides with one model."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from sthisto._utils.atomic import atomic_file, remove_leftovers
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_positive
from sthisto.cohort._manifest import SlideJob, find_slides
from sthisto.cohort._page import write_page
from sthisto.cohort._slide import Task, is_done, store_of
from sthisto.cohort._state import DONE, FAILED, RUNNING, SlideState, locked, read_state, state_path
from sthisto.cohort._workers import run_all

if TYPE_CHECKING:
    from sthisto.models import ExpressionModel

SUMMARY: Final = "summary.csv"
_MODEL: Final = "model.sthisto"
_LOCK: Final = ".summary"


def predict(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    model: ExpressionModel | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    workers: int = 1,
    cluster: str | None = None,
    pitch_um: float = 100.0,
    diameter_um: float = 55.0,
    least_tissue: float = 0.5,
    smooth: float = 0.0,
    genes: str | Sequence[str] = "all",
    min_score: float | None = None,
    um_per_px: float | None = None,
    interval: float | None = None,
    write_image: bool = False,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Predict a cohort of slides, in one process or several, and go on where an earlier call ended.

    Every slide is read with `sthisto.io.read`; where it has no spots, `sthisto.pp.tissue_grid` lays them. An error ends
    that slide alone. What a killed process had not finished is done again by the next call, and nothing else: results
    take their place in one step. Two calls may work on one folder at the same time; each slide is done by one of them.

    Parameters
    ----------
    paths
        A folder of slides; a manifest in CSV with a column "path" (or "wsi") and, where wanted, "um_per_px" (or "mpp")
        and "name"; or paths.
    model
        Fitted model, or the path of a saved one. A model that is not saved yet is saved to ``out/"model.sthisto"``.
    out
        Folder of the results.
    workers
        Processes on this machine; 1 works in this one.
    cluster
        Address of a dask scheduler, such as "tcp://10.0.0.1:8786", on whose workers the slides are predicted. They
        see the same folders. Needs ``pip install distributed``.
    pitch_um, diameter_um, least_tissue
        Arguments of `sthisto.pp.tissue_grid`.
    smooth
        Smoothing of the prediction, see `sthisto.tl.predict`.
    genes, min_score
        Genes to predict, by name or by the model's passport, see `sthisto.tl.predict`.
    um_per_px
        µm per px of all slides for which no manifest states others. None: as their files state.
    interval
        Share of the measured values that intervals are to cover, see `sthisto.tl.predict`. None: no intervals.
    write_image
        Whether stores hold the image too. They grow to the size of the slides.
    overwrite
        Whether slides that are done are predicted again.

    Returns
    -------
    A row for each slide: "slide", "state" ("done", "failed", or "running" in another call), "message" (why it failed,
    or the warnings of a slide that is done), "spots" and "seconds". The same is written to ``out/"summary.csv"`` and,
    at the end, to ``out/"summary.html"``. Each slide that is done has a SpatialData store ``out/f"{slide}.zarr"`` with
    the table "predicted" and the shapes that it annotates; ``out/"states"`` holds its state. Slides that failed are
    tried again by the next call.

    Raises
    ------
    FileNotFoundError
        There are no slides, or no model, at the path.
    ValueError
        Two slides have one name, the manifest can't be read, or `out` holds predictions of another model or of other
        arguments.
    OSError
        `out` can't be written to.

    Examples
    --------
    >>> import sthisto as sth
    >>> states = sth.cohort.predict("slides", "liver.sthisto", out="predicted", workers=4)  # doctest: +SKIP
    """
    check_positive(workers, name="workers")
    jobs, folder = find_slides(paths), Path(out).expanduser()
    if um_per_px is not None:
        check_positive(um_per_px, name="um_per_px")
        jobs = [replace(job, um_per_px=job.um_per_px or float(um_per_px)) for job in jobs]
    grid = {"pitch_um": pitch_um, "diameter_um": diameter_um, "least_tissue": least_tissue}
    predicting: dict[str, Any] = {"smooth": smooth}
    if genes != "all" or min_score is not None:
        predicting |= {"genes": genes if isinstance(genes, str) else list(genes), "min_score": min_score}
    if interval is not None:
        predicting["interval"] = interval
    _make_folder(folder)
    saved = _saved(model, folder, overwrite=overwrite)
    arguments: dict[str, Any] = {"grid": grid, "predict": predicting, "write_image": write_image}
    task = Task(saved, folder, _digest(saved, arguments), threads=_threads(workers, cluster), **arguments)
    if not overwrite:
        _check_same(jobs, task)
    states = {job.name: read_state(folder, job.name) for job in jobs if not overwrite and is_done(job, task)}
    if states:
        logger.info("%d of %d slides are done already.", len(states), len(jobs))
    rest = [job for job in jobs if job.name not in states]
    if overwrite:
        _forget(rest, task)
    in_process = None if workers > 1 or cluster or isinstance(model, str | os.PathLike) else model
    for name, state in run_all(rest, task, workers=int(workers), cluster=cluster, model=in_process):
        states[name] = state
        _write_summary(jobs, states, folder)
    for job in jobs:  # a killed process may have been at work still when its slide was written anew
        remove_leftovers(store_of(folder, job.name))
    return _write_summary(jobs, states, folder, page=True)


def _make_folder(out: Path) -> None:
    """Make the folder of the results, where it can be written to.

    Raises
    ------
    OSError
        It is a file, or can't be written to.
    """
    states = state_path(out, "").parent
    try:
        states.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=states):
            pass
    except OSError as error:
        msg = f"Results can't be written to out={str(out)!r}: {error}. Pass a folder, which may be new."
        raise OSError(msg) from error


def _saved(model: ExpressionModel | str | os.PathLike[str], out: Path, *, overwrite: bool) -> Path:
    """Return the path of the saved model; one in memory is saved beside the results."""
    if isinstance(model, str | os.PathLike):
        path = Path(model).expanduser().resolve()
        if not path.exists():
            msg = f"There is no model at {path}. Save one with model.save(…)."
            raise FileNotFoundError(msg)
        return path
    path = (out / _MODEL).resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".model-") as folder:
        saved = Path(folder) / _MODEL
        model.save(saved)
        if not path.exists():
            saved.rename(path)
        elif overwrite:
            model.save(path, overwrite=True)
        elif _digest(saved, {}) != _digest(path, {}):
            msg = (
                f"{path} is another model than the given one. Choose another out, or pass overwrite=True to predict "
                "all slides again."
            )
            raise ValueError(msg)
    return path


def _digest(model: Path, arguments: Mapping[str, Any]) -> str:
    """Return a digest of a saved model's files and of the arguments."""
    state = blake2b(json.dumps(arguments, sort_keys=True).encode(), digest_size=16)
    for file in sorted(path for path in model.rglob("*") if path.is_file()):
        state.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                state.update(block)
    return state.hexdigest()


def _threads(workers: int, cluster: str | None) -> int | None:
    return max(1, (os.cpu_count() or 1) // int(workers)) if workers > 1 and not cluster else None


def _check_same(jobs: list[SlideJob], task: Task) -> None:
    """Raise ValueError where slides are done with another model or other arguments."""
    for job in jobs:
        state = read_state(task.out, job.name)
        if state.state == DONE and state.settings != task.settings and store_of(task.out, job.name).is_dir():
            msg = (
                f"{task.out} holds the prediction of slide {job.name!r} by another model or with other arguments. "
                "Choose another out, or pass overwrite=True to predict all slides again."
            )
            raise ValueError(msg)


def _forget(jobs: list[SlideJob], task: Task) -> None:
    """Remove what is known of slides that are predicted again."""
    for job in jobs:
        state_path(task.out, job.name).unlink(missing_ok=True)


def _table(jobs: list[SlideJob], states: Mapping[str, SlideState]) -> pd.DataFrame:
    rows = [(job.name, states.get(job.name, SlideState())) for job in jobs]
    columns = ("state", "message", "spots", "seconds")
    return pd.DataFrame([{"slide": name, **{c: getattr(state, c) for c in columns}} for name, state in rows])


def _write_summary(
    jobs: list[SlideJob], states: dict[str, SlideState], out: Path, *, page: bool = False
) -> pd.DataFrame:
    """Write what became of the slides and return it; of those that another run works on, what is known by now.

    One run writes at a time, so that the last one to write knows what all others did. A full disk ends no run.
    """
    table = _table(jobs, states)
    try:
        with locked(out, _LOCK, wait=True):
            running = [name for name, state in states.items() if state.state == RUNNING]
            now = {name: read_state(out, name) for name in running}
            states.update({name: state for name, state in now.items() if state.state in (DONE, FAILED)})
            table = _table(jobs, states)
            with atomic_file(out / SUMMARY) as staged:
                table.to_csv(staged, index=False, float_format="%.2f")
            if page:
                write_page(table, out)
    except OSError as error:
        logger.warning("The summary in %s can't be written: %s", out, error)
    return table
