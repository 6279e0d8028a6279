"""Slides through one process, several, or the workers of a dask cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from sthisto._utils.logging import logger
from sthisto._utils.settings import settings
from sthisto.cohort._manifest import SlideJob
from sthisto.cohort._slide import Task, run_slide
from sthisto.cohort._state import FAILED, RUNNING, SlideState, read_state, write_state

if TYPE_CHECKING:
    from sthisto.models import ExpressionModel


def run_all(
    jobs: Sequence[SlideJob], task: Task, *, workers: int, cluster: str | None, model: ExpressionModel | None
) -> Iterator[tuple[str, SlideState]]:
    """Yield the name and state of each slide when it has come to an end.

    Parameters
    ----------
    jobs, task
        The slides, and what is done with them.
    workers
        Processes on this machine.
    cluster
        Address of a dask scheduler.
    model
        The loaded model for work in this process.
    """
    from tqdm import tqdm

    states: Iterator[tuple[str, SlideState]]
    if cluster is None and workers == 1:
        states = ((job.name, run_slide(job, task, model)) for job in jobs)
    else:
        states = _in_processes(jobs, task, workers, cluster)
    yield from tqdm(states, total=len(jobs), desc="Slides", disable=not settings.progress)


def _in_processes(
    jobs: Sequence[SlideJob], task: Task, workers: int, cluster: str | None
) -> Iterator[tuple[str, SlideState]]:
    """Yield states as they come.

    Where a process dies, as by a lack of memory, the slides that were under way are tried again one by one, each in a
    process of its own; one that kills it again has failed, and the others go on.
    """
    rest = {job.name: job for job in jobs}
    while rest:
        yield from _as_completed(rest, task, workers, cluster)
        for name in [name for name in rest if read_state(task.out, name).state == RUNNING]:
            yield from _as_completed({name: rest[name]}, task, 1, cluster)
            if read_state(task.out, name).state == RUNNING:
                yield name, _killed(name, task)
            rest.pop(name)


def _as_completed(
    rest: dict[str, SlideJob], task: Task, workers: int, cluster: str | None
) -> Iterator[tuple[str, SlideState]]:
    """Yield states as they come, and take them out of `rest`; it ends early where a process dies."""
    with _executor(min(workers, len(rest)), cluster) as executor:
        futures: dict[Future[Any], str] = {executor.submit(run_slide, job, task): name for name, job in rest.items()}
        for future in as_completed(futures):
            try:
                state = future.result()
            except BrokenProcessPool:
                logger.warning("A process was killed. The slides that were under way are tried again one by one.")
                return
            rest.pop(futures[future])
            yield futures[future], state


def _killed(name: str, task: Task) -> SlideState:
    message = "its process was killed twice, most likely for a lack of memory"
    failed = replace(read_state(task.out, name), state=FAILED, message=message)
    write_state(task.out, name, failed)
    return failed


@contextmanager
def _executor(workers: int, cluster: str | None) -> Iterator[Executor]:
    if cluster is None:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            yield pool
        return
    try:
        from distributed import Client
    except ImportError as error:
        msg = "cluster=… needs dask's distributed: pip install distributed."
        raise ImportError(msg) from error
    with Client(cluster) as client:
        yield client.get_executor(pure=False)
