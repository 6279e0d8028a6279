"""The libraries of an AnnData: what `uns` knows of each, and which rows of the table are its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sthisto._sdata.columns import as_text, read_names, read_numbers
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key, listed

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

DEFAULT_LIBRARY = "section"
_PARTS = ("images", "scalefactors")


@dataclass(frozen=True)
class Library:
    """One library of `uns["spatial"]` and its rows of the table, (n_spots,)."""

    name: str
    rows: np.ndarray
    images: Mapping[str, Any]
    scalefactors: Mapping[str, Any]

    def number(self, key: str) -> float | None:
        """Return a scale factor, None where it is missing or no positive number."""
        stored = np.ravel(np.asarray(self.scalefactors.get(key), dtype=object))
        value = float(read_numbers(stored)[0]) if len(stored) == 1 else float("nan")
        return value if value > 0 else None


def find_libraries(
    adata: AnnData,
    *,
    spatial_key: str,
    library_key: str | None,
    library_id: Any,
    has_image: Sequence[str],
) -> list[Library]:
    """Return the libraries to convert; names are compared as text, whatever type they are of.

    Parameters
    ----------
    adata, spatial_key, library_key, library_id
        See `from_anndata`.
    has_image
        Libraries that the caller has an image of.

    Raises
    ------
    KeyError
        A library or a column does not exist.
    ValueError
        There are several libraries, and nothing tells which rows are whose.
    """
    known = _entries(adata.uns.get(spatial_key))
    several = isinstance(library_id, Sequence | np.ndarray) and not isinstance(library_id, str | bytes)
    wanted = None if library_id is None else [as_text(one) for one in (library_id if several else [library_id])]
    names = _names_of_rows(adata, library_key, known, wanted)
    if names is None:
        rows = {_only_library(adata, known, wanted, spatial_key): np.arange(adata.n_obs)}
    else:
        where = f"obs[{library_key!r}]" if library_key is not None else f"uns[{spatial_key!r}] and obs"
        chosen = _chosen(names, known, wanted, has_image, where, spatial_key)
        rows = {name: np.flatnonzero(names == (own or name)) for name, own in chosen.items()}
    return [Library(name, own, *(known.get(name, {}).get(part) or {} for part in _PARTS)) for name, own in rows.items()]


def _entries(spatial: Any) -> dict[str, Mapping[str, Any]]:
    """Return the libraries by name; flags beside them, such as CELLxGENE's "is_single", are none."""
    if not isinstance(spatial, Mapping):
        return {}
    if any(isinstance(spatial.get(part), Mapping) for part in _PARTS):
        return {DEFAULT_LIBRARY: spatial}
    return {as_text(name): entry for name, entry in spatial.items() if isinstance(entry, Mapping)}


def _names_of_rows(
    adata: AnnData, library_key: str | None, known: Mapping[str, Any], wanted: Sequence[str] | None
) -> np.ndarray | None:
    """Return (n_obs,) each row's library as text, None where no column has to say it or none does.

    Without `library_key`, a column counts that holds nothing but names of libraries, where a single library is left
    in it, as after a subset, or a single one is wanted.
    """
    if library_key is not None:
        check_key(library_key, adata.obs.columns, name="library_key", where="the columns of obs")
        return read_names(adata.obs[library_key])
    if len(known) < 2:
        return None
    for column in adata.obs.columns:
        names = read_names(adata.obs[column])
        present = set(names) - {None}
        if present and present <= set(known) and (len(present) == 1 or (wanted is not None and len(wanted) == 1)):
            logger.info("obs[%r] names the library of each spot: %s.", column, listed(sorted(present)))
            return names
    return None


def _only_library(adata: AnnData, known: Mapping[str, Any], wanted: Sequence[str] | None, spatial_key: str) -> str:
    names = list(wanted or known or [DEFAULT_LIBRARY])
    if known:
        for name in names:
            check_key(name, known, name="library_id", where=f"uns[{spatial_key!r}]")
    if len(names) > 1:
        msg = (
            f"There are several libraries, {listed(names)}. Pass library_key=…, the column of obs that names each "
            f"spot's. Columns: {listed(adata.obs.columns)}."
        )
        raise ValueError(msg)
    if len(known) > 1:
        logger.warning(
            "uns[%r] holds the libraries %s, and no column of obs names them: all spots are taken for those of %r.",
            spatial_key,
            listed(known),
            names[0],
        )
    return names[0]


def _chosen(
    names: np.ndarray,
    known: Mapping[str, Any],
    wanted: Sequence[str] | None,
    has_image: Sequence[str],
    where: str,
    spatial_key: str,
) -> dict[str, str | None]:
    """Return the libraries to convert, each with its name in the column where that is another one.

    `names` has the library of each row, (n_obs,), None where a row has none.
    """
    present = list(dict.fromkeys(name for name in names if name is not None))
    if unnamed := int(sum(name is None for name in names)):
        logger.warning("%d of %d spots have no library in %s: they are left out.", unnamed, len(names), where)
    if wanted is not None:
        for name in wanted:
            check_key(name, present, name="library_id", where=where)
        return dict.fromkeys(wanted)
    described = [name for name in (*known, *has_image) if name in present]
    if not known or not present:
        described = present
    if not described and len(known) == len(present) == 1:
        return {next(iter(known)): present[0]}
    if not described:
        msg = (
            f"{where} names {listed(present)}, and uns[{spatial_key!r}] holds {listed(known)}: they have no library in "
            "common. Rename one of them, or pass another library_key=…"
        )
        raise KeyError(msg)
    if rest := [name for name in present if name not in described]:
        logger.warning(
            "Libraries %s of %s have no entry in uns[%r] and no image: their %d spots are left out. Pass image={…} "
            "with an image of each to keep them.",
            listed(rest),
            where,
            spatial_key,
            np.isin(names.astype(str), rest).sum(),
        )
    return dict.fromkeys(described)


def element_name(library: str) -> str:
    """Return a name that SpatialData takes; letters of any script are kept."""
    return re.sub(r"[^\w.-]", "_", library).lstrip("_") or DEFAULT_LIBRARY


def check_array_positions(obs: pd.DataFrame, what: str) -> None:
    """Raise ValueError where two spots have one position of an array: these are several samples.

    Parameters
    ----------
    obs
        Rows that lie on one image.
    what
        The library, as it is named in the error.
    """
    if not {"array_row", "array_col"} <= set(obs.columns):
        return
    position = np.column_stack([read_numbers(obs[name]) for name in ("array_row", "array_col")])
    whole = np.isfinite(position).all(axis=1) & (position == np.rint(position)).all(axis=1)
    repeated = int(whole.sum()) - len(np.unique(position[whole], axis=0))
    if repeated:
        msg = (
            f"{repeated} spots of {what} have an array position that another spot has: these are several samples on "
            "one image. Pass library_key=…, the column of obs that names each spot's sample, and image={…} with an "
            f"image of each. Columns: {listed(obs.columns)}."
        )
        raise ValueError(msg)
