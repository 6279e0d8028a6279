"""Coordinates of spots in `obsm`: x and y by the names of columns, where these have names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from sthisto._sdata.columns import read_numbers
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key, listed

if TYPE_CHECKING:
    from anndata import AnnData

_X: Final = frozenset({"x", "col", "column", "cols", "imagecol", "pxlcol", "pixelx", "spatialx", "xcentroid", "width"})
_Y: Final = frozenset({"y", "row", "rows", "imagerow", "pxlrow", "pixely", "spatialy", "ycentroid", "height"})


def read_coordinates(adata: AnnData, spatial_key: str) -> np.ndarray:
    """Return (n_spots, 2) x and y, NaN where a spot has none.

    Columns that are named for rows and columns, or for x and y, are taken by their names; others by their positions.

    Raises
    ------
    KeyError
        There are no coordinates.
    ValueError
        There are less than two columns, or no spot has coordinates.
    """
    check_key(spatial_key, adata.obsm, name="spatial_key", where="obsm")
    stored = adata.obsm[spatial_key]
    if isinstance(stored, pd.DataFrame):
        columns = [stored.iloc[:, i] for i in _x_and_y(list(stored.columns), spatial_key)]
    else:
        columns = list(_dense(stored).T[:2])
    if len(columns) < 2:
        msg = f"obsm[{spatial_key!r}] has {len(columns)} column(s); expected x and y of the spots."
        raise ValueError(msg)
    xy = np.column_stack([read_numbers(column) for column in columns])
    xy[~np.isfinite(xy).all(axis=1)] = np.nan
    lost = np.isnan(xy[:, 0])
    if lost.all():
        msg = f"None of {len(xy)} spots has coordinates in obsm[{spatial_key!r}]: nothing to place on the image."
        raise ValueError(msg)
    if lost.any():
        logger.warning(
            "%d of %d spots have no coordinates in obsm[%r]: they are left out.", lost.sum(), len(xy), spatial_key
        )
    return xy


def _dense(stored: Any) -> np.ndarray:
    array = stored.toarray() if hasattr(stored, "toarray") else np.asarray(stored)
    return array.reshape(len(array), -1)


def _x_and_y(names: Sequence[Any], spatial_key: str) -> list[int]:
    """Return the positions of x and y among named columns."""
    for x_words, y_words in ((frozenset("x"), frozenset("y")), (_X, _Y)):
        found = [
            [i for i, name in enumerate(names) if _is_named(name, words) and "array" not in _words(name)]
            for words in (x_words, y_words)
        ]
        if all(len(positions) == 1 for positions in found):
            return [positions[0] for positions in found]
    if not all(str(name).isdigit() for name in names):
        logger.warning(
            "The columns of obsm[%r], %s, do not say which is x and which y: the first is taken for x, the second for "
            "y.",
            spatial_key,
            listed(map(str, names)),
        )
    return list(range(min(len(names), 2)))


def _words(name: Any) -> list[str]:
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", str(name)).lower()
    return [word for word in re.split(r"[^a-z]+", spaced) if word]


def _is_named(name: Any, words: frozenset[str]) -> bool:
    return not words.isdisjoint(_words(name))
