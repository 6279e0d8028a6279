import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

from sthisto._sdata.expression import Normalization, looks_like_counts


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    matrix = rng.poisson(rng.gamma(0.3, 3, 40) + 0.5, (60, 40)).astype(np.float32)
    matrix[5] = 0
    return sp.csr_array(matrix)


@pytest.mark.filterwarnings("ignore:Some cells have zero counts:UserWarning")
@pytest.mark.parametrize("columns", [None, np.array([7, 0, 31])])
@pytest.mark.parametrize("target_sum", [1e4, 1e6])
def test_log1p_agrees_with_scanpy_over_all_genes(counts, columns, target_sum):
    table = ad.AnnData(counts.toarray())
    sc.pp.normalize_total(table, target_sum=target_sum)
    sc.pp.log1p(table)
    expected = table.X if columns is None else table.X[:, columns]
    values = Normalization(target_sum=target_sum)(counts, columns)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, rtol=2e-6)
    assert (values[5] == 0).all()


def test_pearson_residuals_agree_with_scanpy(counts):
    with_counts = np.flatnonzero(counts.sum(axis=1) > 0)
    table = ad.AnnData(counts.toarray()[with_counts])
    sc.experimental.pp.normalize_pearson_residuals(table)
    values = Normalization("pearson_residuals")(counts)
    np.testing.assert_allclose(values[with_counts], table.X, rtol=1e-4, atol=1e-5)
    assert np.isnan(values[5]).all()


def test_as_is_returns_the_values(counts):
    shifted = sp.csr_array(counts.toarray() - 0.5)
    np.testing.assert_array_equal(Normalization("as_is")(shifted, np.array([3, 1])), shifted.toarray()[:, [3, 1]])


def test_the_counts_stay_as_they_were(counts):
    before = counts.copy()
    for target in ("log1p", "pearson_residuals", "as_is"):
        Normalization(target)(counts, np.array([1, 2]))
    np.testing.assert_array_equal(counts.toarray(), before.toarray())


@pytest.mark.parametrize("target", ["log1p", "pearson_residuals"])
def test_negative_values_are_no_counts(counts, target):
    counts.data[3] = -2.5
    with pytest.raises(ValueError, match=rf"target='{target}' needs counts, but layer 'scaled' holds .* -2.5.*layer="):
        Normalization(target, "scaled")(counts)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("target", ["log1p", "pearson_residuals", "as_is"])
def test_values_that_are_not_finite_are_refused_even_in_other_genes(counts, value, target):
    counts.data[-1] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        Normalization(target)(counts, np.array([0]))
    with pytest.raises(ValueError, match="NaN or infinite"):
        looks_like_counts(counts)


@pytest.mark.parametrize("store", [np.asarray, sp.csr_array, sp.csc_matrix])
def test_counts_are_recognized_dense_or_sparse(counts, store):
    assert looks_like_counts(store(counts.toarray()))
    assert not looks_like_counts(store(np.log1p(counts.toarray())))
    assert not looks_like_counts(store(-counts.toarray()))


def test_one_value_anywhere_tells_that_these_are_no_counts():
    values = np.ones((1000, 600), dtype=np.float32)
    assert looks_like_counts(values)
    values[-1, -1] = 0.5
    assert not looks_like_counts(values)


def test_integers_and_nothing_at_all_are_counts():
    assert looks_like_counts(np.arange(6).reshape(2, 3))
    assert looks_like_counts(sp.csr_array((5, 4)))


@pytest.mark.parametrize(
    "normalization", [Normalization(), Normalization("as_is", "scaled"), Normalization(target_sum=1e6)]
)
def test_a_record_says_all_that_was_done(normalization):
    record = normalization.record()
    assert all(isinstance(value, str | float) for value in record.values())
    assert Normalization.from_record(record) == normalization


def test_an_unknown_target_is_refused():
    with pytest.raises(ValueError, match=r"`target` is 'sqrt'.*'log1p', 'pearson_residuals', 'as_is'"):
        Normalization("sqrt")
