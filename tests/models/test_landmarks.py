from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tissue import GENES, PATCHES, make_section

from sthisto.metrics import pearson
from sthisto.models import METHODS, landmarks, load
from sthisto.models.blocks import BlockLayout
from sthisto.models.kernels import block_kernel, center_columns, fit_kernel
from sthisto.models.landmarks import fit_landmarks
from sthisto.models.low_rank import centered_by, fit_components

LAYOUT = BlockLayout((3, 2), (0.7, 0.3))


def problem(n: int = 90):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 5)).astype(np.float32) / np.sqrt(LAYOUT.divisors())
    groups = np.repeat([0, 1, 2], n // 3)
    targets = centered_by(np.sin(x @ rng.normal(size=(5, 7))) + 0.1 * rng.normal(size=(n, 7)), groups)
    return x, groups, targets


def test_all_spots_as_landmarks_are_the_exact_fit(monkeypatch):
    monkeypatch.setattr(landmarks, "_ROWS_AT_ONCE", 32)
    x, groups, targets = problem()
    components = [fit_components(targets, (2, 4))]
    kernel = block_kernel(x, x, LAYOUT, "rbf")
    kernel = center_columns(center_columns(kernel, groups).T, groups).T
    (exact,) = fit_kernel(kernel, [targets], components, alphas=(1e-3, 1e-2), folds=groups)
    found = fit_landmarks(
        x,
        np.arange(len(x)),
        LAYOUT,
        "rbf",
        [targets],
        components,
        alphas=(1e-3, 1e-2),
        groups=groups,
        folds=groups,
    )
    np.testing.assert_allclose(found.fitted[0], kernel @ exact.coefficients, rtol=0.02, atol=0.02)
    np.testing.assert_allclose(found.targets[0].scores, exact.scores, rtol=0.05, atol=0.05)


def test_landmarks_are_ridge_on_the_features_of_nystroem():
    from sklearn.kernel_approximation import Nystroem

    x, groups, targets = problem()
    layout = BlockLayout((5,), (1.0,))
    nystroem = Nystroem(kernel="rbf", gamma=0.5, n_components=30, random_state=0).fit(x)
    features = centered_by(nystroem.transform(x), groups)
    components = [fit_components(targets, (4,))]
    scores = targets @ components[0].vectors
    strength = 0.01 * np.square(features).sum()
    expected = features @ np.linalg.solve(features.T @ features + strength * np.eye(30), features.T @ scores)
    found = fit_landmarks(
        x,
        nystroem.component_indices_,
        layout,
        "rbf",
        [targets],
        components,
        alphas=(0.01,),
        groups=groups,
        folds=groups,
    ).fitted[0]
    scale = (found * expected).sum() / np.square(expected).sum()
    np.testing.assert_allclose(found, scale * expected, atol=0.02 * np.abs(found).max())


@pytest.mark.parametrize("method", ["kernel", "recommended"])
def test_many_spots_are_learned_by_few(method, monkeypatch, tmp_path):
    options = {"features": ("texture", "border"), "texture_context": (1.0, 2.0)}
    training = [replace(one, residuals=one.expression) for one in (make_section(n, seed=i) for i, n in enumerate("AB"))]
    test = make_section("C", seed=7)
    cls = METHODS[method]

    def fitted():
        model = cls(GENES, patch=PATCHES, options=cls.make_options(options), normalization={"target": "log1p"})
        model.fit(training, seed=0)
        return model

    exact = fitted().predict(test.inputs).expression
    monkeypatch.setattr(landmarks, "EXACT_SPOTS", 60)
    monkeypatch.setattr(landmarks, "N_LANDMARKS", 40)
    model = fitted()
    found = model.predict(test.inputs)
    assert np.nanmean(pearson(found.expression, exact)[:8]) > 0.9
    assert np.isfinite(found.sd).all()
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()
    assert model.bank_state()["features"].shape[0] == 40
    model.save(tmp_path / "model")
    again = load(tmp_path / "model").predict(test.inputs)
    np.testing.assert_array_equal(again.expression, found.expression)
