"""One batch over several processes: each embeds its share, all see the whole, and gradients find their way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Gather = Callable[[Tensor], Tensor]


def share_of(index: np.ndarray, rank: int, n_processes: int) -> np.ndarray:
    """Return one process's share of a global batch, (n,); all shares together are the batch, in its order."""
    return np.array_split(index, n_processes)[rank]


def gather_rows(fabric: Fabric, n_rows: int) -> Gather:
    """Return what joins the shares, made by `share_of`, of a batch of `n_rows` in their order, with gradient.

    Every process then computes the loss of the whole batch. The gradient of a process's own rows is the sum over all
    processes, so n times that of the loss, and the mean that data-parallel training takes over processes brings it
    back: the step is that of one process with the whole batch.
    """
    if fabric.world_size == 1:
        return lambda rows: rows
    sizes = [len(share) for share in np.array_split(np.arange(n_rows), fabric.world_size)]

    def gather(rows: Tensor) -> Tensor:
        if rows.dtype in (torch.bfloat16, torch.float16):
            rows = rows.float()  # gradients are summed over processes
        missing = max(sizes) - len(rows)
        padded = torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows
        shares = fabric.all_gather(padded, sync_grads=padded.requires_grad)
        return torch.cat([share[:size] for share, size in zip(shares, sizes, strict=True)])

    return gather
