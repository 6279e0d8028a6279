"""What recognizes the pixels of an image level: a digest of them, found without reading them where that is possible."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import dask.array as da
import numpy as np

from sthisto._images.pyramid import Level

OF_CONTENT: Final = "sthisto-content-"
"""What the key of a dask task begins with that holds a digest of everything its result depends on."""
_ROWS: Final = 1024


def pixel_digest(level: Level) -> str:
    """Return a digest of all pixels of a level; they are read where `stored_digest` finds none.

    The same pixels may have two digests, read and found: different pixels never have the same.
    """
    known = stored_digest(level)
    if known:
        return known
    state = blake2b(f"{level.height}x{level.width}".encode(), digest_size=16)
    for top in range(0, level.height, _ROWS):
        state.update(level.read(top, min(top + _ROWS, level.height), 0, level.width).data)
    return state.hexdigest()


def stored_digest(level: Level) -> str:
    """Return a digest of what a level's dask array is computed from; "" where only its pixels could tell.

    It is found where the array comes from numpy arrays, or from tasks whose keys begin with `OF_CONTENT`. The name of
    the array stands for what is done with them: dask derives it from the operations.
    """
    if not isinstance(level.array, da.Array):
        return ""
    graph = level.array.dask
    state = blake2b(f"{level.array.name}|{level.brightness}".encode(), digest_size=16)
    for name in sorted(layer for layer, needed in graph.dependencies.items() if not needed):
        if str(name).startswith(OF_CONTENT):
            continue
        values = [_value(task) for _, task in sorted(graph.layers[name].items(), key=lambda item: str(item[0]))]
        if not values or not all(isinstance(value, np.ndarray) for value in values):
            return ""
        for value in values:
            state.update(f"{value.dtype}{value.shape}".encode())
            state.update(np.ascontiguousarray(value).data)
    return state.hexdigest()


def _value(task: Any) -> Any:
    """Return the data of a task that holds nothing else."""
    return getattr(task, "value", task)
