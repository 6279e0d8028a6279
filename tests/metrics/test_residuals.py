import numpy as np
import pytest
import scipy.sparse as sp

from sthisto import metrics


def scanpy_residuals(counts, **options):
    import anndata as ad
    import scanpy as sc

    table = ad.AnnData(np.asarray(counts, dtype=float))
    return sc.experimental.pp.normalize_pearson_residuals(table, inplace=False, **options)["X"]


@pytest.mark.parametrize("options", [{}, {"theta": 10.0}, {"clip": 1.5}, {"theta": np.inf}])
def test_residuals_of_all_genes_equal_scanpys(noise_counts, options):
    np.testing.assert_allclose(
        metrics.pearson_residuals(noise_counts, **options), scanpy_residuals(noise_counts, **options), atol=1e-10
    )


def test_residuals_of_a_panel_with_all_gene_depth_are_those_of_all_genes(noise_counts):
    panel = [3, 50, 7]
    residuals = metrics.pearson_residuals(noise_counts[:, panel], totals=noise_counts.sum(axis=1))
    np.testing.assert_allclose(residuals, scanpy_residuals(noise_counts)[:, panel], atol=1e-10)
    assert not np.allclose(residuals, metrics.pearson_residuals(noise_counts[:, panel]))


def test_spots_without_counts_are_nan_and_change_nothing_else(noise_counts):
    with_empty = np.insert(noise_counts, [0, 40], 0, axis=0)
    residuals = metrics.pearson_residuals(with_empty, clip=None)
    empty = with_empty.sum(axis=1) == 0
    assert np.isnan(residuals[empty]).all()
    np.testing.assert_allclose(residuals[~empty], scanpy_residuals(noise_counts), atol=1e-10)


def test_a_spot_with_counts_outside_the_panel_only_is_measured(noise_counts):
    counts = noise_counts.copy()
    counts[0] = 0
    totals = counts.sum(axis=1)
    totals[0] = 500
    residuals = metrics.pearson_residuals(counts, totals=totals)
    assert (residuals[0] <= 0).all()
    assert residuals[0].min() < 0


def test_a_gene_without_counts_is_zero_and_has_no_score(noise_counts, rng):
    noise_counts[:, 4] = 0
    assert (metrics.pearson_residuals(noise_counts)[:, 4] == 0).all()
    scores = metrics.residual_pearson(noise_counts, rng.normal(size=noise_counts.shape))
    assert np.flatnonzero(np.isnan(scores)).tolist() == [4]


def test_residuals_are_clipped_at_the_root_of_the_number_of_spots():
    counts = np.ones((16, 30), dtype=int)
    counts[0, 0] = 10_000
    assert metrics.pearson_residuals(counts, totals=np.full(16, 20_000)).max() == 4


@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_array])
def test_sparse_counts_give_the_same_residuals(noise_counts, layout):
    totals = noise_counts.sum(axis=1) + 7
    np.testing.assert_allclose(
        metrics.pearson_residuals(layout(noise_counts), totals=totals),
        metrics.pearson_residuals(noise_counts, totals=totals),
    )


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (4, 0)])
def test_residuals_of_little_have_its_shape(shape):
    assert metrics.pearson_residuals(np.ones(shape), totals=np.full(shape[0], 9)).shape == shape
    assert np.isnan(metrics.residual_pearson(np.ones(shape), np.ones(shape))).all()


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_what_is_not_a_count_is_refused(bad):
    with pytest.raises(ValueError, match="raw counts"):
        metrics.pearson_residuals([[1.0, bad]])
    with pytest.raises(ValueError, match="raw counts"):
        metrics.pearson_residuals(sp.csr_matrix([[1.0, bad]]))


def test_totals_below_the_counts_are_refused(noise_counts):
    with pytest.raises(ValueError, match="over all genes"):
        metrics.pearson_residuals(noise_counts, totals=noise_counts.sum(axis=1) - 1)
    with pytest.raises(ValueError, match="one value for each"):
        metrics.pearson_residuals(noise_counts, totals=[1, 2])
    with pytest.raises(ValueError, match="theta"):
        metrics.pearson_residuals(noise_counts, theta=0)


def test_residual_score_is_that_of_the_residuals_and_leaves_unpredicted_spots_out(noise_counts, rng):
    prediction = rng.normal(size=noise_counts.shape)
    prediction[:20] = np.nan
    residuals = scanpy_residuals(noise_counts)
    np.testing.assert_allclose(
        metrics.residual_pearson(noise_counts, prediction), metrics.pearson(residuals[20:], prediction[20:])
    )


def test_residual_score_without_signal_is_zero_within_its_error_even_for_the_true_depth(noise_counts, rng):
    depth = np.log(noise_counts.sum(axis=1))[:, None]
    error = 4 / np.sqrt(noise_counts.size)
    assert abs(metrics.residual_pearson(noise_counts, rng.normal(size=noise_counts.shape)).mean()) < error
    assert abs(metrics.residual_pearson(noise_counts, np.tile(depth, 200)).mean()) < error
