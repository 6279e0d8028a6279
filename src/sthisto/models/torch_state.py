"""Torch's state of the process: random numbers of our own, and defaults that a user's settings do not change."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sthisto._utils.arguments import checked

_lock = threading.RLock()


@checked()
@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside a ``with`` block; the caller's random state is left as it was.

    Torch's layers draw from one generator of the process. A thread therefore waits until no other one is in such a
    block, so that two fits at the same time draw the same numbers as each alone.

    Parameters
    ----------
    seed
        Seed of torch's generators, on all devices.

    Returns
    -------
    A context manager.
    """
    with own_random_state():
        torch.manual_seed(seed)
        yield


@contextmanager
def own_random_state() -> Iterator[None]:
    """Put torch's random state back at the end of the block, which one thread enters at a time."""
    devices = list(range(torch.cuda.device_count()))
    with _lock, torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def plain_torch() -> Iterator[None]:
    """Compute with gradients where they are needed and in float32, whatever the caller's settings of torch are.

    `torch.no_grad`, `torch.inference_mode` and `torch.set_default_dtype` around a call then change nothing in it.
    """
    before = torch.get_default_dtype()
    if before != torch.float32:
        torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(mode=False), torch.enable_grad():
            yield
    finally:
        if before != torch.float32:
            torch.set_default_dtype(before)
