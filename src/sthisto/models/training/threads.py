"""How many threads a training takes on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from sthisto._utils.cpus import usable_cpus

_IMAGE_DIMENSIONS = 4


@contextmanager
def threads_that_pay(device: torch.device, data: Sequence[Tensor]) -> Iterator[None]:
    """Train with the threads that make it faster, and set torch's number of threads back afterwards.

    On the CPU, a network on rows of features consists of many small operations, whose threads wait for each other
    longer than they compute, above all beside other processes. It takes one thread. A network on images, (n_spots,
    height, width, 3), takes all processors that the process may use, but no more threads than torch was set to.

    Parameters
    ----------
    device
        Where the network is trained; nothing is changed for a GPU.
    data
        What it is trained on, (n_spots, ...) each.
    """
    before = torch.get_num_threads()
    if device.type != "cpu":
        yield
        return
    on_images = any(tensor.ndim >= _IMAGE_DIMENSIONS for tensor in data)
    torch.set_num_threads(min(before, usable_cpus()) if on_images else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
