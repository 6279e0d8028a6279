"""Compiled loops on the CPU: one way to compile them and one way to spread them over torch's threads.

The loops release the interpreter lock and run in Python threads that live for one call. So their number follows
`torch.get_num_threads`, nothing of theirs survives into a forked worker, and two of them may run at once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numba
import torch

__all__ = ["compiled", "over_ranges"]


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a loop with numba, keeping the machine code on disk where a cache can be written.

    Sums may be reordered and multiplications fused with additions, so that loops vectorize; NaN and infinity
    keep their meaning. The cache follows changes of the function's own file, not of files that it calls into.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "contract"}, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(**options)(function)


def over_ranges(loop: Callable[..., None], n: int, *arguments: Any) -> None:
    """Call ``loop(*arguments, start, stop)`` over ranges that cover ``range(n)``, one range a thread."""
    n_threads = max(1, min(torch.get_num_threads(), n))
    if n_threads == 1:
        loop(*arguments, 0, n)
        return
    bounds = [n * i // n_threads for i in range(n_threads + 1)]
    with ThreadPoolExecutor(n_threads) as pool:
        futures = [pool.submit(loop, *arguments, start, stop) for start, stop in pairwise(bounds)]
        for future in futures:
            future.result()
