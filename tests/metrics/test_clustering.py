import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score, homogeneity_score, normalized_mutual_info_score

from sthisto import metrics

SCORES = ["cluster_ari", "cluster_nmi", "cluster_homogeneity"]


@pytest.fixture
def groups(rng):
    """Three groups of spots that differ in 40 genes, and their labels."""
    labels = np.repeat(["tumor", "stroma", "immune"], [60, 50, 40])
    means = dict(zip(np.unique(labels), rng.normal(size=(3, 40)) * 3, strict=True))
    return np.stack([means[name] for name in labels]) + rng.normal(size=(150, 40)), labels


@pytest.mark.parametrize("method", ["kmeans", "leiden"])
@pytest.mark.parametrize("score", SCORES)
def test_groups_that_are_there_are_found(groups, method, score):
    assert getattr(metrics, score)(*groups, method=method) == 1


@pytest.mark.parametrize("method", ["kmeans", "leiden"])
def test_without_signal_the_adjusted_index_is_zero_within_its_error(rng, method):
    x = rng.normal(size=(150, 20))
    scores = [metrics.cluster_ari(x, rng.integers(0, 3, 150), n_clusters=3, method=method) for _ in range(10)]
    assert abs(np.mean(scores)) < 0.01


@pytest.mark.parametrize(
    ("score", "reference"),
    list(zip(SCORES, [adjusted_rand_score, normalized_mutual_info_score, homogeneity_score], strict=True)),
)
def test_scores_are_scikit_learns_of_the_clusters(groups, rng, score, reference):
    x, _ = groups
    labels = rng.integers(0, 4, len(x))
    assert getattr(metrics, score)(x, labels) == pytest.approx(reference(labels, metrics.cluster(x, 4)))


def test_excluded_and_missing_labels_are_left_out_before_the_components(groups):
    x, labels = groups
    wild = np.vstack([x, 1e4 * np.eye(4, 40)])
    extended = [*labels, "undetermined", "undetermined", None, float("nan")]
    assert metrics.cluster_ari(wild, extended) == 1
    assert metrics.cluster_ari(wild[:-2], extended[:-2], exclude=None) < 0.9
    assert metrics.cluster_ari(x, labels, exclude=["immune", "absent"]) == 1


def test_categorical_labels_are_taken(groups):
    import pandas as pd

    assert metrics.cluster_ari(groups[0], pd.Series(groups[1], dtype="category")) == 1


def test_spots_and_genes_that_are_not_predicted_are_left_out(groups):
    x, labels = groups
    expected = metrics.cluster(x[5:, 1:], 3)
    x[:5] = np.nan
    x[:, 0] = np.nan
    clusters = metrics.cluster(x, 3)
    assert (clusters[:5] == -1).all()
    np.testing.assert_array_equal(clusters[5:], expected)
    assert metrics.cluster_ari(x, labels) == 1


@pytest.mark.parametrize("method", ["kmeans", "leiden"])
def test_sparse_expression_clusters_like_dense(rng, method):
    x = rng.poisson(1.0, (80, 12)).astype(np.float32)
    np.testing.assert_array_equal(
        metrics.cluster(sp.csr_matrix(x), 3, method=method), metrics.cluster(x, 3, method=method)
    )


@pytest.mark.parametrize("method", ["kmeans", "leiden"])
def test_the_seed_fixes_the_clusters_and_leaves_the_global_state_alone(rng, method):
    x = rng.normal(size=(100, 10))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(metrics.cluster(x, 4, method=method), metrics.cluster(x, 4, method=method))
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_leiden_finds_the_number_of_groups_itself(groups):
    clusters = metrics.cluster(groups[0], method="leiden", resolution=0.5)
    assert adjusted_rand_score(groups[1], clusters) == 1


@pytest.mark.parametrize("n_clusters", [2, 3, 5, 8])
def test_leiden_reaches_the_number_that_is_asked_for(rng, n_clusters):
    clusters = metrics.cluster(rng.normal(size=(200, 15)), n_clusters, method="leiden")
    assert len(np.unique(clusters)) == n_clusters


def test_leiden_says_when_it_does_not_reach_a_number(groups):
    with pytest.raises(ValueError, match="no resolution with 151"):
        metrics.cluster(groups[0], 151, method="leiden")


def test_kmeans_needs_a_possible_number(groups):
    for number in (None, 0, 151):
        with pytest.raises(ValueError, match="n_clusters"):
            metrics.cluster(groups[0], number)
    with pytest.raises(ValueError, match="method"):
        metrics.cluster(groups[0], 3, method="louvain")


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (5, 1), (5, 0)])
def test_too_little_to_cluster_is_refused(shape, rng):
    with pytest.raises(ValueError, match="at least two"):
        metrics.cluster(rng.normal(size=shape), 1)


def test_labels_of_too_few_spots_are_refused(groups):
    with pytest.raises(ValueError, match="Fewer than two spots"):
        metrics.cluster_ari(groups[0], ["undetermined"] * 149 + ["tumor"])
    with pytest.raises(ValueError, match="labels"):
        metrics.cluster_ari(groups[0], groups[1][:7])


def test_labels_of_every_kind_may_be_missing():
    import pandas as pd

    x = np.repeat([[0.0, 5.0, 1.0], [9.0, 1.0, 2.0]], 4, axis=0) + np.eye(8, 3)
    labels = ["tumor"] * 3 + [None] + ["stroma"] * 3 + [None]
    for dtype in (object, "string", "category"):
        assert metrics.cluster_ari(x, pd.Series(labels, dtype=dtype)) == 1.0
