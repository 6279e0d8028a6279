from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import kneighbors_graph
from tissue import make_tissue

import sthisto as sth
from sthisto.models.smoothing import smooth_expression, variance_kept


def hexagons(n: int = 8) -> np.ndarray:
    """Centers on a hexagonal array, each moved a little, so that no two neighbors are equally far."""
    centers = np.array([(2 * x + y % 2, y * 3**0.5) for y in range(n) for x in range(n)], dtype=float)
    return centers + np.random.default_rng(1).uniform(-0.1, 0.1, centers.shape)


def test_neighbors_agree_with_scikit_learn():
    centers, expression = hexagons(), np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    graph = kneighbors_graph(centers, 6).toarray() > 0
    graph |= graph.T
    expected = 0.4 * expression + 0.6 * graph @ expression / graph.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(smooth_expression(expression, centers, 0.6), expected, rtol=1e-4, atol=1e-5)


def test_constant_prediction_stays():
    ones = np.ones((64, 3), dtype=np.float32)
    np.testing.assert_allclose(smooth_expression(ones, hexagons(), 0.5), ones, rtol=1e-6)


def test_smoothing_takes_variance_from_noise():
    noise = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    assert variance_kept([noise], [smooth_expression(noise, hexagons(), 0.5)]) < 0.5


def test_single_spot_has_nothing_to_be_smoothed_by():
    one = np.ones((1, 3), dtype=np.float32)
    assert smooth_expression(one, np.zeros((1, 2)), 0.5) is one


def test_predict_smooths_on_request_and_records_what_is_left():
    sdata = make_tissue()
    model = sth.tl.fit(sdata, method="color", patch_size=16)
    sth.tl.predict(sdata, model, key_added="plain")
    sth.tl.predict(sdata, model, smooth=0.5, key_added="smooth")
    table = sdata["counts"]
    assert not np.allclose(table.layers["plain_pred"], table.layers["smooth_pred"], equal_nan=True)
    assert table.uns["smooth"]["smooth"] == 0.5
    assert 0 < table.uns["smooth"]["smooth_variance_kept"] < 1
    assert "smooth" not in table.uns["plain"]


def test_impossible_share_is_refused():
    with pytest.raises(ValueError, match="`smooth` must be a finite number of at least 0 and of at most 1, found 2"):
        sth.tl.predict(make_tissue(), sth.models.Mean(["a"], patch=sth.models.PatchSpec()), smooth=2)
