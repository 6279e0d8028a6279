"""Intervals: their coverage where groups are exchangeable, and what is refused."""

import re

import numpy as np
import pytest
from scipy import stats

from sthisto.models.conformal import fewest_groups, fit_calibration


def cohort(rng, *, n_patients, n_spots=12, n_genes=20, between=0.5):
    """Return errors of spots of several patients, each with an offset of its own, and the patients' names."""
    patient = np.repeat(np.arange(n_patients), n_spots)
    offset = rng.normal(0, between, (n_patients, n_genes))[patient]
    return offset + rng.standard_t(5, (len(patient), n_genes)), np.array([f"p{i}" for i in patient], dtype=object)


def covered(found, error, sd, level):
    zeros = np.zeros_like(error)
    low, high = found.bounds(zeros, sd, level)
    return float(((low <= error) & (error <= high)).mean())


@pytest.mark.parametrize("between", [0.0, 0.5, 5.0])
@pytest.mark.parametrize(("n_patients", "level"), [(9, 0.9), (30, 0.9), (12, 0.8)])
def test_new_patients_are_covered_as_often_as_was_asked_for(n_patients, level, between):
    """Whether patients hardly differ or differ by far more than their spots."""
    found = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        error, patients = cohort(rng, n_patients=n_patients + 8, between=between)
        known = np.arange(len(error)) < 12 * n_patients
        sd = np.exp(rng.normal(0, 0.5, error.shape))
        one = fit_calibration(
            error[known] * sd[known],
            np.zeros_like(error[known]),
            sd[known],
            patients=patients[known],
            blocks=patients[known],
        )
        found.append(covered(one, error[~known] * sd[~known], sd[~known], level))
    assert np.mean(found) == pytest.approx(level, abs=0.03)


def test_bound_of_one_spot_a_patient_is_the_order_statistic():
    error = np.random.default_rng(0).normal(size=(19, 3))
    names = np.array([f"p{i}" for i in range(19)], dtype=object)
    found = fit_calibration(error, np.zeros_like(error), None, patients=names, blocks=names)
    low, high = found.bounds(np.zeros((2, 3)), None, 0.9)
    expected = np.sort(np.abs(error), axis=0)[17]  # the 18th of 19: 18/20 = 0.9
    np.testing.assert_allclose(high[0], expected, rtol=1e-6)
    np.testing.assert_allclose(low[0], -expected, rtol=1e-6)


def test_width_follows_the_spread():
    rng = np.random.default_rng(0)
    sd = np.exp(rng.normal(size=(400, 2)))
    error = rng.normal(size=(400, 2)) * sd
    names = np.array([f"p{i % 40}" for i in range(400)], dtype=object)
    found = fit_calibration(error, np.zeros_like(error), sd, patients=names, blocks=names)
    low, high = found.bounds(np.zeros((2, 2)), np.array([[1.0, 1.0], [3.0, 3.0]]), 0.9)
    np.testing.assert_allclose((high - low)[1], 3 * (high - low)[0], rtol=1e-5)
    np.testing.assert_allclose(high[0], stats.norm.ppf(0.95), rtol=0.2)


def test_no_patient_alone_makes_the_interval_wide():
    """A patient with a thousand spots counts as one with ten."""
    rng = np.random.default_rng(0)
    few = rng.normal(size=(200, 5))
    many = rng.normal(scale=20, size=(5000, 5))
    names = np.concatenate([[f"p{i // 10}" for i in range(200)], ["big"] * 5000]).astype(object)
    error = np.concatenate([few, many])
    found = fit_calibration(error, np.zeros_like(error), None, patients=names, blocks=names)
    _, high = found.bounds(np.zeros((1, 5)), None, 0.9)
    assert high.max() < 4


def test_a_spread_of_zero_does_not_make_an_interval_without_width():
    rng = np.random.default_rng(0)
    error, sd = rng.normal(size=(200, 2)), np.ones((200, 2))
    sd[:100] = 0
    names = np.array([f"p{i % 20}" for i in range(200)], dtype=object)
    found = fit_calibration(error, np.zeros_like(error), sd, patients=names, blocks=names)
    low, high = found.bounds(np.zeros((1, 2)), np.zeros((1, 2)), 0.9)
    assert (high - low > 0.1).all()


def test_bounds_are_on_both_sides_of_the_prediction_and_not_below_the_least():
    error = np.random.default_rng(0).normal(size=(30, 4))
    names = np.array([f"p{i}" for i in range(30)], dtype=object)
    found = fit_calibration(error, np.zeros_like(error), None, patients=names, blocks=names)
    prediction = np.array([[-0.5, 0.0, 0.2, 9.0]])
    low, high = found.bounds(prediction, None, 0.8, least=0.0)
    assert (low <= prediction).all()
    assert (high >= prediction).all()
    assert low[0, 1] == low[0, 2] == 0
    assert 0 < low[0, 3] < 9


def test_patients_are_used_where_there_are_enough_else_blocks_else_nothing():
    rng = np.random.default_rng(0)
    error = rng.normal(size=(240, 2))
    patients = np.array([f"p{i % 8}" for i in range(240)], dtype=object)
    blocks = np.array([f"b{i % 12}" for i in range(240)], dtype=object)
    found = fit_calibration(error, np.zeros_like(error), None, patients=patients, blocks=blocks)
    assert found.groups_for(0.8) == "patient"
    assert found.groups_for(0.9) == "block"
    with pytest.raises(ValueError, match=r"interval=0.95 needs at least 19 .* has 8 and 12\. Pass interval=0.92"):
        found.groups_for(0.95)
    unknown = np.where(patients == "p0", "", patients)
    assert fit_calibration(error, 0 * error, None, patients=unknown, blocks=blocks).groups_for(0.8) == "block"


@pytest.mark.parametrize(("level", "n"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_fewest_groups(level, n):
    assert fewest_groups(level) == n


@pytest.mark.parametrize("n", [1, 2, 4, 8, 9, 21])
def test_the_levels_that_a_refusal_names_are_accepted(n):
    """Of one patient, every level below a half would be the same interval."""
    groups = np.array([f"P{i}" for i in range(n)])
    error = np.random.default_rng(0).normal(size=(n, 2))
    found = fit_calibration(error, 0 * error, None, patients=groups, blocks=groups)
    for refused, phrase in ((1e-9, "or more"), (1 - 1e-9, "or less")):
        with pytest.raises(ValueError, match=rf"interval={refused!r}.*{phrase}") as caught:
            found.groups_for(refused)
        named = float(re.search(rf"Pass interval=([0-9.]+) {phrase}", str(caught.value)).group(1))
        assert found.groups_for(named) == "patient"
