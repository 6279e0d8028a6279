from __future__ import annotations

import numpy as np
import pytest
from tissue import GENES, PATCHES, encoder, make_section

from sthisto.models import METHODS, Ensemble, resolve_method
from sthisto.models.methods.ensemble import EnsembleOptions

FAST = {"k": 10, "max_epochs": 3}


def fitted(n_models: int = 2) -> Ensemble:
    options = EnsembleOptions("bleep", n_models, FAST)
    model = Ensemble(GENES, patch=PATCHES, options=options, encoder=encoder())
    model.fit([make_section("A", validation=8), make_section("B", seed=1)], seed=3)
    return model


def test_members_are_the_models_of_consecutive_seeds():
    ensemble, section = fitted(), make_section("C", seed=2).inputs
    alone = METHODS["bleep"](GENES, patch=PATCHES, options=METHODS["bleep"].make_options(FAST), encoder=encoder())
    alone.fit([make_section("A", validation=8), make_section("B", seed=1)], seed=4)
    np.testing.assert_allclose(
        ensemble._members[1].predict(section).expression, alone.predict(section).expression, rtol=1e-5
    )


def test_prediction_is_the_mean_of_standardized_predictions_on_the_scale_of_the_expression():
    ensemble, section = fitted(), make_section("C", seed=2).inputs
    training = [make_section("A", validation=8), make_section("B", seed=1)]
    scaled, spreads = [], []
    for member in ensemble._members:
        known = np.concatenate([member.predict(one.inputs).expression for one in training])
        scaled.append((member.predict(section).expression - known.mean(axis=0)) / known.std(axis=0))
        spreads.append(known.std(axis=0))
    mean = np.concatenate([one.expression[one.train] for one in training]).mean(axis=0)
    expected = mean + np.mean(spreads, axis=0) * np.mean(scaled, axis=0)
    np.testing.assert_allclose(ensemble.predict(section).expression, expected, rtol=1e-3, atol=1e-4)


def test_spread_holds_what_the_models_disagree_on():
    ensemble, section = fitted(), make_section("C", seed=2).inputs
    within = np.mean([np.square(m.predict(section).sd) for m in ensemble._members], axis=0)
    assert (np.square(ensemble.predict(section).sd) >= within - 1e-5).all()


def test_n_models_makes_an_ensemble_of_any_trained_method():
    cls, options = resolve_method("stnet", {"n_models": 3, "max_epochs": 7})
    assert cls is Ensemble
    assert (options.member, options.n_models, options.options) == ("stnet", 3, {"max_epochs": 7})


def test_without_n_models_the_method_is_itself():
    assert resolve_method("ridge", {})[0] is METHODS["ridge"]


def test_method_without_a_seed_is_refused():
    with pytest.raises(ValueError, match="'ridge'; it must be one of 'danet', 'bleep', 'stnet', 'histogene'"):
        resolve_method("ridge", {"n_models": 3})


def test_member_s_options_are_checked():
    with pytest.raises(TypeError, match="Method 'stnet' has no option 'k'"):
        resolve_method("stnet", {"n_models": 3, "k": 5})
