"""What was measured of spots, on the scale that a model learns and predicts: genes, sets of genes, proportions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sthisto._sdata.expression import Normalization, check_finite, looks_like_counts
from sthisto._sdata.sections import Section
from sthisto._sdata.tables import gene_positions, is_gene, read_rows
from sthisto._utils.targets import OBSM, is_proportions
from sthisto._utils.validate import check_key, listed


def read_expression(
    section: Section,
    spots: np.ndarray,
    *,
    genes: Sequence[str],
    normalization: Normalization,
    gene_symbols: str | None,
) -> np.ndarray:
    """Return the normalized expression of some spots of a section, by their positions in it: (n_spots, n_genes).

    Other spots are NaN and take no part in the normalization. Spots without any count are NaN too. Of a scale that has
    sets of genes or proportions in place of genes, `genes` are their names.
    """
    if normalization.names:
        order = [normalization.names.index(name) for name in genes]
        return _read_targets(section, spots, normalization, gene_symbols)[:, order]
    columns = gene_positions(section.table, genes, gene_symbols)
    if not (are_genes := is_gene(section.table)[columns]).all():
        others = [gene for gene, is_one in zip(genes, are_genes, strict=True) if not is_one]
        msg = f"{listed(others)} are no genes by var['feature_types'] of the table. Leave them out of genes=…"
        raise ValueError(msg)
    matrix = read_rows(section, normalization.layer, spots)
    check_finite(matrix)
    filled = np.asarray(abs(matrix).sum(axis=1)).ravel() > 0
    expression = np.full((len(section), len(genes)), np.nan, dtype=np.float32)
    expression[spots[filled]] = normalization(matrix[np.flatnonzero(filled)], columns)
    return expression


def _read_targets(section: Section, spots: np.ndarray, scale: Normalization, gene_symbols: str | None) -> np.ndarray:
    """Return what some spots of a section have in place of genes, (n_spots, n_targets); NaN for all others."""
    if is_proportions(scale.target):
        values = np.full((len(section), len(scale.names)), np.nan, dtype=np.float32)
        values[spots] = _proportions(section, scale, section.rows[spots])
        return values
    genes, weights = scale.set_weights()
    residuals = Normalization("pearson_residuals", scale.layer)
    expression = read_expression(section, spots, genes=genes, normalization=residuals, gene_symbols=gene_symbols)
    return np.asarray(expression @ weights.astype(np.float32))


def _proportions(section: Section, scale: Normalization, rows: np.ndarray) -> np.ndarray:
    """Return the proportions in rows of the table, (n, n_types), scaled to the sum one; NaN where there are none.

    Types are found by the names of columns, where these have some.

    Raises
    ------
    KeyError
        The table has no such slot.
    ValueError
        It has other columns.
    """
    key = scale.target.removeprefix(OBSM)
    check_key(key, section.table.obsm, name="target", where="the slots of obsm")
    stored = read_proportions(section, key)
    if set(stored.columns) != set(scale.names):
        found = listed(stored.columns)
        msg = f"obsm[{key!r}] of section {section.name!r} has the columns {found}, expected {listed(scale.names)}."
        raise ValueError(msg)
    values = stored[list(scale.names)].to_numpy()[rows]
    total = values.sum(axis=1, keepdims=True)
    return np.divide(values, total, out=np.full_like(values, np.nan), where=total > 0)


def read_proportions(section: Section, key: str) -> pd.DataFrame:
    """Return a slot of ``obsm`` of all rows of the table, as numbers; columns without names get the key and a number.

    Raises
    ------
    ValueError
        It holds something else.
    """
    stored: Any = section.table.obsm[key]
    dense = stored.toarray() if hasattr(stored, "toarray") else stored
    try:
        values = np.asarray(dense, dtype=np.float64).reshape(section.table.n_obs, -1)
    except ValueError as error:
        msg = f"obsm[{key!r}] of section {section.name!r} holds no proportions: {error}."
        raise ValueError(msg) from error
    named = isinstance(stored, pd.DataFrame)
    names = [str(name) for name in stored.columns] if named else [f"{key}_{i}" for i in range(values.shape[1])]
    return pd.DataFrame(values, columns=names)


def check_scale(section: Section, normalization: Normalization) -> None:
    """Raise ValueError if a section has no counts and the model's normalization needs them, or the reverse."""
    if is_proportions(normalization.target):
        return
    is_counts = looks_like_counts(read_rows(section, normalization.layer))
    place = f"{'X' if normalization.layer is None else f'Layer {normalization.layer!r}'} of section {section.name!r}"
    if is_counts and normalization.target == "as_is":
        msg = (
            f"{place} holds raw counts, but the model was fitted on values taken as they are. Normalize them likewise."
        )
        raise ValueError(msg)
    if not is_counts and normalization.target != "as_is":
        msg = f"{place} holds no raw counts, which the model's normalization ({normalization.target!r}) needs."
        raise ValueError(msg)
