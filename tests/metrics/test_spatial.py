import numpy as np
import pytest
import scipy.sparse as sp
from skimage.metrics import structural_similarity

from sthisto import metrics

SIDE = 15


def grid(side=SIDE):
    return np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), axis=-1).reshape(-1, 2)


@pytest.fixture
def graph():
    return metrics.spatial_graph(grid(), radius=1)


def test_radius_links_exactly_the_spots_within_it(graph):
    distance = np.abs(grid()[:, None] - grid()).sum(axis=2)
    np.testing.assert_array_equal(graph.toarray(), distance == 1)


def test_nearest_neighbors_are_linked_in_both_directions_and_to_at_least_as_many(rng):
    graph = metrics.spatial_graph(rng.uniform(size=(60, 2)), n_neighbors=5)
    assert (graph != graph.T).nnz == 0
    assert (graph.sum(axis=1) >= 5).all()
    assert (graph.diagonal() == 0).all()


def test_spots_of_different_sections_are_never_linked(rng):
    section = rng.integers(0, 2, 60)
    graph = metrics.spatial_graph(rng.uniform(size=(60, 2)), section=section).tocoo()
    assert graph.nnz
    assert (section[graph.row] == section[graph.col]).all()


@pytest.mark.parametrize("n", [0, 1, 2])
def test_graph_of_few_spots_links_what_there_is(n):
    assert metrics.spatial_graph(np.arange(2 * n, dtype=float).reshape(n, 2)).nnz == (2 if n == 2 else 0)


def test_graph_refuses_bad_coordinates():
    with pytest.raises(ValueError, match="n_spots, 2"):
        metrics.spatial_graph([[0.0, 1.0, 2.0]])
    with pytest.raises(ValueError, match="finite"):
        metrics.spatial_graph([[0.0, np.nan]])
    with pytest.raises(ValueError, match="radius"):
        metrics.spatial_graph(grid(), radius=0)


@pytest.mark.filterwarnings("ignore:.*is not a valid key:SyntaxWarning")
@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # squidpy 1.8 with pandas 3.1
def test_morans_i_equals_scanpys_and_squidpys(rng, graph):
    import anndata as ad
    import scanpy as sc
    import squidpy as sq

    values = rng.normal(size=(SIDE**2, 6)) + grid()[:, :1] * np.arange(6) / 10
    np.testing.assert_allclose(
        metrics.morans_i(values, graph), sc.metrics.morans_i(sp.csr_matrix(graph), values.T), rtol=1e-6
    )
    rows = sp.csr_matrix(graph.multiply(1 / graph.sum(axis=1)[:, None]))
    table = ad.AnnData(values, obsp={"spatial_connectivities": sp.csr_matrix(graph)})
    sq.gr.spatial_autocorr(table, mode="moran", show_progress_bar=False)
    np.testing.assert_allclose(
        metrics.morans_i(values, rows), table.uns["moranI"].loc[table.var_names, "I"].to_numpy(), rtol=1e-6
    )


def test_morans_i_without_structure_is_its_expectation_and_with_a_gradient_near_one(rng, graph):
    scores = metrics.morans_i(rng.normal(size=(SIDE**2, 400)), graph)
    assert abs(scores.mean() + 1 / (SIDE**2 - 1)) < 4 * scores.std() / 20
    assert metrics.morans_i(grid()[:, :1], graph)[0] > 0.9


def test_morans_i_leaves_nan_spots_out_with_their_links(rng, graph):
    values = rng.normal(size=(SIDE**2, 2))
    kept = rng.random(SIDE**2) < 0.7
    expected = metrics.morans_i(values[kept], graph[kept][:, kept])
    values[~kept, 0] = np.nan
    scores = metrics.morans_i(values, graph)
    assert scores[0] == pytest.approx(expected[0])
    assert scores[1] != pytest.approx(expected[1])


def test_morans_i_takes_sparse_values_and_is_nan_for_constant_genes_and_without_links(rng, graph):
    values = rng.poisson(0.5, (SIDE**2, 3)).astype(float)
    values[:, 1] = 0.1
    scores = metrics.morans_i(sp.csr_matrix(values), graph)
    np.testing.assert_allclose(scores, metrics.morans_i(values, graph))
    assert np.isnan(scores).tolist() == [False, True, False]
    assert np.isnan(metrics.morans_i([[1.0]], metrics.spatial_graph([[0, 0]]))).all()
    assert np.isnan(metrics.morans_i(np.ones((0, 2)), metrics.spatial_graph(np.ones((0, 2))))).all()
    with pytest.raises(ValueError, match="graph"):
        metrics.morans_i(values[:5], graph)


def wrapped_graph():
    apart = np.abs(grid()[:, None] - grid())
    apart = np.minimum(apart, SIDE - apart).max(axis=2)
    return sp.csr_array((apart == 1).astype(float))


def skimage_ssim(t, p, **options):
    """Score two maps on a torus: the middle of three by three copies has no border."""
    _, whole = structural_similarity(
        np.tile(t, (3, 3)), np.tile(p, (3, 3)), win_size=3, full=True, use_sample_covariance=False, **options
    )
    return whole[SIDE : 2 * SIDE, SIDE : 2 * SIDE].mean()


def test_ssim_on_a_square_grid_equals_scikit_images(rng):
    truth = rng.poisson(2.0, (SIDE**2, 3)).astype(float)
    prediction = truth * 0.5 + rng.normal(size=truth.shape) + 1
    scores = metrics.ssim(truth, prediction, wrapped_graph())
    for score, t, p in zip(scores, truth.T, prediction.T, strict=True):
        expected = skimage_ssim(t.reshape(SIDE, SIDE), p.reshape(SIDE, SIDE), data_range=np.ptp(t))
        assert score == pytest.approx(expected, abs=1e-10)


def test_ssim_is_one_for_equal_maps_and_near_zero_for_unrelated_ones(rng, graph):
    truth = rng.normal(size=(SIDE**2, 200))
    np.testing.assert_allclose(metrics.ssim(truth, truth, graph), 1)
    assert abs(metrics.ssim(truth, rng.normal(size=truth.shape), graph).mean()) < 0.02


def test_ssim_leaves_nan_spots_out_of_all_windows(rng, graph):
    truth, prediction = rng.normal(size=(2, SIDE**2, 1))
    kept = rng.random(SIDE**2) < 0.7
    expected = metrics.ssim(truth[kept], prediction[kept], graph[kept][:, kept], data_range=5.0)
    prediction[~kept] = np.nan
    assert metrics.ssim(truth, prediction, graph, data_range=5.0) == pytest.approx(expected)
    np.testing.assert_allclose(metrics.ssim(sp.csr_matrix(truth), prediction, graph, data_range=5.0), expected)


def test_ssim_is_nan_for_constant_measurements_and_without_links(rng, graph):
    prediction = rng.normal(size=(SIDE**2, 1))
    assert np.isnan(metrics.ssim(np.full_like(prediction, 0.1), prediction, graph)).all()
    assert np.isnan(metrics.ssim([[1.0]], [[2.0]], metrics.spatial_graph([[0, 0]]), data_range=1.0)).all()
    assert np.isnan(metrics.ssim(np.ones((0, 1)), np.ones((0, 1)), metrics.spatial_graph(np.ones((0, 2))))).all()


def test_blocks_are_squares_of_the_size_and_stay_within_sections():
    coordinates = np.vstack([grid(6), grid(6) + 0.5])
    blocks = metrics.spatial_blocks(coordinates, 3, section=np.repeat(["a", "b"], 36))
    assert np.bincount(blocks).tolist() == [9] * 8
    for block in range(8):
        assert np.ptp(coordinates[blocks == block], axis=0).tolist() == [2, 2]


def test_blocks_refuse_a_size_that_is_not_positive():
    with pytest.raises(ValueError, match="size"):
        metrics.spatial_blocks(grid(), 0)
    assert metrics.spatial_blocks(np.ones((0, 2)), 1).shape == (0,)
