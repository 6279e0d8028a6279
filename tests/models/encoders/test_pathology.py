from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from sthisto.models import load_encoder
from sthisto.models.encoders.pathology import ENCODERS, ClassAndPatches, find


def vit(**options):
    """A small vision transformer with registers, as timm builds those of histology."""
    return timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1, reg_tokens=4, **options).eval()


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the hub: remembers what was asked for, and builds a small transformer."""
    asked, small = {}, vit()

    def create_model(name, **arguments):
        asked.update(name=name, **arguments)
        return small

    monkeypatch.setattr(timm, "create_model", create_model)
    return asked


@pytest.mark.parametrize("name", ["hf-hub:MahmoodLab/UNI2-h", "hf_hub:mahmoodlab/uni2-h"])
def test_arguments_that_the_hub_does_not_know_are_passed(hub, name):
    load_encoder(name)
    assert hub["name"] == name
    assert hub["pretrained"] is True
    assert (hub["reg_tokens"], hub["embed_dim"], hub["num_classes"]) == (8, 1536, 0)


def test_virchow_is_its_class_token_beside_the_mean_of_its_patches(hub):
    encoder = load_encoder("hf-hub:paige-ai/Virchow2")
    assert encoder.n_features(224) == 2 * 192
    pixels = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        tokens = encoder.module.module.forward_features(pixels)
        expected = torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], dim=1)
        np.testing.assert_allclose(encoder.module(pixels), expected, rtol=1e-5, atol=1e-6)


def test_normalization_is_that_of_the_model_within(hub):
    encoder = load_encoder("hf-hub:paige-ai/Virchow2")
    own = encoder.module.module.pretrained_cfg
    np.testing.assert_allclose(encoder.mean.ravel(), own["mean"])
    assert encoder.input_size == own["input_size"][-1]
    assert isinstance(encoder.module, ClassAndPatches)


def test_uni2_has_the_size_that_its_authors_state():
    with torch.device("meta"):
        module = timm.create_model(
            "vit_giant_patch14_224", num_classes=0, **ENCODERS["mahmoodlab/uni2-h"].create_arguments()
        )
    assert sum(value.numel() for value in module.parameters()) == pytest.approx(681e6, rel=0.01)


@pytest.mark.parametrize("name", ["densenet121", "hf-hub:somebody/else", "hf-hub:paige-ai/Virchow2G"])
def test_other_names_are_left_to_timm(name):
    assert find(name) is None


def test_refused_access_says_the_license_and_what_to_do(monkeypatch):
    def refuse(name, **arguments):
        msg = "401 Client Error. Access to model is restricted."
        raise OSError(msg)

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(RuntimeError, match=r"CC BY-NC-ND 4\.0.*hf auth login"):
        load_encoder("hf-hub:MahmoodLab/UNI2-h")
    with pytest.raises(RuntimeError, match=r"gated\. Read and accept"):
        load_encoder("hf-hub:somebody/else")


def test_an_unknown_architecture_is_refused_with_those_like_it():
    with pytest.raises(ValueError, match=r"no image encoder 'densenet12'.*'densenet121'"):
        load_encoder("densenet12")
