import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from sthisto import metrics


def reference(truth, prediction):
    return np.array([stats.pearsonr(t, p).statistic for t, p in zip(truth.T, prediction.T, strict=True)])


@pytest.fixture
def pair(rng):
    truth = rng.poisson(rng.gamma(1.0, 2.0, (300, 40))).astype(float)
    return truth, truth * 0.3 + rng.normal(size=truth.shape)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8])
def test_pearson_equals_scipy_for_every_number_type(pair, dtype):
    truth, prediction = pair
    np.testing.assert_allclose(metrics.pearson(truth.astype(dtype), prediction), reference(*pair), rtol=1e-10)


@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_matrix, sp.coo_matrix, sp.csr_array, np.asfortranarray])
def test_pearson_does_not_depend_on_the_layout(pair, layout):
    truth, prediction = pair
    np.testing.assert_allclose(metrics.pearson(layout(truth), prediction), reference(*pair), rtol=1e-10)
    np.testing.assert_allclose(metrics.pearson(truth, layout(prediction)), reference(*pair), rtol=1e-10)
    np.testing.assert_allclose(metrics.pearson(layout(truth), layout(prediction)), reference(*pair), rtol=1e-10)


def test_pearson_sums_repeated_entries_of_a_sparse_matrix_and_leaves_it_as_it_was():
    truth = sp.csr_matrix((np.array([1.0, 2.0, 5.0]), np.array([0, 0, 0]), np.array([0, 2, 2, 3])), shape=(3, 1))
    prediction = np.array([[3.0], [0.0], [4.0]])
    np.testing.assert_allclose(metrics.pearson(truth, prediction), reference(truth.toarray(), prediction))
    assert truth.nnz == 3


@pytest.mark.parametrize("layout", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_pearson_over_many_blocks_equals_scipy(rng, layout, dtype):
    truth, prediction = rng.poisson(0.5, (1001, 5000)).astype(dtype), rng.normal(size=(1001, 5000))
    some = slice(None, None, 97)
    np.testing.assert_allclose(
        metrics.pearson(layout(truth), prediction)[some],
        reference(truth[:, some], prediction[:, some]),
        rtol=1e-9,
        atol=1e-14,
    )


@pytest.mark.parametrize("layout", [np.asarray, sp.csr_array])
def test_pearson_keeps_digits_with_a_large_mean_and_a_tiny_variance(rng, layout):
    spread = rng.integers(0, 8, (2000, 5)).astype(float)
    prediction = spread + rng.normal(size=spread.shape)
    # sums of eighths around 2**40 are exact, so that the true correlation is that of the spread
    np.testing.assert_allclose(
        metrics.pearson(layout(2.0**40 + spread / 8), prediction), reference(spread, prediction), rtol=1e-9
    )


def test_pearson_keeps_digits_when_the_first_spot_is_an_outlier(rng):
    truth, prediction = rng.normal(size=(2, 500, 3))
    truth[0] = 1e6
    np.testing.assert_allclose(metrics.pearson(truth, prediction), reference(truth, prediction), rtol=1e-9)


@pytest.mark.parametrize("layout", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e8 / 3])
def test_a_constant_gene_is_nan_without_a_warning(pair, value, layout):
    truth, prediction = pair
    prediction[:, 3] = truth[:, 5] = value
    assert np.flatnonzero(np.isnan(metrics.pearson(layout(truth), prediction))).tolist() == [3, 5]
    assert np.flatnonzero(np.isnan(metrics.pearson(truth, layout(prediction)))).tolist() == [3, 5]


def test_a_gene_that_is_constant_up_to_rounding_is_nan(rng):
    truth = rng.normal(size=(100, 1))
    nearly = np.full((100, 1), 0.1) + np.spacing(0.1) * rng.integers(-1, 2, (100, 1))
    assert np.isnan(metrics.pearson(truth, nearly)).all()


def test_spots_that_are_not_predicted_are_left_out(pair):
    truth, prediction = pair
    prediction[10:90] = np.nan
    kept = np.r_[0:10, 90:300]
    np.testing.assert_allclose(metrics.pearson(truth, prediction), reference(truth[kept], prediction[kept]), rtol=1e-10)
    np.testing.assert_allclose(
        metrics.pearson(sp.csr_matrix(truth), prediction), metrics.pearson(truth, prediction), rtol=1e-12
    )


@pytest.mark.parametrize("layout", [np.asarray, sp.csr_array])
def test_nan_is_left_out_gene_by_gene(pair, rng, layout):
    truth, prediction = pair
    prediction[rng.random(truth.shape) < 0.2] = np.nan
    truth[rng.random(truth.shape) < 0.1] = np.nan
    score = metrics.pearson(layout(truth), prediction)
    for gene in range(truth.shape[1]):
        kept = ~np.isnan(truth[:, gene] + prediction[:, gene])
        assert score[gene] == pytest.approx(stats.pearsonr(truth[kept, gene], prediction[kept, gene]).statistic)


def test_a_gene_that_is_not_predicted_is_nan_and_leaves_the_others_alone(pair):
    truth, prediction = pair
    expected = metrics.pearson(truth, prediction)
    prediction[:, 0] = np.nan
    score = metrics.pearson(truth, prediction)
    assert np.isnan(score[0])
    np.testing.assert_allclose(score[1:], expected[1:])


def test_an_infinite_value_makes_its_gene_nan(pair):
    truth, prediction = pair
    prediction[7, 2] = np.inf
    assert np.flatnonzero(np.isnan(metrics.pearson(truth, prediction))).tolist() == [2]


def test_the_inputs_stay_as_they_were(pair):
    truth, prediction = pair
    prediction[3, 2] = np.nan
    before = truth.copy(), prediction.copy()
    truth.flags.writeable = prediction.flags.writeable = False
    metrics.pearson(truth, prediction)
    np.testing.assert_array_equal((truth, prediction), before)


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (0, 0), (5, 0)])
def test_nothing_or_one_spot_gives_nan_for_every_gene(shape):
    score = metrics.pearson(np.ones(shape), np.ones(shape))
    assert score.shape == (shape[1],)
    assert np.isnan(score).all()


def test_without_signal_the_mean_is_zero_within_its_error(rng):
    score = metrics.pearson(rng.normal(size=(400, 500)), rng.normal(size=(400, 500)))
    assert abs(score.mean()) < 4 / np.sqrt(400 * 500)


def test_a_perfect_prediction_scores_exactly_one(pair):
    truth, _ = pair
    np.testing.assert_allclose(metrics.pearson(truth, 3 * truth - 2), 1.0, rtol=1e-12)
    assert metrics.pearson(truth, truth).max() <= 1


def test_shapes_that_differ_are_refused(pair):
    with pytest.raises(ValueError, match="same spots and genes"):
        metrics.pearson(pair[0], pair[1][:, :3])
    with pytest.raises(ValueError, match="n_spots, n_genes"):
        metrics.pearson(pair[0][0], pair[1][0])
    with pytest.raises(TypeError, match="real numbers"):
        metrics.pearson(pair[0].astype(str), pair[1])


def test_per_section_does_not_count_offsets_between_sections(rng):
    section = np.repeat(["A", "B"], 200)
    offset = np.where(section == "A", 0.0, 10.0)[:, None]
    truth, prediction = (rng.normal(size=(400, 30)) + offset for _ in range(2))
    assert metrics.pearson(truth, prediction).mean() > 0.9
    scores = metrics.per_section(metrics.pearson, truth, prediction, section=section)
    assert list(scores) == ["A", "B"]
    np.testing.assert_allclose(scores["B"], reference(truth[200:], prediction[200:]), rtol=1e-9)
    assert abs(np.mean(list(scores.values()))) < 0.05


def test_per_section_hands_spotwise_arguments_out_by_section(noise_counts, rng):
    section = np.arange(300) % 3
    prediction, totals = rng.normal(size=noise_counts.shape), noise_counts.sum(axis=1)
    scores = metrics.per_section(
        metrics.residual_pearson, noise_counts, prediction, section=section, spotwise={"totals": totals}
    )
    own = section == 1
    np.testing.assert_allclose(
        scores[1], metrics.residual_pearson(noise_counts[own], prediction[own], totals=totals[own])
    )
    with pytest.raises(ValueError, match="one row for each"):
        metrics.per_section(
            metrics.residual_pearson, noise_counts, prediction, section=section, spotwise={"totals": totals[:9]}
        )


def test_sections_may_be_a_column_of_obs():
    import pandas as pd

    truth, prediction = np.random.default_rng(0).normal(size=(2, 8, 3))
    expected = metrics.per_section(metrics.pearson, truth, prediction, section=list("AAAABBBB"))
    for dtype in (object, "category", "string"):
        found = metrics.per_section(
            metrics.pearson, truth, prediction, section=pd.Series(list("AAAABBBB"), dtype=dtype)
        )
        assert list(found) == ["A", "B"]
        np.testing.assert_array_equal(found["B"], expected["B"])
