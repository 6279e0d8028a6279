"""The choice of the genes to model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from sthisto._sdata.expression import looks_like_counts
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.slots import GENES_GIVEN, GENES_VARIABLE, SELECTED_GENES, TRAIN
from sthisto._sdata.tables import gene_names, gene_positions, read_rows, selection_rule
from sthisto._sdata.write import apply, uns_updates, var_updates
from sthisto._splits.roles import read_roles
from sthisto._utils.arguments import checked
from sthisto._utils.validate import check_positive

if TYPE_CHECKING:
    from spatialdata import SpatialData


@checked()
def select_genes(
    sdata: SpatialData | Sequence[SpatialData],
    genes: str | Sequence[str] | None = None,
    *,
    n_top_genes: int = 1000,
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
        Genes to model, used as given. None: the union of the highly variable genes of every section.
    n_top_genes
        Number of highly variable genes per section (scanpy's flavor "seurat"). The union of several sections is larger.
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
        sections, read_roles(sections), genes, n_top_genes=n_top_genes, layer=layer, gene_symbols=gene_symbols
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
) -> list[str]:
    """Return the checked panel, or the union of the highly variable genes of the sections' training spots.

    Parameters
    ----------
    roles
        (n_spots,) role of every spot of each section.
    genes, n_top_genes, layer, gene_symbols
        Arguments of `select_genes`.
    """
    if genes is not None:
        panel = list(dict.fromkeys([genes] if isinstance(genes, str) else [str(gene) for gene in genes]))
        for section in sections:
            gene_positions(section.table, panel, gene_symbols)
        return panel
    check_positive(n_top_genes, name="n_top_genes")
    everywhere = set.intersection(*(set(gene_names(section.table, gene_symbols)) for section in sections))
    chosen: set[str] = set()
    for section, role in zip(sections, roles, strict=True):
        names = gene_names(section.table, gene_symbols)
        chosen |= set(names[_highly_variable(section, np.flatnonzero(role == TRAIN), n_top_genes, layer)])
    if not chosen & everywhere:
        msg = "No gene varies between the training spots. Pass genes=… to name them."
        raise ValueError(msg)
    return [gene for gene in gene_names(sections[0].table, gene_symbols) if gene in chosen & everywhere]


def genes_to_model(
    sections: Sequence[Section],
    genes: str | Sequence[str] | None,
    *,
    n_top_genes: int,
    layer: str | None,
    gene_symbols: str | None,
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
    chosen = choose_genes(sections, roles, genes, n_top_genes=n_top_genes, layer=layer, gene_symbols=gene_symbols)
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


def _highly_variable(section: Section, train: np.ndarray, n_top_genes: int, layer: str | None) -> np.ndarray:
    """Return the columns of the genes that vary most between some spots of a section, given by their positions."""
    import scanpy as sc
    from anndata import AnnData
    from threadpoolctl import threadpool_limits

    values = sp.csr_matrix(read_rows(section, layer, train))
    values = values[np.asarray(abs(values).sum(axis=1)).ravel() > 0]
    if values.shape[0] < 2:
        return np.empty(0, dtype=int)
    varying = np.flatnonzero((values.max(axis=0) != values.min(axis=0)).toarray().ravel())
    if len(varying) <= n_top_genes:
        return varying
    table = AnnData(values.astype(np.float32))
    # numba, which scanpy uses, leaves OpenMP at another number of threads, for torch too.
    with threadpool_limits():
        if looks_like_counts(values):
            sc.pp.normalize_total(table, target_sum=1e4)
            sc.pp.log1p(table)
        table = table[:, varying].copy()
        sc.pp.highly_variable_genes(table, n_top_genes=n_top_genes, flavor="seurat")
    return varying[table.var["highly_variable"].to_numpy()]
