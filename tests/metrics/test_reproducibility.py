import time

import numpy as np
import pytest
import scipy.sparse as sp

from sthisto import metrics


def counts_with_signal(rng, n_spots=800, n_genes=60):
    """Counts and the expected values they were drawn with; genes differ in how strong their signal is."""
    depth = rng.lognormal(7, 0.5, n_spots)
    share = rng.dirichlet(np.full(n_genes, 2.0)) / 4
    change = np.exp(rng.normal(size=(n_spots, n_genes)) * rng.uniform(0.1, 0.6, n_genes))
    expected = depth[:, None] * share * change
    counts = rng.poisson(expected)
    return counts, counts.sum(axis=1) + rng.poisson(depth * 0.75), expected


def test_it_is_the_score_of_a_prediction_without_error(rng):
    counts, totals, expected = counts_with_signal(rng)
    mu = np.outer(totals, counts.sum(axis=0) / totals.sum())
    oracle = metrics.residual_pearson(counts, (expected - mu) / np.sqrt(mu + mu**2 / 100), totals=totals)
    found = metrics.reproducibility(counts, totals=totals)
    assert found.overall == pytest.approx(np.sqrt(np.mean(oracle**2)), abs=0.02)
    known = ~np.isnan(found.reproducibility)
    assert known.mean() > 0.7
    np.testing.assert_allclose(found.reproducibility[known], oracle[known], atol=0.12)
    np.testing.assert_allclose(found.reproducibility[known].mean(), oracle[known].mean(), atol=0.02)


def test_without_signal_the_reliability_is_zero_within_its_error(noise_counts):
    found = metrics.reproducibility(noise_counts)
    assert abs(found.mean_reliability) < 0.02
    assert found.overall_low == 0
    assert np.isnan(found.reproducibility).mean() > 0.95


def test_without_signal_a_negative_mean_reliability_gives_an_overall_value_of_zero():
    overall = []
    for seed in range(12):
        counts = np.random.default_rng(seed).poisson(5.0, (100, 20))
        found = metrics.reproducibility(counts, seed=seed)
        assert found.overall == (np.sqrt(found.mean_reliability) if found.mean_reliability > 0 else 0)
        overall.append(found.overall)
    assert min(overall) == 0


def test_intervals_of_genes_without_signal_cover_zero_as_often_as_they_say():
    covered = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        counts = rng.poisson(np.outer(rng.lognormal(7, 0.5, 150), rng.dirichlet(np.full(200, 0.7))))
        found = metrics.reproducibility(counts, seed=seed)
        covered.append((found.reliability_low <= 0) & (found.reliability_high >= 0))
    assert 0.94 < np.mean(covered) <= 1


def test_intervals_cover_the_reliability_of_genes_with_signal(rng):
    counts, totals, _ = counts_with_signal(rng, n_spots=3000)
    truth = metrics.reproducibility(counts, totals=totals).reliability
    covered = []
    for start in range(0, 3000, 150):
        part = slice(start, start + 150)
        found = metrics.reproducibility(counts[part], totals=totals[part])
        covered.append((found.reliability_low <= truth) & (truth <= found.reliability_high))
    assert 0.9 < np.mean(covered) < 0.995


def test_it_is_nan_exactly_where_the_interval_includes_zero(c2):
    found = metrics.reproducibility(c2.counts, totals=c2.totals)
    np.testing.assert_array_equal(np.isnan(found.reproducibility), ~(found.reliability_low > 0))
    known = ~np.isnan(found.reproducibility)
    np.testing.assert_allclose(found.reproducibility[known], np.sqrt(found.reliability[known]))


def test_c2_has_the_reproducibility_that_the_design_states(c2):
    most_expressed = np.argsort(-c2.counts.sum(axis=0))[:50]
    assert metrics.reproducibility(c2.counts, totals=c2.totals).overall == pytest.approx(0.45, abs=0.01)
    top = metrics.reproducibility(c2.counts[:, most_expressed], totals=c2.totals)
    assert top.overall == pytest.approx(0.80, abs=0.01)


def test_c2_takes_less_than_two_seconds(c2):
    metrics.reproducibility(c2.counts[:20], totals=c2.totals[:20])
    start = time.perf_counter()
    metrics.reproducibility(c2.counts, totals=c2.totals)
    assert time.perf_counter() - start < 2


def test_shuffled_genes_of_c2_have_none(c2, rng):
    """Each count is dealt anew among the spots in proportion to their depth: depth and shares stay, signal goes."""
    dealt = np.column_stack([rng.multinomial(n, c2.totals / c2.totals.sum()) for n in c2.counts.sum(axis=0)])
    found = metrics.reproducibility(dealt, totals=np.maximum(c2.totals, dealt.sum(axis=1)))
    assert abs(found.mean_reliability) < 0.02


def test_the_seed_decides_the_splits_and_leaves_the_global_state_alone(noise_counts):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (metrics.reproducibility(noise_counts, seed=seed).reliability for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_sparse_counts_have_the_same(noise_counts):
    dense = metrics.reproducibility(noise_counts)
    sparse = metrics.reproducibility(sp.csr_matrix(noise_counts))
    np.testing.assert_allclose(sparse.reliability, dense.reliability)
    assert sparse.overall == pytest.approx(dense.overall)


def test_genes_without_counts_and_spots_without_counts_are_left_out(noise_counts):
    noise_counts[:, 3] = 0
    noise_counts[7] = 0
    found = metrics.reproducibility(noise_counts)
    assert np.flatnonzero(np.isnan(found.reliability)).tolist() == [3]
    assert np.isfinite(found.overall)


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (3, 3), (9, 0)])
def test_too_little_has_none(shape):
    found = metrics.reproducibility(np.full(shape, 5))
    assert found.reproducibility.shape == (shape[1],)
    assert np.isnan(found.reproducibility).all()
    assert np.isnan(found.overall)


def test_normalized_values_are_refused(noise_counts):
    with pytest.raises(ValueError, match="whole numbers"):
        metrics.reproducibility(np.log1p(noise_counts))
    with pytest.raises(ValueError, match="whole numbers"):
        metrics.reproducibility(noise_counts, totals=noise_counts.sum(axis=1) + 0.5)
    with pytest.raises(ValueError, match="interval"):
        metrics.reproducibility(noise_counts, interval=95)
    with pytest.raises(ValueError, match="n_splits"):
        metrics.reproducibility(noise_counts, n_splits=0)


def test_spots_without_counts_change_nothing():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.uniform(1, 20, (60, 5)))
    alone = metrics.reproducibility(counts)
    found = metrics.reproducibility(np.concatenate([counts, np.zeros((180, 5), dtype=int)]))
    for name in ("reliability", "reliability_low", "reliability_high", "reproducibility", "overall", "overall_low"):
        np.testing.assert_array_equal(getattr(found, name), getattr(alone, name))


def test_old_name_warns_and_gives_the_same(rng):
    counts = rng.poisson(5.0, (60, 8))
    with pytest.warns(FutureWarning, match="reproducibility"):
        old = metrics.noise_ceiling(counts)
    new = metrics.reproducibility(counts)
    assert old.overall == new.overall
    with pytest.warns(FutureWarning, match="reproducibility"):
        np.testing.assert_array_equal(old.ceiling, new.reproducibility)
