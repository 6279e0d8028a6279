"""The rules of the verdicts on simulated scores, whose truth is known."""

import numpy as np
import pytest

from sthisto._scoring.group_interval import group_interval
from sthisto._scoring.passport import verdicts

SAMPLING, BETWEEN = 0.06, 0.06


def cohort(rng, n_groups, n_genes=400):
    """Scores of genes in some groups and in a further one; half of the genes are predicted in no group."""
    mean = np.where(rng.random(n_genes) < 0.5, 0.0, rng.uniform(0.02, 0.5, n_genes))
    spread = BETWEEN * rng.gamma(2, 0.5, n_genes) * (mean > 0)

    def group():
        true = mean * (1 + rng.normal(0, 0.2)) + spread * rng.normal(size=n_genes)
        return true, true + SAMPLING * rng.normal(size=n_genes)

    scores = np.array([group()[1] for _ in range(n_groups)])
    sampling = SAMPLING**2 * rng.chisquare(15, scores.shape) / 15
    return mean, scores, sampling, group()


@pytest.mark.parametrize("n_groups", [2, 3, 5, 10])
def test_the_interval_holds_the_score_of_a_further_group(n_groups):
    rng = np.random.default_rng(n_groups)
    inside, above = [], []
    for _ in range(150):
        mean, scores, sampling, (true, measured) = cohort(rng, n_groups)
        found = group_interval(scores, sampling)
        predicted = mean > 0.1
        inside.append(((measured > found.low) & (measured < found.high))[predicted].mean())
        above.append(true[found.low > 0] > 0)
    assert 0.88 < np.mean(inside) < 0.96
    assert np.concatenate(above).mean() > 0.98


def test_a_gene_that_fails_in_one_group_is_not_expected_in_the_next():
    rng = np.random.default_rng(0)
    _, scores, sampling, _ = cohort(rng, 3)
    scores[:, 0], scores[:, 1] = [0.5, 0.5, 0.0], [0.5, 0.45, 0.55]
    found = group_interval(scores, sampling)
    assert found.low[0] < 0 < found.low[1]
    assert found.n_groups.tolist() == [3] * 400


def test_a_gene_with_a_score_in_one_group_has_no_interval():
    scores = np.array([[0.5, 0.5, np.nan], [0.4, np.nan, np.nan], [0.6, np.nan, np.nan]])
    found = group_interval(scores, np.full(scores.shape, 0.001))
    np.testing.assert_array_equal(found.n_groups, [3, 1, 0])
    np.testing.assert_array_equal(np.isnan(found.low), [False, True, True])
    np.testing.assert_allclose(found.mean, [0.5, 0.5, np.nan])


def test_bounds_are_correlations():
    found = group_interval(np.array([[0.99, -0.99], [0.95, -0.9]]), np.full((2, 2), 0.01))
    assert found.high[0] == 1
    assert found.low[1] == -1


def test_verdicts_follow_from_the_two_lower_bounds():
    low = np.array([0.1, 0.1, -0.1, -0.1, np.nan, 0.1])
    gain_low = np.array([0.1, -0.1, 0.1, -0.1, np.nan, np.nan])
    expected = ["use", "pattern only", "do not use", "do not use", "do not use", "pattern only"]
    assert verdicts(low, gain_low).tolist() == expected
