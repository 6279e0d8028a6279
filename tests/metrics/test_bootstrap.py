import time

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats
from scipy.ndimage import gaussian_filter

from sthisto import metrics

SIDE = 18


@pytest.fixture
def coordinates():
    return np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2)


def field(rng, n_genes, *, smooth):
    """Values of variance about 1 on the grid, alike over about two spots where they are smooth."""
    noise = rng.normal(size=(2 * SIDE, 2 * SIDE, n_genes))
    if smooth:
        noise = 3.5 * gaussian_filter(noise, (1, 1, 0), mode="wrap")
    return noise[:SIDE, :SIDE].reshape(-1, n_genes)


def simulate(seed, *, smooth):
    rng = np.random.default_rng(seed)
    signal, truth_error, a_error, b_error = (field(rng, 10, smooth=smooth) for _ in range(4))
    return signal + truth_error, {"a": signal + a_error, "b": signal + 1.5 * b_error}


def coverage(coordinates, size, *, smooth, n_simulations=120):
    blocks = metrics.spatial_blocks(coordinates, size)
    options = {"n_boot": 200, "blocks": blocks}
    scores, differences = [], []
    for seed in range(n_simulations):
        truth, predictions = simulate(seed, smooth=smooth)
        scores.append(metrics.bootstrap_pearson(truth, predictions, **options)["a"])
        differences.append(metrics.paired_difference(truth, predictions, reference="b", **options)["a"])
    covered = []
    for intervals in (scores, differences):
        expected = np.mean([i.value for i in intervals])
        covered.append(np.mean([i.low <= expected <= i.high for i in intervals]))
    return covered


def test_intervals_of_independent_spots_cover_the_truth_as_often_as_they_say(coordinates):
    assert all(0.9 <= share <= 0.99 for share in coverage(coordinates, 4, smooth=False))


def test_blocks_cover_the_truth_where_neighbors_err_alike_and_single_spots_do_not(coordinates):
    assert all(0.86 <= share <= 0.99 for share in coverage(coordinates, 6, smooth=True))
    assert all(share < 0.75 for share in coverage(coordinates, 1, smooth=True))


def test_value_is_the_mean_pearson_over_genes_and_then_over_sections(rng):
    section = np.repeat(["A", "B"], [60, 40])
    truth, prediction = rng.normal(size=(2, 100, 7)) + np.where(section == "A", 0, 5)[:, None]
    blocks = metrics.spatial_blocks(rng.uniform(0, 10, (100, 2)), 4, section=section)
    found = metrics.bootstrap_pearson(truth, {"m": prediction}, blocks, section=section)["m"]
    by_section = metrics.per_section(metrics.pearson, truth, prediction, section=section)
    assert found.value == pytest.approx(np.mean([s.mean() for s in by_section.values()]))
    assert found.value < 0.2 < metrics.bootstrap_pearson(truth, {"m": prediction}, blocks)["m"].value


def test_resamples_are_the_scores_of_the_spots_drawn(rng):
    """With every spot its own block, the spread is that of scipy's bootstrap of Pearson."""
    truth = rng.normal(size=(120, 1))
    prediction = truth + rng.normal(size=truth.shape)
    found = metrics.bootstrap_pearson(truth, {"m": prediction}, np.arange(120), n_boot=4000)["m"]
    reference = stats.bootstrap(
        (truth[:, 0], prediction[:, 0]),
        lambda t, p: stats.pearsonr(t, p).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        random_state=0,
    )
    margin = stats.t.ppf(0.975, 119) * reference.standard_error
    assert (found.high - found.low) / 2 == pytest.approx(margin, rel=0.08)


def test_without_signal_the_interval_of_the_score_and_of_the_difference_include_zero(coordinates, rng):
    truth, a, b = rng.normal(size=(3, SIDE**2, 50))
    blocks = metrics.spatial_blocks(coordinates, 3)
    for interval in (
        metrics.bootstrap_pearson(truth, {"a": a}, blocks)["a"],
        metrics.paired_difference(truth, {"a": a, "b": b}, blocks, reference="b")["a"],
    ):
        assert interval.low < 0 < interval.high
        assert interval.high - interval.low < 0.05


def test_difference_is_that_of_the_scores_and_narrower_than_both_intervals(coordinates, rng):
    truth = field(rng, 20, smooth=True)
    a = truth + field(rng, 20, smooth=True)
    predictions = {"a": a, "b": a + 0.3 * rng.normal(size=a.shape)}
    blocks = metrics.spatial_blocks(coordinates, 4)
    scores = metrics.bootstrap_pearson(truth, predictions, blocks)
    difference = metrics.paired_difference(truth, predictions, blocks, reference="b")
    assert list(difference) == ["a"]
    assert difference["a"].value == pytest.approx(scores["a"].value - scores["b"].value)
    assert difference["a"].low > 0
    assert difference["a"].high - difference["a"].low < (scores["a"].high - scores["a"].low) / 2


def test_methods_are_scored_on_the_spots_and_genes_that_all_have(coordinates, rng):
    truth, a, b = rng.normal(size=(3, SIDE**2, 6))
    kept = rng.random(SIDE**2) < 0.8
    b[~kept] = np.nan
    b[:, 0] = np.nan
    a[:, 1] = 4.0
    blocks = metrics.spatial_blocks(coordinates, 3)
    found = metrics.bootstrap_pearson(truth, {"a": a, "b": b}, blocks)
    for name, prediction in (("a", a), ("b", b)):
        by_gene = metrics.pearson(truth[kept, 1:], prediction[kept, 1:])
        assert np.isnan(by_gene[0]) == (name == "a")
        assert found[name].value == pytest.approx(np.nan_to_num(by_gene).mean())
    assert np.isfinite(found["a"].low)


def test_sparse_truth_gives_the_same_interval(coordinates, rng):
    truth = rng.poisson(1.0, (SIDE**2, 5)).astype(float)
    prediction = truth + rng.normal(size=truth.shape)
    blocks = metrics.spatial_blocks(coordinates, 3)
    dense = metrics.bootstrap_pearson(truth, {"m": prediction}, blocks)["m"]
    sparse = metrics.bootstrap_pearson(sp.csr_matrix(truth), {"m": prediction}, blocks)["m"]
    assert (sparse.value, sparse.low) == pytest.approx((dense.value, dense.low))


def test_level_widens_the_interval_and_the_seed_fixes_it(coordinates, rng):
    truth, prediction = rng.normal(size=(2, SIDE**2, 5))
    blocks = metrics.spatial_blocks(coordinates, 3)
    wide, narrow, again = (
        metrics.bootstrap_pearson(truth, {"m": prediction}, blocks, level=level)["m"] for level in (0.99, 0.8, 0.8)
    )
    assert wide.low < narrow.low < narrow.high < wide.high
    assert narrow == again


def test_a_thousand_resamples_over_a_panel_take_about_a_second(c2, rng):
    truth = metrics.pearson_residuals(c2.counts, totals=c2.totals)
    predictions = {"a": rng.normal(size=truth.shape), "b": rng.normal(size=truth.shape)}
    blocks = metrics.spatial_blocks(c2.coordinates, 4)
    start = time.perf_counter()
    metrics.paired_difference(truth, predictions, blocks, reference="b", n_boot=1000)
    assert time.perf_counter() - start < 3


def test_what_cannot_be_resampled_is_refused(rng):
    truth, blocks = rng.normal(size=(6, 2)), np.array([0, 0, 1, 1, 2, 2])
    with pytest.raises(ValueError, match="fewer than two blocks"):
        metrics.bootstrap_pearson(truth, {"m": truth}, np.zeros(6))
    with pytest.raises(ValueError, match="fewer than two blocks"):
        metrics.bootstrap_pearson(truth[:1], {"m": truth[:1]}, [0])
    with pytest.raises(ValueError, match="no spots"):
        metrics.bootstrap_pearson(truth[:0], {"m": truth[:0]}, [])
    with pytest.raises(ValueError, match="two sections"):
        metrics.bootstrap_pearson(truth, {"m": truth}, blocks, section=[0, 1, 0, 0, 1, 1])
    with pytest.raises(ValueError, match="empty"):
        metrics.bootstrap_pearson(truth, {}, blocks)
    with pytest.raises(ValueError, match="level"):
        metrics.bootstrap_pearson(truth, {"m": truth}, blocks, level=95)
    with pytest.raises(KeyError, match="reference"):
        metrics.paired_difference(truth, {"m": truth}, blocks, reference="absent")


def test_scores_of_genes_that_nobody_can_score_are_nan(rng):
    found = metrics.bootstrap_pearson(np.ones((6, 2)), {"m": rng.normal(size=(6, 2))}, [0, 0, 1, 1, 2, 2])["m"]
    assert np.isnan([found.value, found.low, found.high]).all()


def test_a_constant_prediction_of_a_gene_that_varies_scores_zero(coordinates):
    truth, predictions = simulate(0, smooth=False)
    half = predictions["a"].copy()
    half[:, 5:] = 1.0
    blocks = metrics.spatial_blocks(coordinates, 6)
    found = metrics.bootstrap_pearson(truth, {"whole": predictions["a"], "half": half}, blocks, n_boot=50)
    expected = metrics.pearson(truth, half)
    assert np.isnan(expected[5:]).all()
    assert found["half"].value == pytest.approx(expected[:5].sum() / 10)
    less = metrics.paired_difference(truth, {"whole": predictions["a"], "half": half}, blocks, reference="half")
    assert less["whole"].value == pytest.approx(found["whole"].value - found["half"].value)
