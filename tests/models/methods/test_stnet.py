from __future__ import annotations

import numpy as np
import torch
from tissue import GENES, PATCHES, make_section
from torch import nn

from sthisto.models import Encoder
from sthisto.models.methods.stnet import LinearOutputs, STNet, STNetOptions
from sthisto.models.training.augment import symmetries


class Corner(nn.Module):
    """An encoder that sees one corner of the patch alone, so that its symmetries differ."""

    def forward(self, pixels):
        return pixels[:, :, :5, :7].flatten(1)


def fitted(**options) -> STNet:
    encoder = Encoder(Corner(), name="module:Corner")
    model = STNet(GENES, patch=PATCHES, options=STNetOptions(max_epochs=3, **options), encoder=encoder)
    model.fit([make_section("A", validation=8)], seed=0)
    return model


def test_outputs_have_the_paper_s_parameters():
    module = LinearOutputs(1024, 250, None)
    assert sum(p.numel() for p in module.parameters()) == 1024 * 250 + 250 == 256_250


def test_prediction_does_not_change_when_the_section_is_turned():
    model, section = fitted(), make_section("B", seed=1).inputs
    predictions = [model.predict(view).expression for view in symmetries(section)]
    np.testing.assert_allclose(predictions, np.broadcast_to(predictions[0], np.shape(predictions)), rtol=1e-4)


def test_without_symmetries_the_patch_alone_counts():
    model, section = fitted(symmetries=False), make_section("B", seed=1).inputs
    predictions = [model.predict(view).expression for view in symmetries(section)]
    assert not np.allclose(predictions[0], predictions[1], rtol=1e-3)


def test_gradients_reach_the_encoder_and_every_output():
    encoder = Encoder(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), name="module:conv")
    module = LinearOutputs(4, 5, encoder)
    module(torch.randint(0, 255, (6, 8, 8, 3), dtype=torch.uint8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
