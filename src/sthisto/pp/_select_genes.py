"""The choice of the genes to model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.slots import GENES_GIVEN, GENES_VARIABLE, SELECTED_GENES, TRAIN
from sthisto._sdata.tables import gene_names, gene_positions, read_rows, selection_rule
from sthisto._sdata.write import apply, uns_updates, var_updates
from sthisto._splits.roles import read_roles
from sthisto._utils.arguments import checked
from sthisto._utils.validate import listed
from sthisto.pp._variable_genes import Flavor, variable_genes

if TYPE_CHECKING:
    import pandas as pd
    from spatialdata import SpatialData


@checked()
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
    """Choose the genes to model, from the training spots only.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them. `pp.split` decides which spots are trained on; without a split, all are.
    genes
        Genes to model, used as given. None: the genes that vary most between the training spots.
    n_top_genes
        Number of highly variable genes; with flavor "seurat", of each section, whose union is larger.
    flavor
        "pearson_residuals": the genes with the largest variance of Pearson residuals of the counts, ranked within each
        section, among genes with a mean count of at least 0.1 (or the 2 `n_top_genes` most expressed, if these are
        fewer). "seurat": scanpy's default; it drops many genes that follow the tissue. Values that are no counts are
        always ranked by "seurat".
    layer
        Layer with the expression. None: X. Raw counts are recognized and normalized first.
    image_key
        H&E image, or a mapping from region to image. None: inferred if there is exactly one candidate; of several RGB
        images of one place, the finest.
    shapes_key
        Region or regions to use, shapes or labels. None: all regions that the table annotates.
    table_key
        Table that annotates the regions. None: inferred if there is exactly one.
    coordinate_system
        Coordinate system in which images and regions are aligned. None: inferred from those that both share.
    gene_symbols
        Column of ``var`` with the gene names. None: ``var_names``.

    Returns
    -------
    None. Writes ``var["sthisto_selected"]``, (n_vars,) bool, which `tl.fit` uses, and ``uns["sthisto_selected"]``, the
    rule that chose the genes. Call `pp.split` first: it removes highly variable genes that test spots helped to choose.

    Raises
    ------
    KeyError
        An element, a layer or one of `genes` is missing.
    ValueError
        No gene varies among the training spots, or an element is ambiguous.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=1, n_patients=1)
    >>> sth.pp.select_genes(sdata, n_top_genes=50)
    """
    sections = read_sections(sdata, ElementKeys(image_key, shapes_key, table_key, coordinate_system))
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
    """Return the checked panel, or the genes that vary most between the sections' training spots.

    Parameters
    ----------
    roles
        (n_spots,) role of every spot of each section.
    genes, n_top_genes, layer, gene_symbols, flavor
        Arguments of `select_genes`.
    """
    if genes is not None:
        panel = list(dict.fromkeys([genes] if isinstance(genes, str) else [str(gene) for gene in genes]))
        for section in sections:
            gene_positions(section.table, panel, gene_symbols)
        return panel
    values = [
        (gene_names(one.table, gene_symbols), sp.csr_matrix(read_rows(one, layer, np.flatnonzero(role == TRAIN))))
        for one, role in zip(sections, roles, strict=True)
    ]
    _check_shared([names for names, _ in values], sections)
    chosen = variable_genes(values, n_top_genes, flavor=flavor)
    if not chosen:
        msg = "No gene varies between the training spots. Pass genes=… to name them."
        raise ValueError(msg)
    return [gene for gene in values[0][0] if gene in chosen]


def _check_shared(names: Sequence[pd.Index], sections: Sequence[Section]) -> None:
    """Raise ValueError where sections have no gene in common, as where one names them by symbol and one by id."""
    shared = names[0]
    for own, section in zip(names[1:], sections[1:], strict=True):
        shared = shared.intersection(own)
        if shared.empty:
            msg = (
                f"Section {section.name!r} has no gene in common with the sections before it: it has "
                f"{listed(own, 3)}, section {sections[0].name!r} has {listed(names[0], 3)}. Name genes alike in "
                "var_names, or pass gene_symbols=…, a column of var of every table."
            )
            raise ValueError(msg)


def genes_to_model(
    sections: Sequence[Section],
    genes: str | Sequence[str] | None,
    *,
    n_top_genes: int,
    layer: str | None,
    gene_symbols: str | None,
    flavor: Flavor = "pearson_residuals",
) -> tuple[list[str], str]:
    """Return the genes that a model is fitted on, and the rule that chose them.

    They are the panel `genes`, else those of `select_genes`, else the highly variable ones of the spots that are marked
    "train", so that neither the method nor the seed changes the choice.
    """
    rule = GENES_GIVEN
    if genes is None:
        genes = _selected_genes(sections, gene_symbols)
        rule = GENES_VARIABLE if genes is None else selection_rule(sections[0].table)
    roles = read_roles(sections)
    chosen = choose_genes(
        sections, roles, genes, n_top_genes=n_top_genes, layer=layer, gene_symbols=gene_symbols, flavor=flavor
    )
    return chosen, rule


def _selected_genes(sections: Sequence[Section], gene_symbols: str | None) -> list[str] | None:
    """Return the genes of `select_genes`; None if it was not called."""
    tables = {id(section.table): section.table for section in sections}.values()
    selected = [
        set(gene_names(table, gene_symbols)[table.var[SELECTED_GENES].to_numpy(dtype=bool)])
        for table in tables
        if SELECTED_GENES in table.var
    ]
    if not selected:
        return None
    if len(selected) < len(tables) or any(genes != selected[0] for genes in selected):
        msg = (
            f"The tables do not agree on the genes in var[{SELECTED_GENES!r}]. Call sth.pp.select_genes on all "
            "of them together, or pass genes=…"
        )
        raise ValueError(msg)
    return [gene for gene in gene_names(sections[0].table, gene_symbols) if gene in selected[0]]
