"""Encoding without training: fewer passes over memory, small batches for the cache, and a way out of memory."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sthisto._utils.logging import logger
from sthisto.models.encoders.backends import TORCH, BackendModule, backend_name
from sthisto.models.encoders.densenet import FoldedDenseNet, can_fold, onednn_computes
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.training.devices import torch_device

_ON_CPU = 4
"""Patches that a CPU encodes at once. Larger activations than 32 MiB are mapped anew by malloc for every layer."""


class FrozenEncoder:
    """An encoder that is not trained, on the device of this thread.

    Parameters
    ----------
    encoder
        Left as it is.
    precision
        "32", or "bf16": weights and activations in bfloat16.
    """

    def __init__(self, encoder: Encoder, precision: str) -> None:
        device = torch_device()
        self._batches = Batches(f"encoding with {encoder.name!r}", _ON_CPU if device.type == "cpu" else None)
        module: Any = encoder.module
        backend = backend_name(device, precision)
        if backend != TORCH:
            own = deepcopy(module).to(device) if encoder.device != device else module
            module = BackendModule(own.eval(), backend, encoder.digest(), encoder.name)
        elif can_fold(module):
            module = FoldedDenseNet(module)
        elif precision == "bf16" or encoder.device != device:
            module = deepcopy(module)
        if precision == "bf16":
            if device.type == "cpu" and not onednn_computes(torch.bfloat16):
                logger.warning("This CPU has no instructions for bfloat16: precision='bf16' is slower than '32' on it.")
            module = module.to(torch.bfloat16)
        self._encoder = encoder.around(module).to(device).eval()

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """Encode uint8 patches (n, size, size, 3) as (n, n_features) float32."""
        return self._batches(self._encoder, patches, self._encoder.device)

    def maps(self, tile: np.ndarray) -> list[np.ndarray]:
        """Return the maps (n_channels, rows, columns) float32 of the layers, of a uint8 tile (height, width, 3)."""
        pixels = torch.from_numpy(np.ascontiguousarray(tile))[None].to(self._encoder.device)
        with torch.inference_mode():
            return [found[0].float().cpu().numpy() for found in self._encoder.maps(pixels)]


class Batches:
    """Calls a function batch by batch, and halves the batch when the device is out of memory.

    Parameters
    ----------
    task
        What is done, for the message.
    at_once
        Rows of the first batches; None is all.
    """

    def __init__(self, task: str, at_once: int | None) -> None:
        self._task = task
        self._at_once = at_once

    def __call__(self, function: Callable[[Tensor], Tensor], values: np.ndarray, device: torch.device) -> np.ndarray:
        """Return what `function` makes of the rows of `values`, (n_rows, ...) float32 of (n_rows, ...).

        Raises
        ------
        torch.OutOfMemoryError
            A single row does not fit.
        """
        parts: list[np.ndarray] = []
        start, n_rows = 0, len(values)
        while start < n_rows or not parts:
            stop = min(n_rows, start + (self._at_once or max(n_rows, 1)))
            part = self._try(function, torch.from_numpy(np.ascontiguousarray(values[start:stop])), device)
            if part is None:
                self._halve(stop - start, device)
                continue
            parts.append(part)
            start = stop
        return np.concatenate(parts)

    def _try(self, function: Callable[[Tensor], Tensor], rows: Tensor, device: torch.device) -> np.ndarray | None:
        """Return what `function` makes of the rows, (n_rows, ...); None where the device has too little memory."""
        try:
            with torch.inference_mode():
                return np.asarray(function(rows.to(device)).float().cpu().numpy())
        except torch.OutOfMemoryError as error:
            if len(rows) > 1:
                return None
            msg = (
                f"{device} has not enough memory for {self._task}, not even for one spot. Free it, choose a smaller "
                "encoder, or set sthisto.settings.device = 'cpu'."
            )
            raise torch.OutOfMemoryError(msg) from error

    def _halve(self, n_rows: int, device: torch.device) -> None:
        self._at_once = n_rows // 2
        logger.warning(
            "%s is out of memory when %s takes %d spots at once: going on with %d.",
            device,
            self._task,
            n_rows,
            self._at_once,
        )
        if device.type == "cuda":
            torch.cuda.empty_cache()
