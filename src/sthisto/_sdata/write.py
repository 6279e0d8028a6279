"""Atomic updates of tables: results are written to the matching rows, all of them or none."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from spatialdata.models import TableModel

from sthisto._sdata.tables import gene_positions
from sthisto._utils.validate import check_new_name

if TYPE_CHECKING:
    from anndata import AnnData

    from sthisto._sdata.sections import Section

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

    Raises
    ------
    ValueError
        A name cannot be stored, or something that the table needs would be overwritten; nothing is written.
    """
    from anndata import ImplicitModificationWarning

    updates = list(updates)
    for update in updates:
        if update.value is not ABSENT and update.part not in ("tables", "shapes", "uns"):
            check_slot(update.table, update.part, update.key)
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


def check_slot(table: AnnData, part: str, key: str, *, argument: str = "key_added") -> None:
    """Raise ValueError for a slot that must not be written: every name that sthisto writes to a table passes here.

    Parameters
    ----------
    table
        The table that is written to.
    part, key
        The slot, `getattr(table, part)[key]`.
    argument
        The argument to change.
    """
    check_new_name(key, name=argument)
    attrs = table.uns.get(TableModel.ATTRS_KEY, {})
    needed = {attrs.get(TableModel.REGION_KEY_KEY): "links the spots to their region"}
    needed |= {attrs.get(TableModel.INSTANCE_KEY): "links the spots to their shapes"}
    needed |= dict.fromkeys(("in_tissue", "array_row", "array_col"), "says where the spots lie")
    if part == "obs" and key in needed:
        msg = f"obs[{key!r}] {needed[key]} and must not be overwritten. Pass another {argument}=…"
        raise ValueError(msg)
    existing = getattr(table, part)
    if part == "uns" and key in existing and not _is_ours(existing[key]):
        msg = f"uns[{key!r}] holds something that sthisto did not write. Delete it, or pass another {argument}=…"
        raise ValueError(msg)
    alike = [name for name in existing if isinstance(name, str) and name != key and name.lower() == key.lower()]
    if alike:
        msg = (
            f"{part}[{key!r}] differs from {part}[{alike[0]!r}] in upper and lower case alone, which SpatialData does "
            f"not store. Pass another {argument}=…"
        )
        raise ValueError(msg)


def _is_ours(value: Any) -> bool:
    """Return whether a value of `uns` is a record of sthisto's."""
    return isinstance(value, Mapping) and ("method" in value or "rule" in value)


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
    """Put (n_genes,) values into the column `slot` of every table's `var`: False, NaN or "" for the other genes.

    Strings become a categorical column.
    """
    updates = []
    for table, _ in _by_table(sections):
        columns = gene_positions(table, genes, gene_symbols)
        if values.dtype.kind in "OUT":
            full = np.full(table.n_vars, "", dtype=object)
        else:
            full = np.zeros(table.n_vars, dtype=bool) if values.dtype == bool else np.full(table.n_vars, np.nan)
        full[columns] = values
        updates.append(Update(table, "var", slot, pd.Categorical(full) if full.dtype == object else full))
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
