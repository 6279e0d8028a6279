"""Genes that vary between spots: by the variance of their Pearson residuals, or by scanpy's "seurat" flavor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp

from sthisto._sdata.expression import looks_like_counts
from sthisto._utils.validate import check_choice, check_positive

Flavor = Literal["pearson_residuals", "seurat"]

LEAST_MEAN: Final = 0.1
"""Mean count of a gene below which its residual variance says more of single counts than of tissue."""
_CANDIDATES_PER_GENE = 2
"""Of shallow data, such as 8 µm bins, the most expressed genes are candidates whatever their mean: twice as many as
are chosen."""


def variable_genes(
    sections: Sequence[tuple[pd.Index, sp.csr_matrix]], n_top_genes: int, *, flavor: Flavor = "pearson_residuals"
) -> set[str]:
    """Return the names of genes that vary between the spots of sections, among those that all sections have.

    Parameters
    ----------
    sections
        For each section, the names of its genes and its (n_spots, n_genes) expression.
    n_top_genes
        Number of genes; with "seurat", of each section, and the union is returned.
    flavor
        "pearson_residuals": the variance of analytic Pearson residuals of counts, ranked within each section, genes
        with the best median rank first (Lause et al., Genome Biology 2021, doi:10.1186/s13059-021-02451-7, as
        `scanpy.experimental.pp.highly_variable_genes`). Values that are no counts are chosen from by "seurat".
        "seurat": dispersion of log1p counts in bins of the mean (Satija et al., Nature Biotechnology 2015,
        doi:10.1038/nbt.3192).

    Raises
    ------
    ValueError
        `flavor` is unknown, or `n_top_genes` is not positive.
    """
    check_choice(flavor, get_args(Flavor), name="flavor")
    check_positive(n_top_genes, name="n_top_genes")
    common = set.intersection(*(set(names) for names, _ in sections))
    filled = [(names, values[np.asarray(abs(values).sum(axis=1)).ravel() > 0]) for names, values in sections]
    used = [(names, values) for names, values in filled if values.shape[0] > 1]
    if flavor == "pearson_residuals" and all(looks_like_counts(values) for _, values in used):
        order = [name for name in sections[0][0] if name in common]
        aligned = [sp.csr_matrix(values[:, names.get_indexer(order)]) for names, values in used]
        return _by_residuals(aligned, np.array(order, dtype=object), n_top_genes) if used else set()
    return {str(name) for names, values in used for name in names[_by_dispersion(values, n_top_genes)]} & common


def _by_residuals(sections: Sequence[sp.csr_matrix], names: np.ndarray, n_top_genes: int) -> set[str]:
    import scanpy as sc
    from anndata import AnnData
    from threadpoolctl import threadpool_limits

    counts = sp.vstack(sections, format="csr").astype(np.float32)
    varying = np.flatnonzero(np.any([_varies(section) for section in sections], axis=0))
    mean = np.asarray(counts.mean(axis=0)).ravel()[varying]
    n_candidates = _CANDIDATES_PER_GENE * n_top_genes
    floor = min(LEAST_MEAN, np.sort(mean)[-n_candidates]) if len(mean) > n_candidates else 0.0
    candidates = varying[mean >= floor]
    if len(candidates) <= n_top_genes:
        return set(names[candidates])
    section = np.repeat([str(i) for i in range(len(sections))], [one.shape[0] for one in sections])
    counts = counts[:, candidates]
    counted = np.asarray(counts.sum(axis=1)).ravel() > 0  # a spot without any makes every residual variance NaN
    obs = pd.DataFrame({"section": pd.Categorical(section[counted])}).rename(index=str)
    table = AnnData(counts[counted], obs=obs)
    with threadpool_limits():  # numba, which scanpy uses, leaves OpenMP at another number of threads, for torch too
        sc.experimental.pp.highly_variable_genes(table, n_top_genes=n_top_genes, batch_key="section")
    return set(names[candidates[table.var["highly_variable"].to_numpy()]])


def _by_dispersion(values: sp.csr_matrix, n_top_genes: int) -> np.ndarray:
    """Return the columns of one section, (n_spots, n_genes), that "seurat" chooses."""
    import scanpy as sc
    from anndata import AnnData
    from threadpoolctl import threadpool_limits

    varying = np.flatnonzero(_varies(values))
    if len(varying) <= n_top_genes:
        return varying
    table = AnnData(values.astype(np.float32))
    with threadpool_limits():
        if looks_like_counts(values):
            sc.pp.normalize_total(table, target_sum=1e4)
            sc.pp.log1p(table)
        table = table[:, varying].copy()
        sc.pp.highly_variable_genes(table, n_top_genes=n_top_genes, flavor="seurat")
    return varying[table.var["highly_variable"].to_numpy()]


def _varies(values: sp.csr_matrix) -> np.ndarray:
    return np.asarray((values.max(axis=0) != values.min(axis=0)).toarray()).ravel()
