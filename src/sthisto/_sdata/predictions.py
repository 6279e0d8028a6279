"""Where a prediction stands in a table: genes in a layer, what is predicted in place of genes in ``obsm``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sthisto._sdata import slots
from sthisto._sdata.record import read_record
from sthisto._sdata.tables import gene_positions, layer_names, modeled_genes, read_matrix
from sthisto._sdata.write import Update, layer_updates, obsm_updates
from sthisto._utils.validate import listed

if TYPE_CHECKING:
    from anndata import AnnData

    from sthisto._sdata.sections import Section


def predicted_names(table: AnnData, key: str, gene_symbols: str | None = None) -> list[str]:
    """Return the names of what is predicted under a key: genes in the order of the table, or what takes their place."""
    if _is_in_obsm(table, slots.prediction(key)):
        predicted = np.isfinite(np.asarray(table.obsm[slots.prediction(key)])).any(axis=0)
        return [name for name, is_one in zip(_targets(table, key), predicted, strict=True) if is_one]
    return modeled_genes(table, key, gene_symbols)


def predicted_values(
    table: AnnData, key: str, slot: str, names: Sequence[str], *, rows: np.ndarray, gene_symbols: str | None = None
) -> np.ndarray:
    """Return predicted values of some rows of a table, (n_rows, n_names) float32.

    Parameters
    ----------
    key
        Key that was predicted under.
    slot
        The prediction or its spread, by its name in `slots`.
    names
        Genes, or what takes their place.

    Raises
    ------
    KeyError
        A name is not in the table.
    """
    if _is_in_obsm(table, slot):
        known = _targets(table, key)
        if missing := [name for name in names if name not in known]:
            msg = f"{listed(missing)} not predicted under key_added={key!r}, which has {listed(known)}."
            raise KeyError(msg)
        return np.asarray(table.obsm[slot][rows][:, [known.index(name) for name in names]], dtype=np.float32)
    columns = gene_positions(table, names, gene_symbols)
    values: Any = read_matrix(table, slot)[rows][:, columns]
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float32)


def has_spread(table: AnnData, key: str) -> bool:
    """Return whether the prediction under a key has a spread."""
    slot = slots.prediction_sd(key)
    return slot in layer_names(table) or _is_in_obsm(table, slot)


def prediction_updates(
    sections: Sequence[Section],
    slot: str,
    values: Sequence[np.ndarray],
    *,
    names: Sequence[str],
    gene_symbols: str | None,
    in_obsm: bool,
) -> list[Update]:
    """Return the updates that write (n_spots, n_names) values of each section to a layer, or to ``obsm``."""
    if in_obsm:
        return obsm_updates(sections, slot, values)
    return layer_updates(sections, slot, values, genes=names, gene_symbols=gene_symbols)


def _is_in_obsm(table: AnnData, slot: str) -> bool:
    return slot in table.obsm and slot not in layer_names(table)


def _targets(table: AnnData, key: str) -> list[str]:
    scale = read_record(table, key).normalization
    return [] if scale is None else list(scale.names)
