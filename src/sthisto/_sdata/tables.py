"""Tables of a SpatialData: genes, layers, and the expression in the rows of a section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import scipy.sparse as sp

from sthisto._sdata.columns import read_names
from sthisto._sdata.slots import GENES_GIVEN, SELECTED_GENES, modeled_gene, prediction
from sthisto._utils.logging import warn_once
from sthisto._utils.validate import check_key, listed

if TYPE_CHECKING:
    from anndata import AnnData

    from sthisto._sdata.sections import Section

RAW: Final = "raw"
"""Name by which the counts in `table.raw` are asked for, as if they were a layer."""
_FEATURE_TYPES: Final = ("feature_types", "feature_type")
_GENE: Final = "gene expression"


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
    """Return the column of each gene in the table, (n_genes,); raise KeyError when one is missing."""
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


def modeled_genes(table: AnnData, key: str, gene_symbols: str | None = None) -> list[str]:
    """Return the genes that a model predicts, in the order of the table.

    Without the column of ``var``, which concatenation drops by default, they are those with a prediction.
    """
    column, layer = modeled_gene(key), prediction(key)
    if column not in table.var and layer in layer_names(table):
        predicted = np.isfinite(in_memory(table.layers[layer])).any(axis=0)
        return gene_names(table, gene_symbols)[predicted].tolist()
    check_key(column, table.var.columns, name="key_added", where="the columns of var", remedy="Call sth.tl.fit first.")
    return gene_names(table, gene_symbols)[table.var[column].to_numpy(dtype=bool)].tolist()


def layer_names(table: AnnData) -> list[str]:
    """Return the names of a table's layers; anndata 0.13 lists X among them as None."""
    return [name for name in table.layers if name is not None]


def is_gene(table: AnnData) -> np.ndarray:
    """Return (n_vars,) which features are genes: "Gene Expression" in ``var["feature_types"]``, all without it.

    Antibodies and control probes are none. A column that calls nothing a gene is left aside.
    """
    column = next((name for name in _FEATURE_TYPES if name in table.var), None)
    if column is None:
        return np.ones(table.n_vars, dtype=bool)
    kinds = [" ".join(str(kind).lower().replace("_", " ").split()) for kind in read_names(table.var[column])]
    genes: np.ndarray = np.array([kind == _GENE for kind in kinds], dtype=bool)
    return genes if genes.any() else np.ones(table.n_vars, dtype=bool)


def warn_of_other_features(table: AnnData) -> None:
    """Warn that a table holds features which are no genes, and what becomes of them."""
    other = ~is_gene(table)
    if other.any():
        warn_once(
            "%d of %d features are no genes, such as %s: they count neither as genes nor in the library size.",
            other.sum(),
            len(other),
            listed(table.var_names[other], 3),
        )


def read_matrix(table: AnnData, layer: str | None) -> Any:
    """Return X, a layer, or the counts of `table.raw` for "raw", dense or sparse, (n_obs, n_vars).

    Raises
    ------
    KeyError
        There is no such layer, or the table has no X.
    """
    if layer == RAW and RAW not in layer_names(table) and has_raw(table):
        return table.raw[:, table.var_names].X
    if layer is not None:
        available = [*layer_names(table), *([RAW] if has_raw(table) else [])]
        remedy = "X is read without layer=…" if layer == "X" else ""
        check_key(layer, available, name="layer", where="the layers of the table", remedy=remedy)
        return table.layers[layer]
    if table.X is None:
        msg = f"The table has no X. Pass layer=…; its layers: {listed(layer_names(table))}."
        raise KeyError(msg)
    return table.X


def has_layer(table: AnnData, layer: str) -> bool:
    """Return whether `read_matrix` finds a layer of that name."""
    return layer in layer_names(table) or (layer == RAW and has_raw(table))


def has_raw(table: AnnData) -> bool:
    """Return whether `table.raw` holds all genes of the table."""
    return table.raw is not None and bool(table.var_names.isin(table.raw.var_names).all())


def where_counts_may_be(table: AnnData, argument: str, tried: str | None = None) -> str:
    """Return a hint at other places than `tried`, to be passed as `argument`; empty where there are none."""
    written = tuple(f"{key}_" for key, one in table.uns.items() if isinstance(one, Mapping) and "normalization" in one)
    others = [name for name in layer_names(table) if name != tried and not name.startswith(written)]
    names = [*others, *([RAW] if has_raw(table) and tried != RAW else [])]
    if len(names) == 1:
        return f" If {names[0]!r} holds the counts, pass {argument}={names[0]!r}."
    return f" If one of {listed(names)} holds the counts, pass it as {argument}=…" if names else ""


def read_rows(section: Section, layer: str | None, spots: np.ndarray | None = None) -> sp.csr_array:
    """Return the expression of a section's spots over all genes of its table, (n_spots, n_vars).

    Features that are no genes are 0: this is the one place where they leave the library size.

    Parameters
    ----------
    section
        Its table may hold any kind of matrix: numpy, scipy, dask, backed.
    layer
        As for `read_matrix`.
    spots
        (n_spots,) positions in the section of those to read; None is all.
    """
    rows = section.rows if spots is None else section.rows[spots]
    matrix = sp.csr_array(in_memory(_rows_of(read_matrix(section.table, layer), rows)))
    if not matrix.has_canonical_format:
        _check_no_repeats(matrix, section.name)
    genes = is_gene(section.table)
    return matrix if genes.all() else sp.csr_array(matrix @ sp.diags_array(genes.astype(matrix.dtype)))


def _check_no_repeats(matrix: sp.csr_array, section: str) -> None:
    """Raise ValueError for several values of a gene in a row of (n_spots, n_genes), as where a store lacks indices."""
    ordered = matrix.copy()
    ordered.sort_indices()
    row = np.repeat(np.arange(ordered.shape[0]), np.diff(ordered.indptr))
    repeated = (np.diff(ordered.indices) == 0) & (np.diff(row) == 0)
    if repeated.any():
        msg = (
            f"The expression of section {section!r} has {int(repeated.sum())} values beside another one of the same "
            "spot and gene. If its store was copied in part, copy it again; if values are to be added up, call "
            "X.sum_duplicates()."
        )
        raise ValueError(msg)


def _rows_of(matrix: Any, rows: np.ndarray) -> Any:
    """Return some rows, (n,), of any kind of (n_obs, n_vars) matrix; those on disk take ascending rows only."""
    if isinstance(matrix, np.ndarray) or sp.issparse(matrix):
        return matrix.tocsr()[rows] if sp.issparse(matrix) else matrix[rows]
    order = np.argsort(rows, kind="stable")
    sorted_rows, place = np.unique(rows[order], return_inverse=True)
    back = np.empty(len(rows), dtype=np.intp)
    back[order] = place
    return in_memory(matrix[sorted_rows])[back]


def in_memory(matrix: Any) -> Any:
    """Return a numpy array or scipy matrix of numbers that scipy computes with, whatever held the values.

    Raises
    ------
    TypeError
        The values are no real numbers.
    """
    for method in ("compute", "to_memory"):
        if hasattr(matrix, method):
            matrix = getattr(matrix, method)()
    if isinstance(matrix, np.ma.MaskedArray):
        matrix = matrix.filled(np.nan if matrix.dtype.kind == "f" else 0)
    if not sp.issparse(matrix):
        matrix = np.asarray(matrix)
    if matrix.dtype.kind in "cmM":  # numpy would cast them without a word
        msg = f"The expression is of {matrix.dtype}, and must be of real numbers. Convert it, or pass layer=…"
        raise TypeError(msg)
    if matrix.dtype.kind not in "biuf":
        try:
            return matrix.astype(np.float32)
        except (TypeError, ValueError) as error:
            msg = f"The expression is of {matrix.dtype} and holds values that are no numbers: {error}. Pass layer=…"
            raise TypeError(msg) from error
    if matrix.dtype == np.float16 or matrix.dtype == bool:
        matrix = matrix.astype(np.float32)
    return matrix
