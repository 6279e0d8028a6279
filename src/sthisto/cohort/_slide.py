"""One slide of a cohort, from its file to its written prediction."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sthisto._sdata.stores import atomic_store
from sthisto._utils.logging import about, logger
from sthisto._utils.settings import settings
from sthisto.cohort._manifest import SlideJob
from sthisto.cohort._state import DONE, FAILED, RUNNING, SlideState, locked, read_state, source_of, write_state

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sthisto.models import ExpressionModel

PREDICTED: Final = "predicted"
"""Table that holds the prediction of a slide."""
_IMAGE_GIB: Final = 0.25


@dataclass(frozen=True)
class Task:
    """What is done with every slide.

    Attributes
    ----------
    model
        Path of the saved model.
    out
        Folder of the results.
    settings
        Digest of the model and of the arguments.
    grid
        Arguments of `pp.tissue_grid` for slides without spots.
    predict
        Arguments of `tl.predict`.
    write_image
        Whether the image is written to the store too.
    threads
        Threads that one process may use; None leaves them as they are.
    """

    model: Path
    out: Path
    settings: str
    grid: Mapping[str, Any]
    predict: Mapping[str, Any]
    write_image: bool = False
    threads: int | None = None


def store_of(out: Path, name: str) -> Path:
    """Return the store with the prediction of a slide."""
    return out / f"{name}.zarr"


def is_done(job: SlideJob, task: Task) -> bool:
    """Return whether a slide was predicted by the same model and arguments, and is the same since."""
    state = read_state(task.out, job.name)
    if state.state != DONE or not store_of(task.out, job.name).is_dir():
        return False
    is_same = state.source == source_of(job.path) and state.um_per_px == job.um_per_px
    return state.settings == task.settings and is_same


def run_slide(job: SlideJob, task: Task, model: ExpressionModel | None = None) -> SlideState:
    """Read, predict and write one slide, and return what became of it; an error ends this slide alone.

    Parameters
    ----------
    job, task
        The slide, and what is done with it.
    model
        The loaded model; None loads that of the task once in a process.
    """
    with locked(task.out, job.name) as is_ours:
        if not is_ours:
            return SlideState(RUNNING, "another run works on it")
        if is_done(job, task):  # by another run, since this one was planned
            return read_state(task.out, job.name)
        begun = SlideState(RUNNING, source=source_of(job.path), settings=task.settings, um_per_px=job.um_per_px)
        start = time.perf_counter()
        try:
            write_state(task.out, job.name, begun)
            with about(job.name) as warnings:
                spots = _predict(job, task, model or _loaded(task.model, task.threads))
            seconds, message = time.perf_counter() - start, " ".join(warnings)
            state = replace(begun, state=DONE, message=message, spots=spots, seconds=seconds)
            write_state(task.out, job.name, state)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one slide, the others go on
            logger.info("Slide %r failed.", job.name, exc_info=True)
            state = replace(begun, state=FAILED, message=_message(error), seconds=time.perf_counter() - start)
            _write_failure(task, job, state)
        return state


def _write_failure(task: Task, job: SlideJob, state: SlideState) -> None:
    try:
        write_state(task.out, job.name, state)
    except OSError as error:  # a full disk: the caller still has the state
        logger.warning("The state of slide %r can't be written: %s", job.name, error)


def _message(error: Exception) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split()) or type(error).__name__


@lru_cache(maxsize=1)
def _loaded(path: Path, threads: int | None) -> ExpressionModel:
    """Return the model of this process, which computes with that many threads."""
    import torch

    from sthisto import models

    if threads is not None:
        torch.set_num_threads(threads)
    settings.progress = False
    return models.load(path)


def _read(job: SlideJob) -> SpatialData:
    """Read a slide, whose stated µm per px take the place of those of its file; other kinds have their own."""
    from sthisto.io import read
    from sthisto.io._read import recognize

    if job.um_per_px is None or not job.path.exists() or "um_per_px" not in recognize(job.path)[1]:
        return read(job.path)
    return read(job.path, um_per_px=job.um_per_px)


def _predict(job: SlideJob, task: Task, model: ExpressionModel) -> int:
    """Predict one slide, write its store, and return the number of spots."""
    import sthisto as sth
    from sthisto._sdata.new_tables import has_regions, with_predictions

    cap, settings.image_memory = settings.image_memory, min(settings.image_memory, _IMAGE_GIB)
    try:
        sdata = _read(job)
        stated = {} if job.um_per_px is None else {"um_per_px": job.um_per_px}
        if not has_regions(sdata):
            sth.pp.tissue_grid(sdata, **{**task.grid, **stated})
        sth.tl.predict(sdata, model, new_table_key=PREDICTED, **{**task.predict, **stated})
        kept, n_spots = with_predictions(sdata, PREDICTED, with_image=task.write_image)
        with atomic_store(store_of(task.out, job.name), overwrite=True) as staged:
            kept.write(staged, consolidate_metadata=True)
    finally:
        settings.image_memory = cap
    return n_spots
