import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import torch
from builders import make_sdata
from tissue import make_tissue, mark_split, rows_of

import sthisto as sth
from sthisto.pp._variable_genes import variable_genes


@pytest.fixture
def tissue():
    return make_tissue()


def selected(sdata):
    table = sdata["counts"]
    return set(table.var_names[table.var["sthisto_selected"]])


def scanpys_choice(counts, n_top_genes):
    table = ad.AnnData(counts)
    sc.pp.normalize_total(table, target_sum=1e4)
    sc.pp.log1p(table)
    sc.pp.highly_variable_genes(table, n_top_genes=n_top_genes, flavor="seurat")
    return {f"gene{i}" for i in np.flatnonzero(table.var["highly_variable"])}


def test_default_is_the_variance_of_pearson_residuals_ranked_within_sections(tissue):
    sth.pp.select_genes(tissue, n_top_genes=4)
    table = tissue["counts"].copy()
    table.obs["section"] = ["A" if i in set(rows_of(tissue, "A")) else "B" for i in range(table.n_obs)]
    table.obs["section"] = table.obs["section"].astype("category")
    sc.experimental.pp.highly_variable_genes(table, n_top_genes=4, batch_key="section")
    assert selected(tissue) == set(table.var_names[table.var["highly_variable"]])
    assert tissue["counts"].var["sthisto_selected"].dtype == bool


def test_genes_with_few_counts_are_no_candidates_though_their_residuals_vary_most(tissue):
    table = tissue["counts"]
    x = table.X.toarray()
    x[:, 3] = 0
    x[0, 3] = 3
    table.X = sp.csr_matrix(x)
    sth.pp.select_genes(tissue, n_top_genes=4)
    assert "gene3" not in selected(tissue)


def test_shallow_counts_keep_the_most_expressed_genes_as_candidates(tissue):
    table = tissue["counts"]
    rng = np.random.default_rng(0)
    table.X = sp.csr_matrix(rng.binomial(table.X.toarray().astype(int), 0.0005).astype(np.float32))
    assert (np.asarray(table.X.mean(axis=0)).ravel() < 0.1).all()
    sth.pp.select_genes(tissue, n_top_genes=3)
    total = pd.Series(np.asarray(table.X.sum(axis=0)).ravel(), index=table.var_names)
    assert len(selected(tissue)) == 3
    assert total[list(selected(tissue))].min() >= total.nlargest(6).min()


def test_spot_without_counts_of_any_candidate_does_not_spoil_the_choice():
    rng = np.random.default_rng(0)
    x = np.hstack([rng.poisson(2.0, (200, 40)), rng.poisson(0.05, (200, 20))])  # the last are too rare for candidates
    x[:100, :8] += rng.poisson(8.0, (100, 8))
    x[7] = 0
    x[7, 50] = 1
    names = pd.Index([f"gene{i}" for i in range(60)])
    assert variable_genes([(names, sp.csr_matrix(x))], 8) == set(names[:8])


def test_seurat_unites_the_highly_variable_genes_of_the_sections(tissue):
    sth.pp.select_genes(tissue, n_top_genes=4, flavor="seurat")
    x = tissue["counts"].X.toarray()
    expected = [scanpys_choice(x[rows_of(tissue, region)], 4) for region in ("A", "B")]
    assert selected(tissue) == expected[0] | expected[1]


def test_values_that_are_no_counts_are_chosen_from_by_dispersion(tissue):
    table = tissue["counts"]
    sc.pp.normalize_total(table, target_sum=1e4)
    sc.pp.log1p(table)
    sth.pp.select_genes(tissue, n_top_genes=4)
    chosen = selected(tissue)
    sth.pp.select_genes(tissue, n_top_genes=4, flavor="seurat")
    assert selected(tissue) == chosen


def test_unknown_flavor_is_refused(tissue):
    with pytest.raises(ValueError, match="'seurat'"):
        sth.pp.select_genes(tissue, flavor="cell_ranger")


def test_only_training_spots_are_looked_at(tissue):
    mark_split(tissue, {"A": "train", "B": "test"})
    table = tissue["counts"]
    validation = rows_of(tissue, "A")[:9]
    table.obs.iloc[validation, table.obs.columns.get_loc("sthisto_split")] = "val"
    sth.pp.select_genes(tissue, n_top_genes=4)
    expected = selected(tissue)
    train = rows_of(tissue, "A")[9:]
    garbage = np.random.default_rng(0).integers(0, 10**6, table.shape).astype(np.float32) + 0.5
    garbage[train] = table.X[train].toarray()
    table.X = sp.csr_matrix(garbage)
    sth.pp.select_genes(tissue, n_top_genes=4)
    assert selected(tissue) == expected


def test_panel_is_used_as_it_is(tissue):
    sth.pp.select_genes(tissue, ["gene7", "gene2", "gene7"])
    assert selected(tissue) == {"gene7", "gene2"}
    sth.pp.select_genes(tissue, "gene1")
    assert selected(tissue) == {"gene1"}


def test_panel_by_a_column_of_var(tissue):
    sth.pp.select_genes(tissue, ["symbol3"], gene_symbols="symbol")
    assert selected(tissue) == {"gene3"}


def test_missing_gene_of_a_panel_is_named(tissue):
    with pytest.raises(KeyError, match=r"'MISSING'.*gene_symbols"):
        sth.pp.select_genes(tissue, ["gene1", "MISSING"])
    assert "sthisto_selected" not in tissue["counts"].var


def test_genes_that_never_vary_are_not_chosen(tissue):
    table = tissue["counts"]
    x = table.X.toarray()
    x[:, 5] = 0
    table.X = sp.csr_matrix(x)
    sth.pp.select_genes(tissue, n_top_genes=1000)
    assert selected(tissue) == set(table.var_names) - {"gene5"}


def test_genes_that_another_table_lacks_are_not_chosen():
    cohort = [make_sdata(n_genes=12), make_sdata(n_genes=8)]
    sth.pp.select_genes(cohort)
    assert selected(cohort[0]) == selected(cohort[1]) <= {f"gene{i}" for i in range(8)}


def test_sections_that_name_no_gene_alike_are_refused():
    cohort = [make_sdata(), make_sdata()]
    cohort[1]["counts"].var_names = [f"ENSG{i:011}" for i in range(12)]
    with pytest.raises(ValueError, match=r"no gene in common.*'ENSG00000000000'.*section '0:spots' has 'gene0'"):
        sth.pp.select_genes(cohort)


def test_expression_without_variation_is_refused(tissue):
    tissue["counts"].X = sp.csr_matrix(np.ones(tissue["counts"].shape, dtype=np.float32))
    with pytest.raises(ValueError, match="No gene varies"):
        sth.pp.select_genes(tissue)


def test_threads_of_torch_stay_as_they_were(tissue):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        sth.pp.select_genes(tissue, n_top_genes=4)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
