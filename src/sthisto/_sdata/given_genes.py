"""Genes of a prediction found among those that were measured, by symbol or by Ensembl id."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pandas as pd

from sthisto._sdata.columns import read_names
from sthisto._sdata.tables import gene_names
from sthisto._utils.logging import logger
from sthisto._utils.validate import listed

if TYPE_CHECKING:
    from anndata import AnnData

GENE_COLUMNS: Final = (
    *("gene_ids", "gene_id", "ensembl", "ensembl_id", "ensembl_gene_id"),
    *("gene_symbols", "gene_symbol", "symbol", "symbols", "gene_name", "gene_names", "feature_name"),
)
"""Columns of ``var`` that may hold ids or symbols."""
_VERSION: Final = re.compile(r"^(ENS[A-Z]*\d{6,})\.\d+$")


def match_genes(measured: AnnData, predicted: AnnData) -> pd.Series:
    """Return the column of the prediction for each gene that both have, by ``var_names`` of the measured table.

    Of ``var_names`` and the columns of ids and symbols, the two that share most genes are matched; the version of an
    Ensembl id does not count.

    Raises
    ------
    KeyError
        They share no gene.
    ValueError
        A shared gene has several columns in the prediction.
    """
    names = gene_names(measured)
    best, repeated = pd.Series(dtype=int), pd.Index([])
    for wanted in _identifiers(measured):
        once = wanted[~wanted.duplicated(keep=False) & wanted.notna()]
        for found in _identifiers(predicted):
            shared = found[found.isin(set(once))]
            if shared.nunique() > len(best):
                place = pd.Series(names[once.index], index=once.to_numpy())
                repeated = pd.Index(place[shared[shared.duplicated()]]).unique()
                first = shared[~shared.duplicated()]
                best = pd.Series(first.index, index=place[first].to_numpy())
    if not len(best):
        msg = (
            f"The prediction has no gene that was measured. Its columns: {listed(predicted.var_names, 5)}; the "
            f"measured genes: {listed(names, 5)}. Put symbols or Ensembl ids that match into var_names or "
            "var['gene_ids']; spots are rows, genes are columns."
        )
        raise KeyError(msg)
    if len(repeated):
        msg = f"The prediction has several columns for {listed(repeated, 5)}. Keep one of each."
        raise ValueError(msg)
    if left_out := predicted.n_vars - len(best):
        logger.warning("%d of %d predicted genes were not measured: they are left out.", left_out, predicted.n_vars)
    return best.loc[names[names.isin(best.index)]]


def _identifiers(table: AnnData) -> Iterator[pd.Series]:
    """Yield the names by which genes may be matched, (n_vars,), symbols and ids alike."""
    yield _plain(table.var_names.to_series())
    for column in GENE_COLUMNS:
        if column in table.var:
            yield _plain(table.var[column])


def _plain(values: pd.Series) -> pd.Series:
    """Return text without the version of an Ensembl id, by position."""
    names = [None if name is None else _VERSION.sub(r"\1", name.strip()) for name in read_names(values)]
    return pd.Series(names, dtype=object)
