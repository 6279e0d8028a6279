from __future__ import annotations

import pytest
import torch
from torch import nn

from sthisto._images.patches import PatchSpec
from sthisto.models.methods.bleep import BLEEP, BLEEPOptions


def towers(n_features: int, n_genes: int, **options):
    model = BLEEP([f"gene{i}" for i in range(n_genes)], patch=PatchSpec(), options=BLEEPOptions(**options))
    return model.towers(n_features, None)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_projections_have_the_paper_s_parameters():
    with torch.device("meta"):
        module = towers(2048, 3467)
    assert count(module.image_head) == (2048 + 1) * 256 + (256 + 1) * 256 + 2 * 256 == 590_848
    assert count(module.gene_head) == (3467 + 1) * 256 + (256 + 1) * 256 + 2 * 256 == 954_112
    assert count(module.gene_encoder) == 0


def test_gradients_reach_every_parameter():
    module = towers(12, 7)
    image, genes = module(torch.rand(6, 12), torch.rand(6, 7))
    (image @ genes.T).tanh().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_fifty_neighbors_are_averaged_by_default():
    assert (BLEEPOptions().k, BLEEPOptions().aggregation) == (50, "average")


def test_unknown_objective_is_refused():
    with pytest.raises(ValueError, match="`objective` is 'other'"):
        BLEEPOptions(objective="other")
