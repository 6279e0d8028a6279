"""New tables: of predictions, where a layer over all genes would be wasteful, and of some spots alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
import spatialdata as sd
from anndata import AnnData
from spatialdata.models import TableModel

from sthisto._sdata.expression import looks_like_counts
from sthisto._sdata.new_shapes import check_no_element
from sthisto._sdata.slots import FEATURES, GENES_GIVEN, SELECTED_GENES, SPATIAL, SPLIT
from sthisto._sdata.tables import read_matrix, selection_rule
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
    """Raise ValueError when one of the SpatialData has a table or another element of that name."""
    for one in cohort:
        if key in one.tables:
            msg = f"There is a table {key!r} already. Delete it, or choose another new_table_key."
            raise ValueError(msg)
        check_no_element(one, [key], argument="new_table_key")


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
    place = {id(section): i for i, section in enumerate(sections)}
    for one, members in members_of(cohort, sections):
        at = [place[id(section)] for section in members]
        table = _table(members, [values[i] for i in at], genes)
        updates.append(Update(one, "tables", key, table))
        ends = np.cumsum([len(section) for section in members])
        for i, section, end in zip(at, members, ends, strict=True):
            moved[i] = replace(section, table=table, table_key=key, rows=np.arange(end - len(section), end))
    return updates, moved


def members_of(cohort: Sequence[SpatialData], sections: Sequence[Section]) -> list[tuple[SpatialData, list[Section]]]:
    """Return each SpatialData that has sections among those given, with these in their order."""
    by_sdata = [
        (one, [section for section in sections if any(section.table is table for table in one.tables.values())])
        for one in cohort
    ]
    return [(one, members) for one, members in by_sdata if members]


def table_of_spots(
    sections: Sequence[Section], spots: Sequence[np.ndarray], *, role: str | None, features: Sequence[str] = ()
) -> tuple[AnnData, np.ndarray]:
    """Return a table of some spots of sections that share one, its X all zeros, and their rows there, (n,).

    Columns of ``obs`` and ``var`` are those of the table, without a choice of genes that other spots took part in;
    layers, ``uns`` and ``obsm`` are left out, but for given features.

    Parameters
    ----------
    sections
        Sections of one table.
    spots
        (n_spots,) bool for each section.
    role
        Value of ``obs["sthisto_split"]``; None leaves the column out.
    features
        Slots of ``obsm`` with features that a method is fitted on. Those that the table lacks are left out.
    """
    source = sections[0].table
    rows = np.concatenate([section.rows[chosen] for section, chosen in zip(sections, spots, strict=True)])
    attrs = dict(source.uns[TableModel.ATTRS_KEY]) | {TableModel.REGION_KEY: [section.region for section in sections]}
    obs = source.obs.iloc[rows].drop(columns=SPLIT, errors="ignore").copy()
    region_key = attrs[TableModel.REGION_KEY_KEY]
    obs[region_key] = obs[region_key].astype(str).astype("category")
    if role is not None:
        obs[SPLIT] = role
    outdated = [] if selection_rule(source) == GENES_GIVEN else [SELECTED_GENES]
    var = source.var.drop(columns=outdated, errors="ignore").copy()
    blank = sp.csr_matrix((len(rows), source.n_vars), dtype=np.float32)
    uns = {TableModel.ATTRS_KEY: attrs}
    if features and FEATURES in source.uns:
        uns[FEATURES] = dict(source.uns[FEATURES])
    obsm = {key: source.obsm[key][rows] for key in features if key in source.obsm}
    return AnnData(blank, obs=obs, var=var, obsm=obsm, uns=uns), rows


def copy_expression(source: AnnData, rows: np.ndarray, table: AnnData, layers: Sequence[str]) -> None:
    """Put X and some layers of the rows, (n,), of `source` into `table`, whose rows they are."""
    if source.X is not None:
        table.X = source.X[rows]
    for layer in layers:
        table.layers[layer] = read_matrix(source, layer)[rows]


def copy_features(source: AnnData, rows: np.ndarray, table: AnnData, keys: Sequence[str]) -> None:
    """Put some slots of ``obsm`` of the rows, (n,), of `source` into `table`, with the records of features in them."""
    for key in keys:
        if key in source.obsm:
            stored = source.obsm[key]
            table.obsm[key] = stored.iloc[rows] if isinstance(stored, pd.DataFrame) else stored[rows]
    about = {key: value for key, value in source.uns.get(FEATURES, {}).items() if key in keys}
    if about:
        table.uns[FEATURES] = {**table.uns.get(FEATURES, {}), **about}


def thin_counts(table: AnnData, layer: str | None, share: float, rng: np.random.Generator) -> None:
    """Keep a share of the counts of a table, drawn binomially.

    Parameters
    ----------
    layer
        Layer of `table` with the counts. None: X.
    share
        Probability with which each count is kept.

    Raises
    ------
    ValueError
        The values are no counts.
    """
    counts = sp.csr_matrix(table.X if layer is None else table.layers[layer])
    if not looks_like_counts(counts):
        msg = (
            f"{'X' if layer is None else f'Layer {layer!r}'} holds no raw counts, which cannot be thinned. Pass layer=…"
        )
        raise ValueError(msg)
    counts.data = rng.binomial(counts.data.astype(np.int64), share).astype(np.float32)
    counts.eliminate_zeros()
    if layer is None:
        table.X = counts
    else:
        table.layers[layer] = counts


def with_table(sdata: SpatialData, key: str, table: AnnData) -> SpatialData:
    """Return a SpatialData with the same images, labels and shapes, and `table` as its only table."""
    return sd.SpatialData(
        images=dict(sdata.images),
        labels=dict(sdata.labels),
        shapes=dict(sdata.shapes),
        tables={key: table},
        attrs=dict(sdata.attrs),
    )


def _table(sections: Sequence[Section], values: Sequence[np.ndarray], genes: Sequence[str]) -> AnnData:
    attrs = sections[0].table.uns[TableModel.ATTRS_KEY]
    region_key, instance_key = attrs[TableModel.REGION_KEY_KEY], attrs[TableModel.INSTANCE_KEY]
    obs = pd.concat([section.table.obs.iloc[section.rows][[region_key, instance_key]] for section in sections])
    regions = [section.region for section in sections]
    obs[region_key] = pd.Categorical(obs[region_key].astype(str), categories=regions)
    x = np.concatenate(values).astype(np.float32)
    centers = np.concatenate([section.centers for section in sections])
    var = pd.DataFrame(index=pd.Index(list(genes), dtype=str))
    table = AnnData(x, obs=obs, var=var, obsm={SPATIAL: centers})
    return TableModel.parse(table, region=regions, region_key=region_key, instance_key=instance_key)


def has_regions(sdata: SpatialData) -> bool:
    """Return whether a table annotates regions."""
    return any(TableModel.ATTRS_KEY in table.uns for table in sdata.tables.values())


def with_predictions(sdata: SpatialData, key: str, *, with_image: bool) -> tuple[SpatialData, int]:
    """Return a SpatialData with a table, its regions, and the images where they are wanted; and its number of spots."""
    table = sdata.tables[key]
    regions = table.uns[TableModel.ATTRS_KEY][TableModel.REGION_KEY]
    names = [regions] if isinstance(regions, str) else list(regions)
    kept = sd.SpatialData(
        images=dict(sdata.images) if with_image else {},
        labels={name: sdata.labels[name] for name in names if name in sdata.labels},
        shapes={name: sdata.shapes[name] for name in names if name in sdata.shapes},
        tables={key: table},
        attrs=dict(sdata.attrs),
    )
    return kept, int(table.n_obs)
