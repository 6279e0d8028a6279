import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.metrics
from scipy import stats
from sklearn.feature_selection import mutual_info_regression

from sthisto import metrics

PER_GENE = {
    "spearman": lambda t, p: stats.spearmanr(t, p).statistic,
    "r2": sklearn.metrics.r2_score,
    "rmse": sklearn.metrics.root_mean_squared_error,
    "mae": sklearn.metrics.mean_absolute_error,
    "variance_ratio": lambda t, p: np.var(p, ddof=1) / np.var(t, ddof=1),
    "auc": lambda t, p: sklearn.metrics.roc_auc_score(t > 0, p),
}
WITHOUT_SIGNAL = {"spearman": 0.0, "auc": 0.5, "mutual_information": 0.0}
NAN_WHEN_MEASURED_IS_CONSTANT = ["spearman", "r2", "variance_ratio", "auc", "mutual_information"]


@pytest.fixture
def pair(rng):
    truth = rng.poisson(1.5, (250, 12)).astype(float)
    return truth, np.round(truth * 0.5 + rng.normal(size=truth.shape), 1)


@pytest.mark.parametrize("name", PER_GENE)
def test_score_equals_the_reference_for_each_gene(pair, name):
    expected = [PER_GENE[name](t, p) for t, p in zip(pair[0].T, pair[1].T, strict=True)]
    np.testing.assert_allclose(getattr(metrics, name)(*pair), expected, rtol=1e-10)


@pytest.mark.parametrize("name", PER_GENE)
def test_score_leaves_nan_out_gene_by_gene(pair, name, rng):
    truth, prediction = pair
    prediction[rng.random(truth.shape) < 0.3] = np.nan
    kept = ~np.isnan(prediction)
    expected = [PER_GENE[name](truth[k, g], prediction[k, g]) for g, k in enumerate(kept.T)]
    np.testing.assert_allclose(getattr(metrics, name)(truth, prediction), expected, rtol=1e-10)


@pytest.mark.parametrize("name", [*PER_GENE, "mutual_information"])
def test_sparse_measurements_score_like_dense_ones(pair, name):
    score = getattr(metrics, name)
    np.testing.assert_allclose(score(sp.csr_matrix(pair[0]), pair[1]), score(*pair), rtol=1e-12)
    np.testing.assert_allclose(score(sp.csc_array(pair[0]), pair[1]), score(*pair), rtol=1e-12)


@pytest.mark.parametrize(("name", "value"), WITHOUT_SIGNAL.items())
def test_without_signal_the_mean_score_is_that_of_chance(rng, name, value):
    score = getattr(metrics, name)(rng.poisson(1.0, (400, 300)), rng.normal(size=(400, 300)))
    assert abs(score.mean() - value) < 4 * score.std() / np.sqrt(300)


def test_without_signal_a_prediction_of_the_right_spread_has_an_r2_of_minus_one(rng):
    assert metrics.r2(*rng.normal(size=(2, 400, 300))).mean() == pytest.approx(-1, abs=0.02)


@pytest.mark.parametrize("name", [*PER_GENE, "mutual_information"])
@pytest.mark.parametrize("shape", [(0, 3), (4, 0)])
def test_no_spots_give_nan_and_no_genes_give_nothing(name, shape):
    score = getattr(metrics, name)(np.ones(shape), np.ones(shape))
    assert score.shape == (shape[1],)
    assert np.isnan(score).all()


@pytest.mark.parametrize("name", NAN_WHEN_MEASURED_IS_CONSTANT)
@pytest.mark.parametrize("n_spots", [1, 6])
def test_constant_measurements_and_single_spots_are_nan(name, n_spots, rng):
    assert np.isnan(getattr(metrics, name)(np.full((n_spots, 2), 0.1), rng.normal(size=(n_spots, 2)))).all()


@pytest.mark.parametrize("name", [*PER_GENE, "mutual_information"])
def test_a_gene_that_is_not_predicted_is_nan(pair, name):
    pair[1][:, 4] = np.nan
    assert np.flatnonzero(np.isnan(getattr(metrics, name)(*pair))).tolist() == [4]


def test_auc_counts_values_above_the_threshold(pair):
    expected = [sklearn.metrics.roc_auc_score(t > 1, p) for t, p in zip(pair[0].T, pair[1].T, strict=True)]
    np.testing.assert_allclose(metrics.auc(*pair, threshold=1), expected)


def test_mutual_information_is_the_binned_one_less_its_expected_bias(rng):
    t, p = rng.normal(size=(2, 800))
    p += t
    by_rank = [(stats.rankdata(x) * 8 / 800.001).astype(int) for x in (t, p)]
    expected = sklearn.metrics.mutual_info_score(*by_rank) - 49 / 1600
    assert metrics.mutual_information(t[:, None], p[:, None])[0] == pytest.approx(expected, abs=1e-12)


def test_mutual_information_is_near_the_known_one_of_normal_variables_and_near_scikit_learns(rng):
    t = rng.normal(size=(5000, 1))
    p = 0.8 * t + 0.6 * rng.normal(size=t.shape)
    found = metrics.mutual_information(t, p, n_bins=16)[0]
    assert found == pytest.approx(-0.5 * np.log(1 - 0.8**2), abs=0.05)
    assert found == pytest.approx(mutual_info_regression(t, p[:, 0], random_state=0)[0], abs=0.05)


def test_mutual_information_sees_what_correlation_does_not(rng):
    t = rng.normal(size=(2000, 1))
    assert abs(metrics.spearman(t, t**2)[0]) < 0.1
    assert metrics.mutual_information(t, t**2)[0] > 1


def test_spot_pearson_equals_scipy_for_each_spot(pair):
    truth, prediction = pair
    prediction[5, 3] = np.nan
    prediction[9] = np.nan
    kept = np.arange(12) != 3
    score = metrics.spot_pearson(truth, prediction)
    assert score[0] == pytest.approx(stats.pearsonr(truth[0], prediction[0]).statistic)
    assert score[5] == pytest.approx(stats.pearsonr(truth[5, kept], prediction[5, kept]).statistic)
    assert np.flatnonzero(np.isnan(score)).tolist() == [9]
    np.testing.assert_allclose(metrics.spot_pearson(sp.csr_matrix(truth), prediction), score)


def test_spot_pearson_without_signal_is_zero_within_its_error(rng):
    assert abs(metrics.spot_pearson(*rng.normal(size=(2, 500, 400))).mean()) < 4 / np.sqrt(500 * 400)


@pytest.mark.parametrize("name", ["mean_proportions", "sd_proportions"])
def test_proportions_sum_to_one_leave_nan_out_and_take_sparse_matrices(pair, name):
    shares = getattr(metrics, name)
    truth, _ = pair
    np.testing.assert_allclose(shares(sp.csr_matrix(truth)), shares(truth))
    missing = np.column_stack([truth, np.full(len(truth), np.nan)])
    missing = np.vstack([missing, np.full(missing.shape[1], np.nan)])
    np.testing.assert_allclose(shares(missing)[:-1], shares(truth))
    assert np.isnan(shares(missing)[-1])
    assert shares(truth).sum() == pytest.approx(1)


@pytest.mark.parametrize("name", ["mean_proportions", "sd_proportions"])
@pytest.mark.parametrize("x", [np.zeros((3, 2)), np.ones((0, 2))])
def test_proportions_of_nothing_are_nan(name, x):
    assert np.isnan(getattr(metrics, name)(x)).all()


def test_gene_correlation_agreement_equals_numpys_over_pairs_of_genes(rng):
    truth, prediction = (rng.normal(size=(80, 5)) @ rng.normal(size=(5, 30)) for _ in range(2))
    pairs = np.triu_indices(30, k=1)
    expected = np.corrcoef(np.corrcoef(truth.T)[pairs], np.corrcoef(prediction.T)[pairs])[0, 1]
    assert metrics.gene_correlation_agreement(truth, prediction) == pytest.approx(expected)
    assert metrics.gene_correlation_agreement(sp.csr_matrix(truth), prediction) == pytest.approx(expected)


def test_gene_correlation_agreement_over_many_blocks_of_genes_equals_numpys(rng):
    truth = rng.normal(size=(40, 1100))
    prediction = truth + rng.normal(size=truth.shape)
    pairs = np.triu_indices(1100, k=1)
    expected = np.corrcoef(np.corrcoef(truth.T)[pairs], np.corrcoef(prediction.T)[pairs])[0, 1]
    assert metrics.gene_correlation_agreement(truth, prediction) == pytest.approx(expected)


def test_gene_correlation_agreement_is_one_for_the_same_structure_and_zero_without(rng):
    truth = rng.normal(size=(500, 5)) @ rng.normal(size=(5, 100))
    assert metrics.gene_correlation_agreement(truth, truth * rng.uniform(1, 9, 100)) == pytest.approx(1)
    assert abs(metrics.gene_correlation_agreement(truth, rng.normal(size=truth.shape))) < 0.06


def test_gene_correlation_agreement_leaves_unpredicted_spots_and_genes_and_constant_genes_out(rng):
    truth = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 10))
    prediction = truth + rng.normal(size=truth.shape)
    expected = metrics.gene_correlation_agreement(truth[5:, 2:], prediction[5:, 2:])
    prediction[:5] = np.nan
    prediction[:, 0] = np.nan
    prediction[5:, 1] = 3.0
    assert metrics.gene_correlation_agreement(truth, prediction) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (5, 1)])
def test_gene_correlation_agreement_of_too_little_is_nan(shape):
    assert np.isnan(metrics.gene_correlation_agreement(np.ones(shape), np.ones(shape)))
