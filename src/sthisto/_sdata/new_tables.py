"""A new table for predictions, where a layer over all genes of the user's table would be wasteful."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata.models import TableModel

from sthisto._sdata.write import Update
from sthisto._utils.logging import logger
from sthisto._utils.memory import available_memory

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sthisto._sdata.sections import Section

_MOST_OF_FREE = 0.8
_LARGE_BYTES = 2**29
_FEW_OF_ALL = 0.1


def check_no_table(cohort: Sequence[SpatialData], key: str) -> None:
    """Raise ValueError when one of the SpatialData has a table of that name."""
    for one in cohort:
        if key in one.tables:
            msg = f"There is a table {key!r} already. Delete it, or choose another new_table_key."
            raise ValueError(msg)


def check_layer_memory(sections: Sequence[Section], n_genes: int) -> None:
    """Raise MemoryError where dense layers over all genes of the tables would not fit, before anything is computed.

    A layer that is large and mostly NaN is warned of.

    Parameters
    ----------
    sections
        Their tables would get the layers: the prediction, and its spread where the method has one.
    n_genes
        Genes that are modeled.
    """
    tables = {id(section.table): section.table for section in sections}.values()
    size = sum(table.n_obs * table.n_vars for table in tables) * np.dtype(np.float32).itemsize
    shapes = ", ".join(f"{table.n_obs:,} x {table.n_vars:,}" for table in tables)
    about = (
        f"The prediction of {n_genes} genes as a layer over all genes of the table ({shapes}) takes "
        f"{size / 2**30:,.1f} GiB"
    )
    remedy = "Pass new_table_key=… to write a table of the modeled genes alone."
    free = available_memory()
    if free is not None and size > _MOST_OF_FREE * free:
        msg = f"{about}, and {free / 2**30:,.1f} GiB are free. {remedy}"
        raise MemoryError(msg)
    if size > _LARGE_BYTES and n_genes < _FEW_OF_ALL * max(table.n_vars for table in tables):
        logger.warning("%s, nearly all of it NaN. %s", about, remedy)


def new_tables(
    cohort: Sequence[SpatialData],
    sections: Sequence[Section],
    values: Sequence[np.ndarray],
    genes: Sequence[str],
    key: str,
) -> tuple[list[Update], list[Section]]:
    """Make one table whose X holds `values` for each SpatialData that has sections, and move these into it.

    Parameters
    ----------
    cohort
        Those that `sections` come from.
    values
        (n_spots, n_genes) for each section.
    genes
        Names of the new table's variables.
    key
        Name of the new tables.

    Returns
    -------
    Updates that put the tables into their SpatialData, and the sections with their rows in the new tables.
    """
    updates, moved = [], list(sections)
    for one in cohort:
        members = [
            i for i, section in enumerate(sections) if any(section.table is table for table in one.tables.values())
        ]
        if not members:
            continue
        table = _table([sections[i] for i in members], [values[i] for i in members], genes)
        updates.append(Update(one, "tables", key, table))
        start = 0
        for i in members:
            rows = np.arange(start, start + len(sections[i]))
            moved[i] = replace(sections[i], table=table, table_key=key, rows=rows)
            start += len(rows)
    return updates, moved


def _table(sections: Sequence[Section], values: Sequence[np.ndarray], genes: Sequence[str]) -> AnnData:
    attrs = sections[0].table.uns[TableModel.ATTRS_KEY]
    region_key, instance_key = attrs[TableModel.REGION_KEY_KEY], attrs[TableModel.INSTANCE_KEY]
    obs = pd.concat([section.table.obs.iloc[section.rows][[region_key, instance_key]] for section in sections])
    regions = [section.region for section in sections]
    obs[region_key] = pd.Categorical(obs[region_key].astype(str), categories=regions)
    x = np.concatenate(values).astype(np.float32)
    table = AnnData(x, obs=obs, var=pd.DataFrame(index=pd.Index(list(genes), dtype=str)))
    return TableModel.parse(table, region=regions, region_key=region_key, instance_key=instance_key)
