"""Tables of a SpatialData: genes, layers, and the expression in the rows of a section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from sthisto._sdata.slots import GENES_GIVEN, SELECTED_GENES, modeled_gene
from sthisto._utils.validate import check_key, listed

if TYPE_CHECKING:
    from anndata import AnnData

    from sthisto._sdata.sections import Section


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


def modeled_genes(table: AnnData, key: str, gene_symbols: str | None = None) -> list[str]:
    """Return the genes that a model predicts, in the order of the table."""
    column = modeled_gene(key)
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
