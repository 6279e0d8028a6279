"""Tables of a SpatialData: expression out of the rows of a section, results back into them. All that writes to them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import scipy.sparse as sp

from sthisto._constants import GENES_GIVEN, SELECTED_GENES, modelled_gene
from sthisto._validate import check_key, listed

if TYPE_CHECKING:
    from anndata import AnnData

    from sthisto._sections import Section


def selection_rule(table: AnnData) -> str:
    """Return the rule by which `pp.select_genes` chose; a column that somebody else wrote is a panel."""
    return str(table.uns.get(SELECTED_GENES, {}).get("rule", GENES_GIVEN))


def gene_names(table: AnnData, gene_symbols: str | None = None) -> pd.Index:
    """Return the genes of a table, from `var_names` or the column `gene_symbols` of `var`.

    Raises
    ------
    ValueError
        A name repeats: a prediction could not be written to one of them.
    """
    if gene_symbols is None:
        names = pd.Index(table.var_names)
    else:
        check_key(gene_symbols, table.var.columns, name="gene_symbols", where="the columns of var")
        names = pd.Index(table.var[gene_symbols].astype(str))
    if not names.is_unique:
        repeated = listed(names[names.duplicated()].unique())
        if gene_symbols is None:
            remedy = "Make them unique with table.var_names_make_unique(), or pass gene_symbols=… to match by a column"
        else:
            remedy = "Make that column unique with anndata.utils.make_index_unique, or match by another column"
        msg = f"Gene names repeat in {gene_symbols or 'var_names'!r}: {repeated}. {remedy} of var."
        raise ValueError(msg)
    return names


def gene_positions(table: AnnData, genes: Sequence[str], gene_symbols: str | None = None) -> np.ndarray:
    """Return the column of each gene in the table; raise KeyError when one is missing."""
    names = gene_names(table, gene_symbols)
    position = names.get_indexer(pd.Index(list(genes)))
    if (position < 0).any():
        missing = [gene for gene, at in zip(genes, position, strict=True) if at < 0]
        msg = (
            f"{len(missing)} of {len(position)} genes are not in the table: {listed(missing)}. The table has "
            f"{len(names)} genes: {listed(names, 5)}. Pass gene_symbols=… if their names stand in a column of var."
        )
        raise KeyError(msg)
    return position


def modelled_genes(table: AnnData, key: str, gene_symbols: str | None = None) -> list[str]:
    """Return the genes that a model predicts, in the order of the table."""
    column = modelled_gene(key)
    check_key(column, table.var.columns, name="key_added", where="the columns of var", remedy="Call sth.tl.fit first.")
    return gene_names(table, gene_symbols)[table.var[column].to_numpy(dtype=bool)].tolist()


def layer_names(table: AnnData) -> list[str]:
    """Return the names of a table's layers; anndata 0.13 lists X among them as None."""
    return [name for name in table.layers if name is not None]


def read_matrix(table: AnnData, layer: str | None) -> Any:
    """Return X or a layer, dense or sparse, (n_obs, n_vars).

    Raises
    ------
    KeyError
        There is no such layer, or the table has no X.
    """
    if layer is not None:
        check_key(layer, layer_names(table), name="layer", where="the layers of the table")
        return table.layers[layer]
    if table.X is None:
        msg = f"The table has no X. Pass layer=…; its layers: {listed(layer_names(table))}."
        raise KeyError(msg)
    return table.X


def read_rows(section: Section, layer: str | None, spots: np.ndarray | None = None) -> sp.csr_array:
    """Return the expression of a section's spots over all genes of its table, (n_spots, n_vars).

    `spots` are the positions in the section of those to read; None is all.
    """
    rows = section.rows if spots is None else section.rows[spots]
    return sp.csr_array(read_matrix(section.table, layer)[rows])


ABSENT: Final = object()
"""Value of an `Update` that removes the slot."""


@dataclass(frozen=True)
class Update:
    """A value that will be written to one slot of a table: `getattr(table, part)[key] = value`."""

    table: AnnData
    part: str
    key: str
    value: Any

    def write(self) -> None:
        """Write the value, or remove the slot where it is `ABSENT`."""
        slots = getattr(self.table, self.part)
        if self.value is not ABSENT:
            slots[self.key] = self.value
        elif self.key in slots:
            del slots[self.key]


def apply(updates: Iterable[Update]) -> None:
    """Write all updates, or none: when one fails, the slots written before it are put back.

    A table that is a view becomes a table of its own; its parent stays as it is.
    """
    from anndata import ImplicitModificationWarning

    undo: list[Update] = []
    with warnings.catch_warnings(action="ignore", category=ImplicitModificationWarning):
        try:
            for update in updates:
                undo.append(replace(update, value=getattr(update.table, update.part).get(update.key, ABSENT)))
                update.write()
        except BaseException:
            for previous in reversed(undo):
                previous.write()
            raise


def removals(sections: Sequence[Section], part: str, slots: Iterable[str]) -> list[Update]:
    """Remove what an earlier result left in some slots of every table."""
    return [Update(table, part, slot, ABSENT) for table, _ in _by_table(sections) for slot in slots]


def obsm_updates(sections: Sequence[Section], slot: str, values: Sequence[np.ndarray]) -> list[Update]:
    """Put (n_spots, n) values of each section into their rows; NaN in all others."""
    return [Update(table, "obsm", slot, full) for table, full in _scatter(sections, values)]


def obs_updates(sections: Sequence[Section], slot: str, values: Sequence[np.ndarray]) -> list[Update]:
    """Put (n_spots,) numbers, booleans or strings of each section into their rows; NaN or False in all others.

    Strings become a categorical column.
    """
    kind = np.asarray(values[0]).dtype.kind
    if kind == "b":
        return [Update(table, "obs", slot, full[:, 0] == 1) for table, full in _scatter(sections, values)]
    if kind not in "OUT":
        return [Update(table, "obs", slot, full[:, 0]) for table, full in _scatter(sections, values)]
    updates = []
    for table, members in _by_table(sections):
        full = np.full(table.n_obs, None, dtype=object)
        for i in members:
            full[sections[i].rows] = np.asarray(values[i], dtype=object)
        updates.append(Update(table, "obs", slot, pd.Categorical(full)))
    return updates


def layer_updates(
    sections: Sequence[Section],
    slot: str,
    values: Sequence[np.ndarray],
    *,
    genes: Sequence[str],
    gene_symbols: str | None = None,
) -> list[Update]:
    """Put (n_spots, n_genes) values of each section into their rows and genes; NaN in all others."""
    updates = []
    for table, members in _by_table(sections):
        columns = gene_positions(table, genes, gene_symbols)
        full = np.full(table.shape, np.nan, dtype=np.float32)
        for i in members:
            full[np.ix_(sections[i].rows, columns)] = values[i]
        updates.append(Update(table, "layers", slot, full))
    return updates


def var_updates(
    sections: Sequence[Section],
    slot: str,
    values: np.ndarray,
    *,
    genes: Sequence[str],
    gene_symbols: str | None = None,
) -> list[Update]:
    """Put one value a gene into the column `slot` of every table's `var`: False or NaN for the other genes."""
    updates = []
    for table, _ in _by_table(sections):
        columns = gene_positions(table, genes, gene_symbols)
        full = np.zeros(table.n_vars, dtype=bool) if values.dtype == bool else np.full(table.n_vars, np.nan)
        full[columns] = values
        updates.append(Update(table, "var", slot, full))
    return updates


def uns_updates(sections: Sequence[Section], key: str, record: Mapping[str, Any]) -> list[Update]:
    """Put a record of plain scalars, lists, DataFrames and dictionaries of them into every table's `uns`.

    Lists become arrays, as they are when a table is read back from disk.

    Raises
    ------
    TypeError
        A value is something else, which could not be written to disk.
    """
    return [Update(table, "uns", key, _storable(record, f"uns[{key!r}]")) for table, _ in _by_table(sections)]


def _storable(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _storable(inner, f"{name}[{key!r}]") for key, inner in value.items()}
    if isinstance(value, list | tuple) and not all(isinstance(inner, str) for inner in value):
        value = np.asarray(value)
    elif isinstance(value, list | tuple):
        value = np.asarray(value, dtype=str)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufUT":
        return value.copy()
    if isinstance(value, pd.DataFrame):
        return value.copy()
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        return value
    msg = f"{name} is of {type(value).__name__}, which a table cannot hold on disk."
    raise TypeError(msg)


def _by_table(sections: Sequence[Section]) -> list[tuple[AnnData, list[int]]]:
    members: dict[int, tuple[AnnData, list[int]]] = {}
    for i, section in enumerate(sections):
        members.setdefault(id(section.table), (section.table, []))[1].append(i)
    return list(members.values())


def _scatter(sections: Sequence[Section], values: Sequence[np.ndarray]) -> list[tuple[AnnData, np.ndarray]]:
    scattered = []
    for table, members in _by_table(sections):
        columns = [np.asarray(values[i], dtype=np.float32).reshape(len(sections[i]), -1) for i in members]
        full = np.full((table.n_obs, columns[0].shape[1]), np.nan, dtype=np.float32)
        for i, block in zip(members, columns, strict=True):
            full[sections[i].rows] = block
        scattered.append((table, full))
    return scattered
