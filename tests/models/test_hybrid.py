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


def test_a_gene_that_one_section_alone_has_is_not_blown_up():
    """A member that retrieves from other sections predicts a constant for it in training, and more in a new one."""
    model = fitted()
    rng = np.random.default_rng(0)
    model._mean, model._centre = np.full(2, 0.5), np.full((3, 2), 0.5)
    model._spread = np.array([[0.0, 0.4], [0.0, 0.4], [0.6, 0.4]])
    said = 0.5 + rng.uniform(0, 2, (3, 50, 2))
    combined = model._combine(said)
    assert combined.min() >= 0.5 - 1e-6
    assert combined[:, 0].max() <= 2 * said.max()
    np.testing.assert_allclose(combined[:, 1], said[:, :, 1].T @ model._weights(), rtol=1e-5)
