"""Independent calls in several processes, through joblib and whichever backend it is set to."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from sthisto._utils.settings import settings

Result = TypeVar("Result")


def run_calls(
    function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], *, n_jobs: int = 1
) -> list[Result]:
    """Return what a function returns for each tuple of arguments, in their order.

    Parameters
    ----------
    function
        Function or method that can be sent to another process.
    arguments
        Arguments of each call.
    n_jobs
        Processes; 1 calls in this one, -1 takes one for each core. ``joblib.parallel_config`` around it chooses another
        backend, such as dask's.
    """
    if n_jobs == 1 or len(arguments) < 2:
        return [function(*own) for own in arguments]
    from joblib import Parallel, delayed, effective_n_jobs

    own_settings = {field.name: getattr(settings, field.name) for field in fields(settings)}
    threads = max(1, (os.cpu_count() or 1) // effective_n_jobs(n_jobs))
    call = delayed(_call)
    return list(Parallel(n_jobs=n_jobs)(call(own_settings, threads, function, own) for own in arguments))


def _call(
    own_settings: dict[str, Any], threads: int, function: Callable[..., Result], arguments: tuple[Any, ...]
) -> Result:
    """Call in a process that has the settings of the one that asked for it, and its share of the cores."""
    import torch

    for name, value in own_settings.items():
        setattr(settings, name, value)
    torch.set_num_threads(threads)
    settings.progress = False
    return function(*arguments)
