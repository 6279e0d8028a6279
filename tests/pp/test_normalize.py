import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from builders import Region, make_sdata
from tissue import make_tissue, rows_of

import sthisto as sth


@pytest.fixture
def tissue():
    return make_tissue()


@pytest.mark.parametrize(
    "as_matrix", [sp.csr_matrix, sp.csr_array, sp.csc_matrix, np.asarray], ids=lambda f: f.__name__
)
def test_log1p_equals_scanpy(tissue, as_matrix):
    table = tissue["counts"]
    dense = table.X.toarray()
    table.X = as_matrix(dense)
    sth.pp.normalize(tissue, target_sum=500)
    expected = ad.AnnData(dense)
    sc.pp.normalize_total(expected, target_sum=500)
    sc.pp.log1p(expected)
    assert table.layers["log1p"].dtype == np.float32
    np.testing.assert_allclose(table.layers["log1p"].toarray(), expected.X, rtol=1e-6)


def test_counts_stay_as_they_are(tissue):
    before = tissue["counts"].X.toarray()
    sth.pp.normalize(tissue)
    np.testing.assert_array_equal(tissue["counts"].X.toarray(), before)


def test_pearson_residuals_equal_scanpys_of_each_section(tissue):
    table = tissue["counts"]
    sth.pp.normalize(tissue, target="pearson_residuals", key_added="residuals")
    for region in ("A", "B"):
        expected = ad.AnnData(table.X[rows_of(tissue, region)].toarray())
        sc.experimental.pp.normalize_pearson_residuals(expected)
        np.testing.assert_allclose(table.layers["residuals"][rows_of(tissue, region)], expected.X, rtol=1e-4, atol=1e-5)


def test_residuals_of_spots_off_tissue_are_nan_and_take_no_part():
    in_tissue = np.ones(len(Region().centers), dtype=int)
    in_tissue[:5] = 0
    sdata = make_sdata(Region(in_tissue=in_tissue))
    sth.pp.normalize(sdata, target="pearson_residuals")
    off = (sdata["counts"].obs["in_tissue"] == 0).to_numpy()
    residuals = sdata["counts"].layers["pearson_residuals"]
    assert np.isnan(residuals[off]).all()
    expected = ad.AnnData(sdata["counts"].X[~off].toarray())
    sc.experimental.pp.normalize_pearson_residuals(expected)
    np.testing.assert_allclose(residuals[~off], expected.X, rtol=1e-4, atol=1e-5)


def test_spots_without_counts_are_zero_without_a_warning(tissue):
    table = tissue["counts"]
    table.X[3] = 0
    sth.pp.normalize(tissue)
    assert table.layers["log1p"][3].sum() == 0


def test_counts_of_a_layer_are_read_and_never_overwritten(tissue):
    table = tissue["counts"]
    table.layers["raw"] = table.X.copy()
    table.X = table.X * 0.5
    with pytest.raises(ValueError, match=r"X holds no raw counts.*Pass layer"):
        sth.pp.normalize(tissue)
    with pytest.raises(ValueError, match="the counts would be lost"):
        sth.pp.normalize(tissue, layer="raw", key_added="raw")
    sth.pp.normalize(tissue, layer="raw")
    assert set(table.layers) - {None} == {"raw", "log1p"}


def test_nothing_is_written_when_one_of_a_cohort_holds_no_counts():
    cohort = [make_tissue(["A"]), make_tissue(["B"])]
    cohort[1]["counts"].X = cohort[1]["counts"].X * 0.5
    with pytest.raises(ValueError, match="no raw counts"):
        sth.pp.normalize(cohort)
    assert "log1p" not in cohort[0]["counts"].layers


def test_unknown_target_is_refused(tissue):
    with pytest.raises(ValueError, match="'log1p', 'pearson_residuals'"):
        sth.pp.normalize(tissue, target="as_is")
