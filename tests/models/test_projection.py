from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from tissue import GENES, PATCHES, encoder, make_section

from sthisto.models import METHODS, load

TRAINING = [make_section(name, seed=seed) for seed, name in enumerate("AB")]
TEST = make_section("C", seed=7)


def fitted(method: str, target: str = "as_is", **options):
    cls = METHODS[method]
    chosen = cls.make_options(options)
    needed = encoder() if cls.needs_encoder(chosen) else None
    model = cls(GENES, patch=PATCHES, options=chosen, encoder=needed, normalization={"target": target})
    model.fit(TRAINING, seed=0)
    return model


def test_every_method_has_the_option_and_leaves_it_off_unless_it_projects_itself():
    for cls in METHODS.values():
        default = cls.Options().expression_components
        assert (default is not None) == cls.projects_itself, cls.method


@pytest.mark.parametrize("method", ["ridge", "color", "knn"])
def test_prediction_is_projected_on_the_training_expressions_components(method):
    options = {"k": 5} if method == "knn" else {}
    plain = fitted(method, **options).predict(TEST.inputs).expression
    projected = fitted(method, expression_components=2, **options).predict(TEST.inputs).expression
    rows = [section.expression[section.used] for section in TRAINING]
    pca = PCA(2).fit(np.concatenate([one - one.mean(axis=0) for one in rows]))
    mean = np.concatenate(rows).mean(axis=0)
    expected = mean + (plain - mean) @ pca.components_.T @ pca.components_
    np.testing.assert_allclose(projected, expected, rtol=1e-3, atol=1e-3)


def test_several_numbers_are_averaged():
    one, two, both = (
        fitted("ridge", expression_components=number).predict(TEST.inputs).expression for number in (1, 4, (1, 4))
    )
    np.testing.assert_allclose(both, (one + two) / 2, rtol=1e-4, atol=1e-4)


def test_projection_is_saved_with_the_model(tmp_path):
    model = fitted("ridge", expression_components=[2, 3])
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model", image_encoder=encoder())
    assert loaded.options == model.options
    np.testing.assert_array_equal(loaded.predict(TEST.inputs).expression, model.predict(TEST.inputs).expression)


def test_only_predictions_of_log1p_expression_are_clipped_at_0():
    shifted = [section.expression.mean(axis=0) for section in TRAINING]
    assert np.isfinite(shifted).all()
    as_is = fitted("ridge", "pearson_residuals", expression_components=1)
    as_is.projection_mean = as_is.projection_mean - 100
    assert as_is.predict(TEST.inputs).expression.min() < 0
    log1p = fitted("ridge", "log1p", expression_components=1)
    log1p.projection_mean = log1p.projection_mean - 100
    assert log1p.predict(TEST.inputs).expression.min() == 0


def test_components_below_1_are_refused():
    with pytest.raises(ValueError, match="expression_components"):
        METHODS["ridge"].make_options({"expression_components": 0})
