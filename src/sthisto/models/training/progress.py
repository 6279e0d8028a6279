"""How far the training of one network has come: what a checkpoint keeps of it, and how it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from sthisto._utils.logging import logger
from sthisto.models.training.checkpoint import TrainingFile, next_training

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from sthisto.models.training.loop import Batch, Training

_HASHED_ROWS: Final = 4096
"""Rows of a large tensor that are looked at to recognize the data."""
_LARGE: Final = 2**28


@dataclass
class Progress:
    """What the training loop knows between two epochs.

    Attributes
    ----------
    rows
        One for each finished epoch: epoch, train_loss, val_loss.
    best_loss, best_epoch, best_state
        Validation loss, epoch and weights of the best epoch so far, which are returned.
    """

    best_state: dict[str, Tensor]
    rows: list[dict[str, float]] = field(default_factory=list)
    best_loss: float = float("inf")
    best_epoch: int = 0

    def is_over(self, training: Training) -> bool:
        """Return whether no epoch is left, or too many did not improve the validation loss."""
        done = len(self.rows)
        return done >= training.max_epochs or (done > 0 and done - 1 - self.best_epoch >= training.patience)


class Resumable:
    """Weights, optimizer and random numbers of one training, read from and written to the active checkpoint.

    Without a checkpoint, nothing is read or written.

    Parameters
    ----------
    fabric, module, optimizer
        The training loop's; `optimizer` is torch's, not Fabric's wrapper.
    rng
        Generator of the order of the batches.
    identity
        Recognizes the training: another one is refused.
    """

    def __init__(
        self,
        fabric: Fabric,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        rng: np.random.Generator,
        identity: Mapping[str, str],
        file: TrainingFile,
    ) -> None:
        self._fabric, self._module, self._optimizer, self._rng = fabric, module, optimizer, rng
        self._identity, self._file = dict(identity), file

    def restore(self, progress: Progress, description: str) -> None:
        """Bring everything to where the checkpoint stands, and say so in the log."""
        found = self._file.read() if self._fabric.global_rank == 0 else None
        if self._fabric.world_size > 1:
            found = self._fabric.broadcast(found)
        if found is None:
            return
        tensors, state = found
        self._check(state["identity"])
        self._module.load_state_dict(_part(tensors, "module"))
        _load_optimizer(self._optimizer, tensors)
        self._rng.bit_generator.state = state["batches"]
        _set_random_state(self._fabric, tensors)
        progress.best_state = _part(tensors, "best")
        progress.rows, progress.best_epoch = state["rows"], state["best_epoch"]
        progress.best_loss = float("inf") if state["best_loss"] is None else state["best_loss"]
        for row in progress.rows:
            row["val_loss"] = float("nan") if row["val_loss"] is None else row["val_loss"]
        logger.warning("%s: going on from epoch %d, kept in %s.", description, len(progress.rows), self._file.path)

    def keep(self, progress: Progress, *, last: bool) -> None:
        """Write everything after an epoch."""
        random_state = _random_state(self._fabric)
        if self._fabric.global_rank > 0:
            return
        tensors = {f"module.{name}": value for name, value in copy_state(self._module).items()}
        tensors |= {f"best.{name}": value.clone() for name, value in progress.best_state.items()}
        for number, values in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": _plain(value) for name, value in values.items()}
        state = {
            "identity": self._identity,
            "batches": self._rng.bit_generator.state,
            "rows": [{name: _finite(value) for name, value in row.items()} for row in progress.rows],
            "best_epoch": progress.best_epoch,
            "best_loss": _finite(progress.best_loss),
        }
        self._file.write(tensors | random_state, state, last=last)

    def _check(self, found: Mapping[str, str]) -> None:
        differing = sorted(name for name in self._identity if found.get(name) != self._identity[name])
        if differing:
            msg = (
                f"{self._file.path} is of another fit: its {' and '.join(differing)} differ. Delete "
                f"{self._file.path.parent} to start anew, or pass another checkpoint=…"
            )
            raise ValueError(msg)


def resumable(
    fabric: Fabric,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
    training: Training,
    data: Batch,
    validation: Batch | None,
) -> Resumable | None:
    """Return what goes on with this training, None outside a checkpoint."""
    file = next_training()
    if file is None:
        return None
    identity = {
        "options": repr(sorted(asdict(training).items())),
        "initial weights": digest_tensors(*module.state_dict().values()),
        "training data": digest_tensors(*data),
        "validation data": digest_tensors(*(validation or ())),
    }
    return Resumable(fabric, module, optimizer, rng, identity, file)


def digest_tensors(*tensors: Tensor) -> str:
    """Return what recognizes tensors of any shape by their values; of large ones, some evenly spaced rows."""
    state = blake2b(digest_size=16)
    for tensor in tensors:
        state.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        if tensor.element_size() * tensor.nelement() > _LARGE:
            tensor = tensor[torch.linspace(0, len(tensor) - 1, min(len(tensor), _HASHED_ROWS)).long()]
        values = tensor.detach().cpu().contiguous()
        state.update(values.reshape(-1).view(torch.uint8).numpy().data if values.nelement() else b"")
    return state.hexdigest()


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's weights and buffers, copied to the CPU."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in module.state_dict().items()}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(tensors, "optimizer").items():
        number, _, inner = name.partition(".")
        state.setdefault(int(number), {})[inner] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _random_state(fabric: Fabric) -> dict[str, Tensor]:
    """Return torch's random state of every process, (n_processes, n_bytes)."""
    states = {"random.cpu": torch.get_rng_state()}
    if fabric.device.type == "cuda":
        states["random.cuda"] = torch.cuda.get_rng_state(fabric.device)
    if fabric.world_size == 1:
        return {name: value[None] for name, value in states.items()}
    gathered: dict[str, Any] = {name: fabric.all_gather(value.to(fabric.device)) for name, value in states.items()}
    return {name: value.cpu().reshape(fabric.world_size, -1) for name, value in gathered.items()}


def _set_random_state(fabric: Fabric, tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors["random.cpu"][fabric.global_rank])
    if fabric.device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"][fabric.global_rank], fabric.device)


def _plain(value: Any) -> Tensor:
    tensor = value if isinstance(value, Tensor) else torch.tensor(value)
    return tensor.detach().cpu().clone().contiguous()


def _finite(value: float) -> float | None:
    """Return a number that JSON knows; None stands for NaN and infinity."""
    return value if np.isfinite(value) else None
