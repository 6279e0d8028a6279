"""Labels as instances with centers and areas: summed up once for each element, and kept while it lives."""

from __future__ import annotations

import weakref
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from xarray import DataArray

_MOST_PER_PIXEL: Final = 16
"""Largest label per pixel of a block up to which labels are counted in an array, not sorted."""


class Moments(NamedTuple):
    """Ids (n,), centroids (n, 2) in px and areas (n,) in px of labels; 0, the background, is left out."""

    instances: pd.Index
    xy: np.ndarray
    areas: np.ndarray


_KEPT: dict[int, tuple[Any, str, Moments]] = {}


def label_moments(element: Any, labels: DataArray) -> Moments:
    """Return what an element's labels amount to, read block by block on the first call.

    Parameters
    ----------
    element
        What the result is kept for: the labels, or the multiscale element that they are the finest level of.
    labels
        (height, width) integers.
    """
    version = str(getattr(labels.data, "name", ""))
    kept = _KEPT.get(id(element))
    if kept is not None and kept[0]() is element and version and kept[1] == version:
        return kept[2]
    moments = _moments(labels)
    if version:  # lazy labels don't change under their name, those in memory may
        number = id(element)
        _KEPT[number] = (weakref.ref(element, lambda _: _KEPT.pop(number, None)), version, moments)
    return moments


def _moments(labels: DataArray) -> Moments:
    rows, columns = labels.data.chunks if hasattr(labels.data, "chunks") else ((n,) for n in labels.shape)
    found: list[np.ndarray] = []
    sums: list[np.ndarray] = []
    for bottom, height in zip(np.cumsum(rows), rows, strict=True):
        for right, width in zip(np.cumsum(columns), columns, strict=True):
            block = np.asarray(labels.data[bottom - height : bottom, right - width : right])
            ids, moments = _of_block(block, bottom - height, right - width)
            found.append(ids)
            sums.append(moments)
    instances, place = np.unique(np.concatenate(found), return_inverse=True)
    totals = np.stack([np.bincount(place, np.concatenate(sums)[:, i], len(instances)) for i in range(3)], axis=1)
    return Moments(pd.Index(instances.astype(labels.dtype)), totals[:, 1:] / totals[:, :1], totals[:, 0])


def _of_block(block: np.ndarray, top: int, left: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of a block (n,), and for each its number of pixels and the sums of x and y (n, 3)."""
    y, x = np.nonzero(block)
    values = block[y, x]
    if len(values) and values.min() > 0 and values.max() <= _MOST_PER_PIXEL * block.size:
        place, ids = values.astype(np.int64), None
    else:  # numbers too large to count in an array
        ids, place = np.unique(values, return_inverse=True)
    sums = (
        np.stack(
            [np.bincount(place), np.bincount(place, weights=x + left + 0.5), np.bincount(place, weights=y + top + 0.5)],
            axis=1,
        )
        if len(values)
        else np.empty((0, 3))
    )
    if ids is None:
        ids = np.flatnonzero(sums[:, 0])
        sums = sums[ids]
    return ids, sums
