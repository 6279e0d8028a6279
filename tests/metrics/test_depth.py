import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats
from sklearn.linear_model import LinearRegression

from sthisto import metrics


def log_normalized(counts, totals):
    return np.log1p(counts / totals[:, None] * 1e4)


def test_depth_alone_has_the_raw_score_on_c2_that_the_design_states(c2):
    target = log_normalized(c2.counts, c2.totals)
    assert metrics.depth_pearson(target, c2.totals).mean() == pytest.approx(0.14, abs=0.005)


def test_depth_alone_scores_higher_on_c2_normalized_inside_the_panel(c2):
    in_panel = c2.counts.sum(axis=1)
    kept = in_panel > 0
    target = log_normalized(c2.counts[kept], in_panel[kept])
    assert metrics.depth_pearson(target, in_panel[kept]).mean() == pytest.approx(0.24, abs=0.005)


def test_depth_alone_has_a_residual_score_on_c2_of_about_zero(c2):
    residuals = metrics.pearson_residuals(c2.counts, totals=c2.totals)
    assert abs(metrics.depth_pearson(residuals, c2.totals).mean()) < 0.03


def test_depth_scores_zero_within_its_error_on_residuals_without_signal_but_not_on_log_counts(noise_counts):
    totals = noise_counts.sum(axis=1)
    residuals = metrics.pearson_residuals(noise_counts)
    assert abs(metrics.depth_pearson(residuals, totals).mean()) < 4 / np.sqrt(noise_counts.size)
    assert metrics.depth_pearson(np.log1p(noise_counts), totals).mean() > 0.3


def test_depth_score_equals_scipy_and_leaves_spots_without_counts_out(noise_counts):
    totals = noise_counts.sum(axis=1)
    totals[:3] = 0
    scores = metrics.depth_pearson(sp.csr_matrix(noise_counts), totals)
    assert scores[5] == pytest.approx(stats.pearsonr(noise_counts[3:, 5], np.log(totals[3:])).statistic)


def test_depth_score_refuses_negative_totals_and_is_nan_for_one_spot():
    with pytest.raises(ValueError, match="negative"):
        metrics.depth_pearson([[1.0], [2.0]], [-1, 1])
    assert np.isnan(metrics.depth_pearson([[1.0, 2.0]], [3])).all()
    assert metrics.depth_pearson(np.ones((0, 2)), []).shape == (2,)


def test_spline_keeps_the_training_knots_whatever_it_transforms(rng):
    train = rng.normal(8, 0.5, 300)
    spline = metrics.DepthSpline.fit(train)
    assert spline.knots == pytest.approx(np.quantile(train, [0, 0.25, 0.5, 0.75, 1]))
    test = rng.normal(9, 1, 50)
    np.testing.assert_array_equal(spline.transform(test)[:10], spline.transform(test[:10]))
    with pytest.raises(AttributeError):
        spline.knots = (0.0, 1.0)


def test_spline_fits_smooth_curves_and_goes_on_as_a_line(rng):
    spline = metrics.DepthSpline.fit(rng.uniform(0, 3, 500))
    x = np.linspace(0.1, 2.9, 200)
    fit = LinearRegression().fit(spline.transform(x), np.sin(x))
    np.testing.assert_allclose(fit.predict(spline.transform(x)), np.sin(x), atol=0.01)
    beyond = fit.predict(spline.transform(np.array([4.0, 5.0, 6.0])))
    assert beyond[1] - beyond[0] == pytest.approx(beyond[2] - beyond[1])


def test_spline_leaves_spots_without_counts_out():
    spline = metrics.DepthSpline.fit([1.0, -np.inf, 2.0, 3.0, np.nan])
    assert spline.knots[0] == 1
    assert np.isnan(spline.transform([2.0, -np.inf])).all(axis=1).tolist() == [False, True]
    assert spline.transform([]).shape[0] == 0


@pytest.mark.parametrize("values", [[], [2.0], [2.0, 2.0], [np.nan, 1.0]])
def test_spline_of_too_little_is_refused(values):
    with pytest.raises(ValueError, match="two distinct"):
        metrics.DepthSpline.fit(values)


@pytest.fixture
def confounded(rng):
    covariates = rng.normal(size=(200, 3))
    truth, prediction = (covariates @ rng.normal(size=(3, 8)) + rng.normal(size=(200, 8)) for _ in range(2))
    return truth, prediction, covariates


def test_partial_correlation_is_that_of_the_inverse_covariance(confounded):
    truth, prediction, covariates = confounded
    expected = []
    for t, p in zip(truth.T, prediction.T, strict=True):
        precision = np.linalg.inv(np.cov(np.column_stack([t, p, covariates]).T))
        expected.append(-precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1]))
    np.testing.assert_allclose(metrics.partial_pearson(*confounded), expected)
    np.testing.assert_allclose(metrics.partial_pearson(sp.csr_matrix(truth), prediction, covariates), expected)


def test_partial_correlation_is_that_of_scikit_learns_regression_residuals_gene_by_gene_with_nan(confounded, rng):
    truth, prediction, covariates = confounded
    prediction[rng.random(prediction.shape) < 0.1] = np.nan
    covariates[3] = np.nan
    scores = metrics.partial_pearson(truth, prediction, covariates)
    for gene, (t, p) in enumerate(zip(truth.T, prediction.T, strict=True)):
        k = ~np.isnan(p + covariates.sum(axis=1))
        left = [x[k] - LinearRegression().fit(covariates[k], x[k]).predict(covariates[k]) for x in (t, p)]
        assert scores[gene] == pytest.approx(stats.pearsonr(*left).statistic)


def test_partial_correlation_given_depth_is_zero_for_a_prediction_that_is_only_depth(c2, rng):
    target = log_normalized(c2.counts, c2.totals)
    log_totals = np.log(c2.totals)
    prediction = np.tile(np.sqrt(log_totals)[:, None], target.shape[1]) + rng.normal(0, 0.01, target.shape)
    covariates = metrics.DepthSpline.fit(log_totals).transform(log_totals)
    assert metrics.pearson(target, prediction).mean() > 0.12
    assert abs(metrics.partial_pearson(target, prediction, covariates).mean()) < 0.01


def test_partial_correlation_is_nan_where_the_covariates_leave_nothing(confounded):
    truth, prediction, covariates = confounded
    prediction[:, 2] = covariates @ [1.0, 2.0, 3.0] + 5
    truth[:, 4] = 0.1
    assert np.flatnonzero(np.isnan(metrics.partial_pearson(truth, prediction, covariates))).tolist() == [2, 4]


@pytest.mark.parametrize("n", [0, 1, 5])
def test_partial_correlation_of_no_more_spots_than_covariates_is_nan(confounded, n):
    assert np.isnan(metrics.partial_pearson(*(x[:n] for x in confounded))).all()


def test_partial_correlation_refuses_covariates_of_other_spots(confounded):
    with pytest.raises(ValueError, match="covariates"):
        metrics.partial_pearson(*confounded[:2], confounded[2][:5])
