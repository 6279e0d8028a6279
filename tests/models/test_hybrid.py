from __future__ import annotations

import numpy as np
import pytest
from tissue import GENES, PATCHES, encoder, make_section

from sthisto.models import METHODS, Hybrid
from sthisto.models.hybrid import HybridOptions


def fitted(**options) -> Hybrid:
    chosen = HybridOptions(k=10, max_epochs=3, n_models=2, **options)
    model = Hybrid(GENES, patch=PATCHES, options=chosen, encoder=encoder())
    model.fit([make_section("A", validation=8), make_section("B", seed=1)], seed=0)
    return model


def test_recommended_is_the_hybrid_with_context():
    assert METHODS["recommended"] is Hybrid
    assert Hybrid.default_context == (1.0, 2.0, 4.0)


def test_ridge_learns_from_the_spots_that_choose_the_epoch_too():
    model = fitted()
    ridge = METHODS["ridge"](GENES, patch=PATCHES, options=METHODS["ridge"].make_options({}), encoder=encoder())
    ridge.fit([make_section("A"), make_section("B", seed=1)], seed=2)
    section = make_section("C", seed=2).inputs
    np.testing.assert_allclose(
        model._members[-1].predict(section).expression, ridge.predict(section).expression, rtol=1e-4, atol=1e-4
    )


def test_members_share_the_prediction_as_documented():
    np.testing.assert_allclose(fitted()._weights(), [0.25, 0.25, 0.5])
    np.testing.assert_allclose(fitted(ridge_weight=0.2)._weights(), [0.4, 0.4, 0.2])


def test_options_of_danet_reach_danet():
    assert fitted(projection="mlp")._members[0].options.projection == "mlp"


def test_finetuning_is_refused():
    with pytest.raises(ValueError, match="leave out finetune"):
        HybridOptions(finetune=True)
