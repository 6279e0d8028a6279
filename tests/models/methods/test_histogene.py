from __future__ import annotations

import numpy as np
import pytest
import torch
from tissue import GENES, PATCHES, SPACING, encoder, make_section

from sthisto.models.methods.histogene import HisToGene, HisToGeneOptions, SpotTransformer, array_positions

SMALL = {"width": 16, "n_blocks": 1, "n_heads": 2}


def fitted(**options) -> HisToGene:
    chosen = HisToGeneOptions(**SMALL | {"max_epochs": 3} | options)
    model = HisToGene(GENES, patch=PATCHES, options=chosen, encoder=encoder())
    model.fit([make_section("A", validation=8), make_section("B", seed=1)], seed=0)
    return model


def test_paper_s_sizes_give_the_stated_number_of_parameters():
    with torch.device("meta"):
        module = SpotTransformer(
            112 * 112 * 3, 785, HisToGeneOptions(width=1024, n_blocks=8, n_heads=16, n_positions=64)
        )
    inputs = 37_632 * 1024 + 1024 + 2 * 64 * 1024
    outputs = 2 * 1024 + 1024 * 785 + 785
    assert sum(p.numel() for p in module.parameters()) == inputs + 8 * 8_399_872 + outputs == 106_672_913


def test_gradients_reach_every_parameter_that_a_section_uses():
    module = SpotTransformer(5, 3, HisToGeneOptions(**SMALL, n_positions=4))
    position = torch.tensor([[i, i] for i in range(4)])
    module(torch.rand(4, 5), position, torch.zeros(4, dtype=torch.long)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_sections_do_not_see_each_other():
    torch.manual_seed(0)
    module = SpotTransformer(5, 3, HisToGeneOptions(**SMALL)).eval()
    features, position = torch.rand(6, 5), torch.arange(6)[:, None].repeat(1, 2)
    together = module(features, position, torch.tensor([0, 0, 0, 1, 1, 1]))
    alone = module(features[:3], position[:3], torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(together[:3], alone)


def test_array_positions_follow_the_lattice():
    lattice = np.array([[x, y] for y in range(4) for x in range(5)])
    rng = np.random.default_rng(0)
    px = 300 + 40.0 * lattice + rng.uniform(-3, 3, lattice.shape)
    np.testing.assert_array_equal(array_positions(px), lattice)


def test_points_between_lie_around_their_spot_and_average_to_it():
    model, section = fitted(), make_section("C", seed=2).inputs
    fine = model.predict_between(section, factor=2)
    assert fine.expression.shape == (4 * len(section), len(GENES))
    offsets = fine.positions - section.positions[fine.spot]
    np.testing.assert_allclose(np.abs(offsets), SPACING / 4)
    own = fine.expression[fine.spot == 5]
    np.testing.assert_allclose(fine.by_spot()[5], own.mean(axis=0), rtol=1e-6)


def test_one_point_a_spot_is_the_ordinary_prediction():
    model, section = fitted(), make_section("C", seed=2).inputs
    fine = model.predict_between(section, factor=1)
    np.testing.assert_allclose(fine.expression, model.predict(section).expression, rtol=1e-5)


def test_array_wider_than_the_embeddings_is_refused():
    with pytest.raises(ValueError, match="span 7 positions, but the model has n_positions=4"):
        fitted(n_positions=4)
