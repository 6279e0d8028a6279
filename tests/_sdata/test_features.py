"""Matrices and features of tables as people have them."""

from __future__ import annotations

import logging

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from builders import make_sdata

import sthisto as sth
from sthisto._sdata.expression import Normalization
from sthisto._sdata.measured import read_expression
from sthisto._sdata.sections import read_sections
from sthisto._sdata.tables import gene_names, is_gene, read_matrix, read_rows

KINDS = {
    "dense": lambda x: x,
    "fortran": np.asfortranarray,
    "float16": lambda x: x.astype(np.float16),
    "bool": lambda x: x > 1,
    "uint8": lambda x: np.minimum(x, 255).astype(np.uint8),
    "masked": np.ma.masked_array,
    "csc": sp.csc_matrix,
    "csr_array": sp.csr_array,
    "coo": lambda x: sp.coo_matrix(x).tocsr(),
    "int32": lambda x: sp.csr_matrix(x.astype(np.int32)),
    "dask": lambda x: da.from_array(x, chunks=(7, 5)),
    "dask of csr": lambda x: da.from_array(x, chunks=(7, 12)).map_blocks(sp.csr_matrix),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spots", [None, np.array([9, 2, 2, 30])])
def test_matrices_of_every_kind_are_read_in_the_order_of_the_spots(sdata, kind, spots):
    table = sdata["counts"]
    x = table.X.toarray()
    table.X = KINDS[kind](x)
    (section,) = read_sections(sdata)
    rows = section.rows if spots is None else section.rows[spots]
    expected = {"bool": x > 1, "uint8": np.minimum(x, 255)}.get(kind, x)[rows]
    np.testing.assert_array_equal(read_rows(section, None, spots).toarray(), expected)


@pytest.mark.parametrize("as_dense", [True, False])
def test_tables_on_disk_are_read_in_the_order_of_the_spots(sdata, tmp_path, as_dense):
    expected = sdata["counts"].X.toarray()
    (section,) = read_sections(sdata)
    ad.AnnData(expected if as_dense else sp.csr_matrix(expected)).write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    on_disk = type(section)(**{**vars(section), "table": backed})
    np.testing.assert_array_equal(read_rows(on_disk, None).toarray(), expected[section.rows])


def test_a_float16_table_is_fitted_and_predicted(sdata):
    sdata["counts"].X = sdata["counts"].X.toarray().astype(np.float16)
    model = sth.tl.fit(sdata, method="mean", genes=["gene3", "gene4"], patch_size=16)
    sth.tl.predict(sdata, model)
    assert np.isfinite(sdata["counts"].layers["sthisto_pred"][:, 3:5]).all()


def test_values_that_are_no_numbers_are_refused(sdata):
    sdata["counts"].X = np.full(sdata["counts"].shape, "many", dtype=object)
    (section,) = read_sections(sdata)
    with pytest.raises(TypeError, match="holds values that are no numbers"):
        read_rows(section, None)


@pytest.mark.parametrize("kind", [complex, "timedelta64[s]"])
def test_values_that_are_no_real_numbers_are_refused(sdata, kind):
    table = sdata["counts"]
    sdata.tables["counts"] = ad.AnnData(table.X.toarray().astype(int).astype(kind), table.obs, table.var, table.uns)
    (section,) = read_sections(sdata)
    with pytest.raises(TypeError, match="must be of real numbers"):
        read_rows(section, None)


def test_counts_in_raw_are_read_as_if_they_were_a_layer(sdata):
    table = sdata["counts"]
    counts = table.X.toarray()
    table.raw = table[:, ::-1].copy()
    table.X = np.log1p(counts)
    (section,) = read_sections(sdata)
    np.testing.assert_array_equal(read_rows(section, "raw").toarray(), counts[section.rows])
    with pytest.raises(KeyError, match="'raw'"):
        read_matrix(table, "counts")


# Genes and other features


def with_antibodies(kinds=("Gene Expression", "Antibody Capture"), column: str = "feature_types"):
    """Return a section whose last four features are antibodies with far more counts than its genes."""
    sdata = make_sdata()
    table = sdata["counts"]
    x = table.X.toarray()
    x[:, 0] = 3
    x[:, 8:] = 1000 * np.random.default_rng(0).poisson(5, (len(x), 4))
    table.X = sp.csr_matrix(x)
    table.var[column] = pd.Categorical(np.repeat(list(kinds), [8, 4]))
    return sdata


@pytest.mark.parametrize(
    "kinds",
    [("Gene Expression", "Antibody Capture"), ("gene_expression", "Negative Control Probe"), ("Gene Expression", "")],
)
@pytest.mark.parametrize("column", ["feature_types", "feature_type"])
def test_features_that_are_no_genes_leave_the_library_size(kinds, column):
    sdata = with_antibodies(kinds, column)
    (section,) = read_sections(sdata)
    genes = sdata["counts"][:, :8].X.toarray()[section.rows]
    names = list(gene_names(sdata["counts"])[:8])
    found = read_expression(
        section, np.arange(len(section)), genes=names, normalization=Normalization(), gene_symbols=None
    )
    np.testing.assert_allclose(found, np.log1p(1e4 * genes / genes.sum(axis=1, keepdims=True)), rtol=1e-5)


def test_features_that_are_no_genes_are_not_modeled_and_said(caplog):
    sdata = with_antibodies()
    with caplog.at_level(logging.WARNING, "sthisto"):
        model = sth.tl.fit(sdata, method="mean", patch_size=16)
    assert set(model.genes) <= {f"gene{i}" for i in range(8)}
    assert "4 of 12 features are no genes, such as 'gene8', 'gene9', 'gene10'" in caplog.text
    with pytest.raises(ValueError, match=r"'gene9' are no genes by var\['feature_types'\]"):
        sth.tl.fit(sdata, method="mean", patch_size=16, genes=["gene1", "gene9"])


def test_a_column_that_calls_nothing_a_gene_is_left_aside(sdata):
    sdata["counts"].var["feature_types"] = "Probe"
    assert is_gene(sdata["counts"]).all()


def test_sections_that_were_cut_to_different_panels_are_warned_of(caplog):
    whole, cut = make_sdata(n_genes=30), make_sdata(n_genes=30)
    cut.tables["counts"] = cut["counts"][:, :10].copy()
    with caplog.at_level(logging.WARNING, "sthisto"):
        sth.tl.fit([whole, cut], method="mean", patch_size=16, genes=["gene1"])
    assert "has counts of 10 genes, section '0:spots' of 30" in caplog.text


def test_sections_of_one_panel_are_not_warned_of(two_regions, caplog):
    with caplog.at_level(logging.WARNING, "sthisto"):
        sth.tl.fit(two_regions, method="mean", patch_size=16, genes=["gene1"])
    assert "another scale" not in caplog.text


# Memory


def test_a_layer_that_does_not_fit_is_refused_before_anything_is_encoded(sdata, monkeypatch):
    model = sth.tl.fit(sdata, method="mean", patch_size=16, genes=["gene1"])
    monkeypatch.setattr("sthisto._sdata.new_tables.available_memory", lambda: 35 * 12 * 4)
    monkeypatch.setattr(type(model), "predict", None)
    with pytest.raises(MemoryError, match=r"1 genes as a layer over all genes of the table \(35 x 12\).*new_table_key"):
        sth.tl.predict(sdata, model)


def test_a_table_of_the_modeled_genes_needs_no_layer(sdata, monkeypatch):
    model = sth.tl.fit(sdata, method="mean", patch_size=16, genes=["gene1"])
    monkeypatch.setattr("sthisto._sdata.new_tables.available_memory", lambda: 1)
    sth.tl.predict(sdata, model, new_table_key="predicted")
    assert sdata["predicted"].shape == (35, 1)


def test_a_large_layer_that_is_mostly_nan_is_warned_of(sdata, monkeypatch, caplog):
    model = sth.tl.fit(sdata, method="mean", patch_size=16, genes=["gene1"])
    monkeypatch.setattr("sthisto._sdata.new_tables._LARGE_BYTES", 100)
    with caplog.at_level(logging.WARNING, "sthisto"):
        sth.tl.predict(sdata, model)
    assert "nearly all of it NaN. Pass new_table_key" in caplog.text


def test_several_values_of_one_gene_are_refused(sdata):
    """As a store whose chunks of indices are missing gives them: all values are of the first gene."""
    table = sdata["counts"]
    table.X = sp.csr_matrix((table.X.data, np.zeros_like(table.X.indices), table.X.indptr), table.X.shape)
    (section,) = read_sections(sdata)
    with pytest.raises(ValueError, match=r"values beside another one of the same spot and gene.*copied in part"):
        read_rows(section, None)


@pytest.mark.parametrize("format_", ["unsorted", "explicit zeros"])
def test_unsorted_or_stored_zeros_are_read(sdata, format_):
    table = sdata["counts"]
    dense = table.X.toarray()
    if format_ == "unsorted":
        indices = np.concatenate([np.arange(dense.shape[1])[::-1]] * len(dense))
        indptr = np.arange(len(dense) + 1) * dense.shape[1]
        table.X = sp.csr_matrix((dense[:, ::-1].ravel(), indices, indptr), dense.shape)
    else:
        table.X = sp.csr_matrix(
            (dense.ravel(), np.tile(np.arange(dense.shape[1]), len(dense)), np.arange(len(dense) + 1) * dense.shape[1]),
            dense.shape,
        )
    (section,) = read_sections(sdata)
    np.testing.assert_array_equal(read_rows(section, None).toarray(), dense[section.rows])


def test_rows_of_one_spot_are_refused(sdata):
    """As a store whose chunk of instances is missing gives them: all spots would be predicted as the first."""
    sdata["counts"].obs["instance"] = 100
    with pytest.raises(
        ValueError, match=r"rows of the table are of the instance 100 of 'spots'.*copied in part.*obs\['instance'\]"
    ):
        read_sections(sdata)


def test_a_few_rows_of_one_spot_are_told(sdata, caplog):
    instance = sdata["counts"].obs["instance"].to_numpy().copy()
    instance[1] = instance[0]
    sdata["counts"].obs["instance"] = instance
    (section,) = read_sections(sdata)
    assert len(section) == len(instance)
    assert f"Instances of 'spots' with several rows of the table: 1, such as {instance[0]} with 2." in caplog.text
