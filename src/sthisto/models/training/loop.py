"""The training loop: Lightning Fabric, one loss over the global batch on any number of processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from sthisto._utils.logging import logger
from sthisto._utils.settings import settings
from sthisto.models.options import MethodOptions, TrainingOptions
from sthisto.models.torch_state import seeded
from sthisto.models.training.devices import resolve_device
from sthisto.models.training.gather import Gather, gather_rows, share_of
from sthisto.models.training.progress import Progress, copy_state, resumable
from sthisto.models.training.threads import threads_that_pay

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Training(TrainingOptions):
    """How a model is trained; the defaults of a method stand in its options.

    Parameters
    ----------
    max_epochs
        Largest number of epochs.
    patience
        Epochs without a lower validation loss after which training stops.
    batch_size
        Spots in a batch, over all processes.
    learning_rate, weight_decay
        AdamW's step size and decoupled weight decay.
    batch_by
        "mixed" draws batches from all sections, "section" makes every section one batch.
    precision, devices, num_nodes, strategy
        Precision, number of devices per node, number of nodes, and strategy of Lightning Fabric.
    seed
        Seed of the order of the batches and of dropout.
    """

    seed: int = 0

    @classmethod
    def of(cls, options: MethodOptions, **more: Any) -> Training:
        """Return the fields that a method's options have in common with these; `more` gives others."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in asdict(options).items() if name in names} | more)

    def fabric(self) -> Fabric:
        """Return a launched Fabric on the device of the settings."""
        from lightning_fabric import Fabric

        accelerator, devices = resolve_device(settings.device)
        precision: Any = {"bf16": "bf16-mixed", "16": "16-mixed", "32": "32-true"}.get(self.precision, self.precision)
        with _without_notices():
            fabric = Fabric(
                accelerator=accelerator,
                devices=self.devices if devices is None else devices,
                num_nodes=self.num_nodes,
                strategy=self.strategy,
                precision=precision,
            )
            fabric.launch()
        return fabric


class Interrupted(KeyboardInterrupt):
    """Ctrl-C after at least one epoch: the module has the weights of the best one, `history` is that of all."""

    def __init__(self, history: pd.DataFrame) -> None:
        super().__init__("interrupted")
        self.history = history


Batch = tuple[Tensor, ...]
Loss = Callable[[nn.Module, Batch, Gather], Tensor]


def train(
    module: nn.Module,
    data: Batch,
    *,
    loss: Loss,
    validation: Batch | None,
    groups: np.ndarray,
    training: Training,
    description: str,
) -> pd.DataFrame:
    """Fit a module and leave it with the weights of its best epoch.

    Parameters
    ----------
    module
        Changed in place.
    data, validation
        Tensors that share their first axis, the spots. Without validation the last epoch is kept.
    loss
        Takes the module, a batch, and a function that gathers embeddings from all processes; returns a scalar.
    groups
        (n_spots,) number of each spot's section, for ``batch_by="section"``.
    training
        Epochs, optimizer, seed and devices.
    description
        For the progress bar.

    Returns
    -------
    One row an epoch: epoch, train_loss, val_loss (NaN without validation).

    Raises
    ------
    ValueError
        A batch has fewer spots than there are processes.
    FloatingPointError
        The loss is no longer finite.
    torch.OutOfMemoryError
        A batch does not fit the device; it says what to change.
    Interrupted
        Ctrl-C after an epoch; before that, and where a checkpoint keeps the epochs, a plain KeyboardInterrupt.

    Notes
    -----
    On the CPU, rows of features are trained on with one thread, which is faster than several that wait for each other;
    images with all processors that the process may use.
    """
    fabric = training.fabric()
    _check_size(groups, training, fabric.world_size)
    optimizer = torch.optim.AdamW(module.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    rng = np.random.default_rng(training.seed)
    kept = resumable(fabric, module, optimizer, rng, training, data, validation)
    wrapped, optimizer = fabric.setup(module, optimizer)
    progress = Progress(best_state=copy_state(module))
    rows = progress.rows
    bar = tqdm(total=training.max_epochs, desc=description, disable=not settings.progress or fabric.global_rank > 0)
    try:
        with threads_that_pay(fabric.device, data), _own_dropout(fabric, training), bar:
            if kept is not None:
                kept.restore(progress, description)
                rows = progress.rows
                bar.update(len(rows))
            while not progress.is_over(training):
                epoch = len(rows)
                train_loss = _epoch(fabric, wrapped, optimizer, data, loss, _batches(groups, training, rng))
                val_loss = fabric.broadcast(_validate(fabric, wrapped, validation, loss, training))
                rows.append({"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss})
                if validation is None or val_loss < progress.best_loss:
                    progress.best_loss, progress.best_epoch, progress.best_state = val_loss, epoch, copy_state(module)
                bar.set_postfix(loss=f"{train_loss:.3f}", validation=f"{val_loss:.3f}", best=progress.best_epoch)
                bar.update()
                if kept is not None:
                    kept.keep(progress, last=progress.is_over(training))
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(_out_of_memory(training, fabric)) from error
    except KeyboardInterrupt as stop:
        if rows and kept is None:
            raise Interrupted(pd.DataFrame(rows)) from stop
        raise
    finally:
        module.load_state_dict(progress.best_state)
    best_epoch = progress.best_epoch
    if validation is not None and not np.isfinite(progress.best_loss):
        msg = f"{description}: the validation loss was never finite. Look for extreme values in validation spots."
        raise FloatingPointError(msg)
    logger.info("%s: %d epochs, the weights of epoch %d (counted from 0) kept.", description, len(rows), best_epoch)
    unfinished = validation is not None and len(rows) == training.max_epochs > 1 and best_epoch == len(rows) - 1
    if unfinished and fabric.global_rank == 0:
        logger.warning(
            "%s: the validation loss was still falling after max_epochs=%d. Raise it.", description, len(rows)
        )
    return pd.DataFrame(rows)


def _check_size(groups: np.ndarray, training: Training, n_processes: int) -> None:
    """Raise ValueError where a batch, of (n_spots,) in all, has fewer spots than processes share it."""
    if training.batch_by == "section":
        smallest = int(np.unique(groups, return_counts=True)[1].min())
    else:
        smallest = len(groups) // _n_batches(len(groups), training)
    if smallest < n_processes:
        msg = (
            f"A batch of {smallest} spots cannot be shared by {n_processes} processes. There are {len(groups)} "
            "training spots; use fewer devices, or a larger batch_size."
        )
        raise ValueError(msg)


def _out_of_memory(training: Training, fabric: Fabric) -> str:
    return (
        f"{fabric.device} has not enough memory to train with batch_size={training.batch_size} on "
        f"{fabric.world_size} process(es), precision={training.precision!r}. Another batch is another loss, so it is "
        "left to you: pass a smaller batch_size, precision='bf16', more devices, a smaller patch_size, or "
        "finetune=False, which trains on features that were computed once."
    )


def _epoch(
    fabric: Fabric, module: Any, optimizer: Any, data: Batch, loss: Loss, batches: Iterator[np.ndarray]
) -> float:
    module.train()
    total, n_spots = 0.0, 0
    for index in batches:
        batch = _to_device(fabric, data, share_of(index, fabric.global_rank, fabric.world_size))
        optimizer.zero_grad()
        value = loss(module, batch, gather_rows(fabric, len(index)))
        if not torch.isfinite(value):
            msg = f"The training loss is {value.item()}. Lower learning_rate, or look for outliers in the expression."
            raise FloatingPointError(msg)
        fabric.backward(value)
        optimizer.step()
        total, n_spots = total + value.item() * len(index), n_spots + len(index)
    return total / n_spots


def _validate(fabric: Fabric, module: Any, validation: Batch | None, loss: Loss, training: Training) -> float:
    """Return the mean loss over batches as large as those of the training, every epoch the same ones."""
    if validation is None:
        return float("nan")
    module.eval()
    n_spots = len(validation[0])
    n_batches = 1 if training.batch_by == "section" else _n_batches(n_spots, training)
    order = np.random.default_rng(0).permutation(n_spots)
    total = 0.0
    with torch.no_grad():
        for index in np.array_split(order, n_batches):
            batch = _to_device(fabric, validation, np.sort(index))
            total += float(loss(module, batch, lambda embedding: embedding).item()) * len(index)
    return total / n_spots


def _batches(groups: np.ndarray, training: Training, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield each spot once, (n_batch,) positions at a time: by section, or at random in nearly equal batches."""
    if training.batch_by == "section":
        sections: Sequence[np.ndarray] = [
            np.flatnonzero(groups == group) for group in rng.permutation(np.unique(groups))
        ]
        yield from sections
        return
    order = rng.permutation(len(groups))
    yield from np.array_split(order, _n_batches(len(order), training))


def _n_batches(n_spots: int, training: Training) -> int:
    return max(1, round(n_spots / training.batch_size))


def _to_device(fabric: Fabric, data: Batch, index: np.ndarray) -> Batch:
    rows = torch.from_numpy(index)
    return tuple(fabric.to_device(tensor[rows]) for tensor in data)


@contextmanager
def _own_dropout(fabric: Fabric, training: Training) -> Iterator[None]:
    """Give each of several processes random numbers of its own, so that their dropout differs."""
    if fabric.world_size == 1:
        yield
        return
    with seeded(training.seed + fabric.global_rank):
        yield


@contextmanager
def _without_notices() -> Iterator[None]:
    """Keep Fabric from announcing what was asked of it; its warnings and errors pass."""
    fabric_logger = logging.getLogger("lightning_fabric")
    level = fabric_logger.level
    fabric_logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        fabric_logger.setLevel(level)
