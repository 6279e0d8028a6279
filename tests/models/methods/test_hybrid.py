from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tissue import GENES, PATCHES, encoder, make_section

from sthisto.models import METHODS, Hybrid
from sthisto.models.methods.hybrid import HybridOptions


def with_residuals(section):
    """Any second scale of the same genes will do: here the expression's square root, less its mean."""
    residuals = np.sqrt(section.expression)
    return replace(section, residuals=residuals - residuals.mean(axis=0))


def fitted(*, target="log1p", **options) -> Hybrid:
    chosen = HybridOptions(k=10, max_epochs=3, **({"n_models": 2} | options))
    model = Hybrid(GENES, patch=PATCHES, options=chosen, encoder=encoder(), normalization={"target": target})
    sections = [with_residuals(make_section("A", validation=8)), with_residuals(make_section("B", seed=1))]
    model.fit(sections, seed=0)
    return model


def plain(method, **options):
    cls = METHODS[method]
    return cls(GENES, patch=PATCHES, options=cls.make_options(options), encoder=encoder())


def weights(model):
    return np.array([member.weight for member in model._plan()])


def test_ridge_learns_from_the_spots_that_choose_the_epoch_too():
    model = fitted()
    section = make_section("C", seed=2).inputs
    sections = [with_residuals(make_section("A")), with_residuals(make_section("B", seed=1))]
    for i, of_residuals in ((-2, False), (-1, True)):
        ridge = plain("ridge", colors=True, within_sections=True)
        ridge.fit([replace(one, expression=one.residuals) if of_residuals else one for one in sections], seed=4 + i)
        np.testing.assert_allclose(
            model._members[i].predict(section).expression, ridge.predict(section).expression, rtol=1e-4, atol=1e-4
        )


def test_every_second_danet_learns_residuals():
    model = fitted(n_models=3)
    assert [member.of_residuals for member in model._plan()] == [False, True, False, False, True]
    alone = plain("danet", k=10, max_epochs=3)
    sections = [with_residuals(make_section("A", validation=8)), with_residuals(make_section("B", seed=1))]
    alone.fit([replace(one, expression=one.residuals) for one in sections], seed=1)
    section = make_section("C", seed=2).inputs
    np.testing.assert_allclose(
        model._members[1].predict(section).expression, alone.predict(section).expression, rtol=1e-5
    )


@pytest.mark.parametrize(("target", "options"), [("as_is", {}), ("log1p", {"residuals": False})])
def test_one_scale_is_learned_where_there_is_no_other_or_none_is_wanted(target, options):
    plan = fitted(target=target, **options)._plan()
    assert [(member.method, member.of_residuals) for member in plan] == [("danet", False)] * 2 + [("ridge", False)]


def test_residuals_that_are_missing_are_an_error():
    chosen = HybridOptions(k=10, max_epochs=1, n_models=2)
    model = Hybrid(GENES, patch=PATCHES, options=chosen, encoder=encoder(), normalization={"target": "log1p"})
    with pytest.raises(ValueError, match="'A' has no Pearson residuals"):
        model.fit([make_section("A")])


def test_the_prediction_is_on_the_scale_of_the_expression():
    model, section = fitted(), make_section("C", seed=2).inputs
    training = [make_section("A", validation=8), make_section("B", seed=1)]
    known = [np.concatenate([member.predict(one.inputs).expression for one in training]) for member in model._members]
    spreads = [values.std(axis=0) for values in known]
    least = [0.25 * np.maximum(spreads[i % 2], spreads[2 + i % 2]) for i in range(4)]  # of those of the same scale
    scaled = [
        (member.predict(section).expression - known[i].mean(axis=0)) / np.maximum(spreads[i], least[i])
        for i, member in enumerate(model._members)
    ]
    mean = np.concatenate([one.expression[one.train] for one in training]).mean(axis=0)
    typical = (spreads[0] + spreads[2]) / 2  # the DANet and the ridge that learn the expression, weighted alike
    found = model.predict(section)
    np.testing.assert_allclose(found.expression, mean + typical * np.mean(scaled, axis=0), rtol=1e-3, atol=1e-3)
    within = model._members[0].predict(section).sd
    expected = np.sqrt(np.square(within) + np.square(typical * np.std(scaled, axis=0)))
    np.testing.assert_allclose(found.sd, expected, rtol=1e-3)


def test_members_share_the_prediction_as_documented():
    np.testing.assert_allclose(weights(fitted()), [0.25, 0.25, 0.25, 0.25])
    np.testing.assert_allclose(weights(fitted(ridge_weight=0.2, residuals=False)), [0.4, 0.4, 0.2])


def test_options_of_danet_reach_danet():
    assert fitted(projection="mlp")._members[0].options.projection == "mlp"


def test_finetuning_is_refused():
    with pytest.raises(ValueError, match="leave out finetune"):
        HybridOptions(finetune=True)


def test_a_gene_that_one_section_alone_has_is_not_blown_up():
    """A member that retrieves from other sections predicts a constant for it in training, and more in a new one."""
    model = fitted(residuals=False)
    rng = np.random.default_rng(0)
    model._mean, model._center = np.full(2, 0.5), np.full((3, 2), 0.5)
    model._spread = np.array([[0.0, 0.4], [0.0, 0.4], [0.6, 0.4]])
    said = 0.5 + rng.uniform(0, 2, (3, 50, 2))
    combined = model._combine(model._scaled(said))
    assert combined.min() >= 0.5 - 1e-6
    assert combined[:, 0].max() <= 2 * said.max()
    np.testing.assert_allclose(combined[:, 1], said[:, :, 1].T @ weights(model), rtol=1e-5)
