"""The choice of the genes that are modeled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.slots import GENES_GIVEN, GENES_VARIABLE, SELECTED_GENES, TRAIN
from sthisto._sdata.tables import gene_names, gene_positions, read_rows
from sthisto._sdata.write import apply, uns_updates, var_updates
from sthisto._splits.roles import read_roles
from sthisto.pp._variable_genes import Flavor, variable_genes

if TYPE_CHECKING:
    from spatialdata import SpatialData


def select_genes(
    sdata: SpatialData | Sequence[SpatialData],
    genes: str | Sequence[str] | None = None,
    *,
    n_top_genes: int = 1000,
    flavor: Flavor = "pearson_residuals",
    layer: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    gene_symbols: str | None = None,
) -> None:
    """Choose the genes that are modeled, on training spots alone.

    Parameters
    ----------
    sdata
        One SpatialData or a list of them; `pp.split` decides which spots are trained on, without it all are.
    genes
        A panel to use as it is; None chooses genes that vary between the training spots.
    n_top_genes
        Number of genes that are chosen.
    flavor
        "pearson_residuals": the variance of Pearson residuals of the counts, ranked within each section, among genes
        with a mean count of at least 0.1 (or the 2 `n_top_genes` most expressed, where fewer have that). "seurat":
        scanpy's default, `n_top_genes` of each section, united; it drops many genes that follow the tissue. Values that
        are no counts are always chosen from by "seurat".
    layer
        Layer with the expression; None is X. Raw counts are recognized and normalized first.
    image_key, shapes_key, table_key, coordinate_system
        None is the only candidate; of regions, all that the table annotates. Spots outside their image are left out.
    gene_symbols
        Column of ``var`` with the names to match `genes` by; None is ``var_names``.

    Returns
    -------
    None. Writes ``var["sthisto_selected"]``, which `tl.fit` uses, and ``uns["sthisto_selected"]``, the rule. `pp.split`
    removes a choice of highly variable genes, which its test spots took part in: call it first.

    Raises
    ------
    KeyError
        A gene of the panel is not in the table.
    ValueError
        No gene varies between the training spots.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=1, n_patients=1)
    >>> sth.pp.select_genes(sdata, n_top_genes=50)
    """
    sections = read_sections(
        sdata,
        image_key=image_key,
        shapes_key=shapes_key,
        table_key=table_key,
        coordinate_system=coordinate_system,
    )
    chosen = choose_genes(
        sections,
        read_roles(sections),
        genes,
        n_top_genes=n_top_genes,
        layer=layer,
        gene_symbols=gene_symbols,
        flavor=flavor,
    )
    selected = np.ones(len(chosen), dtype=bool)
    apply(
        [
            *var_updates(sections, SELECTED_GENES, selected, genes=chosen, gene_symbols=gene_symbols),
            *uns_updates(sections, SELECTED_GENES, {"rule": GENES_GIVEN if genes is not None else GENES_VARIABLE}),
        ]
    )


def choose_genes(
    sections: Sequence[Section],
    roles: Sequence[np.ndarray],
    genes: str | Sequence[str] | None,
    *,
    n_top_genes: int,
    layer: str | None,
    gene_symbols: str | None,
    flavor: Flavor = "pearson_residuals",
) -> list[str]:
    """Return the panel after checking it, or the genes that vary between the sections' training spots."""
    if genes is not None:
        panel = list(dict.fromkeys([genes] if isinstance(genes, str) else [str(gene) for gene in genes]))
        for section in sections:
            gene_positions(section.table, panel, gene_symbols)
        return panel
    values = [
        (gene_names(one.table, gene_symbols), sp.csr_matrix(read_rows(one, layer, np.flatnonzero(role == TRAIN))))
        for one, role in zip(sections, roles, strict=True)
    ]
    chosen = variable_genes(values, n_top_genes, flavor=flavor)
    if not chosen:
        msg = "No gene varies between the training spots. Pass genes=… to name them."
        raise ValueError(msg)
    return [gene for gene in values[0][0] if gene in chosen]
