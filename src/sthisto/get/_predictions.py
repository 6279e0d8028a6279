"""Predicted expression as a plain table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sthisto._sdata.predictions import predicted_names, predicted_values
from sthisto._sdata.record import check_predicted, symbols_of
from sthisto._sdata.sections import read_tables
from sthisto._sdata.slots import KEY, prediction
from sthisto._utils.arguments import checked

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@checked()
def predictions(
    sdata: SpatialData | Sequence[SpatialData],
    genes: str | Sequence[str] | None = None,
    *,
    key_added: str = KEY,
    table_key: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Return the predicted expression of the spots that have a prediction.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them, whose spots are concatenated.
    genes
        Gene or genes to return, or sets or cell types where these were predicted. None: all that the method predicts.
    key_added
        Key that `sthisto.tl.predict` wrote to.
    table_key
        Table with the prediction. None: inferred if exactly one table annotates a region.
    gene_symbols
        Column of ``var`` with the gene names. None: the one that `sthisto.tl.predict` used.

    Returns
    -------
    (n_spots, n_genes) float32, on the scale given by ``uns[key_added]["normalization"]``; the index holds the names of
    the spots, the columns those of the genes.

    Raises
    ------
    KeyError
        There is no prediction under the key, or a gene is missing.
    ValueError
        The table is ambiguous.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> sth.tl.predict(sdata, sth.tl.fit(sdata, method="color"))
    >>> sth.get.predictions(sdata).shape  # doctest: +SKIP
    """
    tables = read_tables(sdata, table_key)
    wanted = [genes] if isinstance(genes, str) else genes
    return pd.concat([_of_table(table, wanted, key_added, gene_symbols) for table in tables])


def _of_table(table: AnnData, genes: Sequence[str] | None, key: str, gene_symbols: str | None) -> pd.DataFrame:
    check_predicted(table, key)
    symbols = gene_symbols or symbols_of(table, key)
    chosen = predicted_names(table, key, symbols) if genes is None else list(genes)
    rows = np.arange(table.n_obs)
    values = predicted_values(table, key, prediction(key), chosen, rows=rows, gene_symbols=symbols)
    known = np.isfinite(values).any(axis=1)
    return pd.DataFrame(values[known], index=table.obs_names[known], columns=pd.Index(chosen, name="gene"))
