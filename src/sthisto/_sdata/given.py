"""Predictions that sthisto did not make: a layer, a table or an AnnData, brought to the spots and genes of sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata.models import TableModel

from sthisto._sdata.columns import read_names
from sthisto._sdata.given_genes import match_genes
from sthisto._sdata.given_spots import GivenSpots, match_spots
from sthisto._sdata.new_tables import members_of
from sthisto._sdata.record import has_record, read_record
from sthisto._sdata.sections import Section, as_cohort
from sthisto._sdata.slots import GIVEN_NAME, SPATIAL, prediction, seen
from sthisto._sdata.tables import gene_names, in_memory, layer_names, read_matrix
from sthisto._utils.checks import shown
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key, listed

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sthisto._sdata.expression import Normalization

LAYER: Final = "layer:"
TABLE: Final = "table:"
SECTION_COLUMNS: Final = ("section", "library_id", "region", "sthisto_region", "sample", "sample_id")
"""Columns of ``obs`` that may name the section of a spot."""


@dataclass(frozen=True)
class GivenSection:
    """What somebody predicted for a section.

    Attributes
    ----------
    section
        The section.
    values
        (n_spots, n_genes) float32 for the spots of the section; NaN where nothing was predicted.
    is_seen
        (n_spots,) bool, the spots that a model is known to have been trained on.
    """

    section: Section
    values: np.ndarray
    is_seen: np.ndarray


@dataclass(frozen=True)
class Given:
    """A prediction brought to the spots and genes of sections.

    Attributes
    ----------
    name
        What tables and figures call it.
    genes
        (n_genes,) the predicted genes by ``var_names`` of the measured tables.
    sections
        The sections that it was matched to.
    normalization
        Its scale where sthisto itself wrote it, else None.
    """

    name: str
    genes: list[str]
    sections: list[GivenSection]
    normalization: Normalization | None = None


def read_given(sdata: SpatialData | Sequence[SpatialData], sections: Sequence[Section], given: str | AnnData) -> Given:
    """Bring a prediction to the spots and genes of sections.

    Parameters
    ----------
    sdata
        What the sections were read from.
    given
        "layer:NAME" of their tables, "table:NAME" of the SpatialData, or an AnnData.

    Raises
    ------
    KeyError
        There is no such layer or table, or no gene of it was measured.
    ValueError
        No spot is matched, names repeat, or the spots of several sections can't be told apart.
    TypeError
        It is none of these.
    """
    if isinstance(given, AnnData):
        name = str(given.uns.get(GIVEN_NAME, "prediction"))
        return _matched([(given, list(sections))], name)
    if isinstance(given, str) and given.startswith(LAYER):
        return _of_layer(sections, given.removeprefix(LAYER))
    if not isinstance(given, str) or not given.startswith(TABLE):
        msg = (
            "`prediction` must be 'layer:NAME', 'table:NAME' or an AnnData (sth.io.read_prediction), found "
            f"{shown(given)}."
        )
        raise (ValueError if isinstance(given, str) else TypeError)(msg)
    name = given.removeprefix(TABLE)
    cohort = as_cohort(sdata)
    check_key(name, {key for one in cohort for key in one.tables}, name="prediction", where="the tables")
    pairs = [(one.tables[name], members) for one, members in members_of(cohort, sections) if name in one.tables]
    if any(source is section.table for source, members in pairs for section in members):
        msg = f"prediction='table:{name}' is the measured table itself. Name another table, or a layer of it."
        raise ValueError(msg)
    return _matched(pairs, name)


def _of_layer(sections: Sequence[Section], layer: str) -> Given:
    """Return a layer of the measured tables, its genes those with a value anywhere."""
    tables = list({id(section.table): section.table for section in sections}.values())
    check_key(layer, {name for table in tables for name in layer_names(table)}, name="prediction", where="the layers")
    holding = [section for section in sections if layer in layer_names(section.table)]
    values = {id(section): _dense(read_matrix(section.table, layer), section.rows) for section in holding}
    known = [
        pd.Index(gene_names(section.table)[np.isfinite(values[id(section)]).any(axis=0)])
        for section in holding
        if np.isfinite(values[id(section)]).any()
    ]
    if not known:
        msg = f"Layer {layer!r} holds no value for any spot of the sections."
        raise ValueError(msg)
    genes = _shared(known)
    parts = []
    for section in holding:
        columns = gene_names(section.table).get_indexer(genes)
        parts.append(GivenSection(section, values[id(section)][:, columns], _seen(section, layer)))
    _tell_of_gaps(parts, genes)
    return Given(layer, genes, parts, _own_scale(tables, layer))


def _own_scale(tables: Sequence[AnnData], layer: str) -> Normalization | None:
    """Return the scale of a layer that `tl.predict` wrote."""
    for table in tables:
        for key in table.uns:
            if prediction(str(key)) == layer and has_record(table, str(key)):
                return read_record(table, str(key)).normalization
    return None


def _seen(section: Section, layer: str) -> np.ndarray:
    obs = section.table.obs.iloc[section.rows]
    columns = [seen(str(key)) for key in section.table.uns if prediction(str(key)) == layer]
    known = [obs[column].to_numpy(dtype=bool) for column in columns if column in obs]
    return known[0] if known else np.zeros(len(section), dtype=bool)


def _matched(pairs: Sequence[tuple[AnnData, list[Section]]], name: str) -> Given:
    """Match each AnnData to the genes and spots of its sections."""
    found: list[tuple[Section, pd.Series, np.ndarray, AnnData]] = []
    for source, sections in pairs:
        if source.X is None:
            msg = "The AnnData of the prediction has no X. Put the predicted expression there."
            raise ValueError(msg)
        by_table = {id(section.table): match_genes(section.table, source) for section in sections}
        rows = match_spots(sections, _spots(source, sections))
        found += [(one, by_table[id(one.table)], at, source) for one, at in zip(sections, rows, strict=True)]
    genes = _shared([pd.Index(columns.index) for _, columns, _, _ in found])
    parts = []
    for section, columns, at, source in found:
        values = np.full((len(section), len(genes)), np.nan, dtype=np.float32)
        is_there = at >= 0
        values[is_there] = _dense(source.X, at[is_there])[:, columns[genes].to_numpy()]
        parts.append(GivenSection(section, values, np.zeros(len(section), dtype=bool)))
    with_values = [np.isfinite(part.values).any(axis=0) for part in parts if np.isfinite(part.values).any()]
    if not with_values:
        msg = "The prediction holds no finite value at any spot that was measured."
        raise ValueError(msg)
    kept = np.flatnonzero(np.all(with_values, axis=0))
    if not len(kept):
        msg = "No gene of the prediction has a finite value in every section. Pass the sections one by one."
        raise ValueError(msg)
    if lost := [gene for i, gene in enumerate(genes) if i not in set(kept)]:
        logger.warning(
            "%d of %d predicted genes have no finite value in some section and are left out: %s.",
            len(lost),
            len(genes),
            listed(lost, 5),
        )
    parts = [GivenSection(part.section, part.values[:, kept], part.is_seen) for part in parts]
    _tell_of_empty(parts, [at >= 0 for _, _, at, _ in found])
    _tell_of_gaps(parts, [genes[i] for i in kept])
    return Given(name, [genes[i] for i in kept], parts)


def _tell_of_empty(parts: Sequence[GivenSection], is_there: Sequence[np.ndarray]) -> None:
    """Warn of spots that the prediction names, (n_spots,) bool of each section, without any finite value."""
    for part, named in zip(parts, is_there, strict=True):
        if empty := int((named & ~np.isfinite(part.values).any(axis=1)).sum()):
            logger.warning(
                "%d of the %d predicted spots of section %r hold no finite value and are not scored.",
                empty,
                named.sum(),
                part.section.name,
            )


def _tell_of_gaps(parts: Sequence[GivenSection], genes: Sequence[str]) -> None:
    """Warn of spots that are predicted in part: scores are of the same spots for every gene, so they are left out."""
    for part in parts:
        finite = np.isfinite(part.values)
        partly = finite.any(axis=1) & ~finite.all(axis=1)
        if not partly.any():
            continue
        missing = (~finite[partly]).sum(axis=0)
        most = [f"{genes[i]!r} in {missing[i]}" for i in np.argsort(-missing, kind="stable")[:3] if missing[i]]
        logger.warning(
            "%d of the %d predicted spots of section %r lack a finite value of some gene (%s) and are not scored. "
            "Leave these genes out to score the spots.",
            partly.sum(),
            finite.any(axis=1).sum(),
            part.section.name,
            ", ".join(most),
        )


def _shared(indices: Sequence[pd.Index]) -> list[str]:
    """Return the genes that are in all of them, in the order of the first."""
    genes = [str(gene) for gene in indices[0] if all(gene in other for other in indices[1:])]
    if not genes:
        msg = "The sections have no predicted gene in common. Evaluate them one by one with shapes_key=…"
        raise ValueError(msg)
    return genes


def _dense(matrix: Any, rows: np.ndarray) -> np.ndarray:
    """Return (n_rows, n_vars) float32 of any kind of matrix."""
    order = np.argsort(rows, kind="stable")
    chosen = in_memory(matrix[rows[order]])
    values = np.asarray(chosen.toarray() if hasattr(chosen, "toarray") else chosen, dtype=np.float32)
    back = np.empty(len(rows), dtype=np.intp)
    back[order] = np.arange(len(rows))
    return values[back]


def _spots(source: AnnData, sections: Sequence[Section]) -> GivenSpots:
    names = {name for section in sections for name in (section.name, section.region)}
    attrs = source.uns.get(TableModel.ATTRS_KEY, {})
    columns = [str(attrs.get(TableModel.REGION_KEY_KEY, "")), *SECTION_COLUMNS]
    labels = [read_names(source.obs[column]) for column in columns if column in source.obs]
    of_section = next((one for one in labels if names.intersection(one)), None)
    xy = _places(source.obsm[SPATIAL]) if SPATIAL in source.obsm else None
    instances = None
    if attrs and of_section is not None and (key := str(attrs.get(TableModel.INSTANCE_KEY))) in source.obs:
        instances = pd.MultiIndex.from_arrays([of_section, source.obs[key].to_numpy()])
    return GivenSpots(pd.Index(source.obs_names.astype(str)), of_section, xy, instances)


def _places(stored: Any) -> np.ndarray:
    """Return (n_spots, 2) x and y; further columns, such as z, are left out."""
    try:
        xy = np.asarray(stored, dtype=float)
    except (TypeError, ValueError):
        xy = np.empty(0)
    if xy.ndim != 2 or xy.shape[1] < 2:
        msg = (
            f"obsm[{SPATIAL!r}] of the prediction must be numbers of the shape (n_spots, 2), x and y in px of the "
            f"image's full resolution, found {shown(stored)}. Correct it, or leave it out to match spots by name."
        )
        raise ValueError(msg)
    return xy[:, :2]
