"""Digests of arrays and of lists of names: to recognize the same thing again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b

import numpy as np


def digest_arrays(arrays: Mapping[str, np.ndarray], *labels: str) -> str:
    """Return a digest of named arrays of any shape, whatever their order, and of labels."""
    state = blake2b(digest_size=16)
    for label in labels:
        state.update(label.encode() + b"\0")
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        state.update(f"{name}|{array.dtype}|{array.shape}".encode())
        state.update(array.data if array.size else b"")
    return state.hexdigest()


def digest_names(names: Iterable[str]) -> str:
    """Return a digest of names in their order."""
    return blake2b("\0".join(names).encode(), digest_size=16).hexdigest()
