from __future__ import annotations

import json
from copy import deepcopy

import numpy as np
import pytest
import timm
import torch
from builders import skip_without_maps
from tissue import GENES, PATCHES, Pool, make_section, make_tissue
from torch import nn

import sthisto as sth
from sthisto.models import Knn, Ridge, load, load_encoder
from sthisto.models.encoders.features import extract
from sthisto.models.encoders.inference import FrozenEncoder
from sthisto.models.encoders.layers import available_layers
from sthisto.models.encoders.pathology import ClassAndPatches


def patches(n: int = 2, size: int = 96) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def hooked(encoder, name: str, given: np.ndarray) -> torch.Tensor:
    """Return what the module `name` of timm's whole model returns, as the whole model runs."""
    found = []
    module = encoder.module.eval()
    handle = module.get_submodule(name).register_forward_hook(lambda _, inputs, output: found.append(output.clone()))
    with torch.inference_mode():
        encoder(torch.from_numpy(given))
    handle.remove()
    return found[0]


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("efficientnet_lite0", 2),
        ("efficientnet_lite0", "blocks.4"),
        ("efficientnet_lite0", -1),
        ("densenet121", 1),
        ("densenet121", 4),
        ("test_resnet", 0),
        ("test_convnext", 1),
        ("mobilenetv3_small_050", 0),
        ("legacy_xception", 0),
    ],
)
def test_layer_is_the_mean_of_the_map_that_a_hook_on_the_whole_network_sees(name, layer):
    skip_without_maps(name)
    weights = None if name == "efficientnet_lite0" else "random"
    whole = load_encoder(name, weights=weights, input_size="patch")
    encoder = load_encoder(name, weights=weights, input_size="patch", layer=layer)
    (stage,) = encoder.module.layers
    expected = hooked(whole, stage.name, patches())
    np.testing.assert_allclose(
        FrozenEncoder(encoder, "32")(patches()), expected.mean((2, 3)).numpy(), rtol=1e-4, atol=1e-5
    )
    assert expected.shape[1] == stage.n_channels
    if name != "legacy_xception":  # whose convolutions are not padded
        assert -(-patches().shape[1] // stage.reduction) == expected.shape[2]


def test_layer_of_the_recipe_has_40_channels_at_an_eighth_of_the_width():
    (stage,) = load_encoder("efficientnet_lite0", layer="blocks.2").module.layers
    assert (stage.index, stage.n_channels, stage.reduction) == (2, 40, 8)


def test_layer_of_a_vision_transformer_is_the_mean_of_its_patch_tokens():
    whole = load_encoder("test_vit", weights="random")
    encoder = load_encoder("test_vit", weights="random", layer=1)
    tokens = hooked(whole, "blocks.1", patches(size=160))[:, whole.module.num_prefix_tokens :]
    np.testing.assert_allclose(FrozenEncoder(encoder, "32")(patches(size=160)), tokens.mean(1), rtol=1e-4, atol=1e-5)


def test_layer_of_a_network_that_keeps_channels_last_is_averaged_over_space():
    encoder = load_encoder("swin_tiny_patch4_window7_224", weights="random", layer=0)
    expected = hooked(load_encoder("swin_tiny_patch4_window7_224", weights="random"), "layers.0", patches(1, 224))
    found = FrozenEncoder(encoder, "32")(patches(1, 224))
    assert found.shape == (1, 96)
    np.testing.assert_allclose(found, expected.mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_virchows_wrapper_is_taken_off_before_its_maps_are_taken():
    whole = timm.create_model("test_vit", num_classes=0).eval()
    encoder = load_encoder(ClassAndPatches(whole)).at(1)
    assert encoder.n_features(160) == whole.num_features


def test_several_layers_are_concatenated_from_the_first_to_the_last():
    both = load_encoder("efficientnet_lite0", layer=("blocks.2", 1))
    assert both.layers == ("blocks.1", "blocks.2")
    alone = [FrozenEncoder(load_encoder("efficientnet_lite0", layer=i), "32")(patches()) for i in (1, 2)]
    np.testing.assert_allclose(FrozenEncoder(both, "32")(patches()), np.hstack(alone), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "densenet121", "test_resnet", "test_vit", "legacy_xception"])
def test_network_behind_the_layer_is_not_kept(name):
    skip_without_maps(name)
    weights = None if name == "efficientnet_lite0" else "random"
    whole = load_encoder(name, weights=weights)
    last = load_encoder(name, weights=weights, layer=1).module.layers[0].name
    parameters = sum(p.numel() for p in load_encoder(name, weights=weights, layer=1).module.parameters())
    order = [key for key, _ in whole.module.named_modules()]
    upto = order.index([key for key in order if key == last or key.startswith(f"{last}.")][-1])
    behind = {id(p) for key in order[upto + 1 :] for p in whole.module.get_submodule(key).parameters()}
    kept = sum(p.numel() for p in whole.module.parameters() if id(p) not in behind)
    assert parameters <= kept < sum(p.numel() for p in whole.module.parameters())


def test_layer_is_part_of_the_digest():
    layers = [None, 1, 2, (1, 2)]
    assert len({load_encoder("efficientnet_lite0", layer=layer).digest() for layer in layers}) == len(layers)


@pytest.mark.parametrize(("wanted", "error"), [(5, ValueError), ("blocks.9", ValueError)])
def test_layer_that_is_not_there_is_an_error_that_lists_those_that_are(wanted, error):
    with pytest.raises(error, match=r"1 = 'blocks.1' \(24 channels, 1/4 of the width\); 2 = 'blocks.2' \(40 channels"):
        load_encoder("efficientnet_lite0", layer=wanted)


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        ((), ValueError, "`layer` is empty"),
        ((2, "blocks.2"), ValueError, "expected one or several different layers"),
        (True, TypeError, "the name or number of a layer"),
    ],
)
def test_no_layer_the_same_layer_twice_and_other_types_are_errors(wanted, error, message):
    with pytest.raises(error, match=message):
        load_encoder("efficientnet_lite0", layer=wanted)


def test_module_of_timm_has_layers_and_another_module_has_none():
    module = timm.create_model("test_resnet", num_classes=0).eval()
    before = deepcopy(module.state_dict())
    assert load_encoder(module, layer="layer1").layers == ("layer1",)
    assert module.state_dict().keys() == before.keys()
    assert available_layers(nn.Conv2d(3, 4, 3)) == ()
    with pytest.raises(ValueError, match=r"module:Pool.*no timm model.*encoder_layer"):
        load_encoder(Pool(), layer=1)


def test_encoder_that_was_loaded_at_a_layer_stays_there():
    encoder = load_encoder("efficientnet_lite0", layer=1)
    for same in (None, 1, "blocks.1", [1]):
        assert load_encoder(encoder, layer=same) is encoder
    with pytest.raises(ValueError, match=r"loaded at the layer 'blocks.1'.*encoder_layer=0"):
        load_encoder(encoder, layer=0)


@pytest.mark.parametrize("given", ["efficientnet_lite0", "module"])
def test_loaded_model_has_the_layer_that_it_was_fitted_with(tmp_path, given):
    image_encoder = timm.create_model("test_resnet", num_classes=0).eval() if given == "module" else given
    model = Knn(GENES, patch=PATCHES, options=Knn.Options(k=5), encoder=load_encoder(image_encoder, layer=[0, 1]))
    model.fit([make_section("A"), make_section("B", seed=1)])
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model", image_encoder=image_encoder if given == "module" else None)
    assert loaded.encoder.layers == model.encoder.layers
    section = make_section("C", seed=2).inputs
    np.testing.assert_array_equal(loaded.predict(section).expression, model.predict(section).expression)


def test_bundle_without_a_record_of_layers_is_read_as_before(tmp_path):
    model = Ridge(GENES, patch=PATCHES, encoder=load_encoder("efficientnet_lite0", input_size="patch"))
    model.fit([make_section("A"), make_section("B", seed=1)])
    model.save(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    del config["encoder"]["layers"]
    file.write_text(json.dumps(config))
    assert load(tmp_path / "model", verify=False).encoder.layers == ()


def test_features_of_a_layer_are_kept_apart_from_those_of_another():
    section = make_section().inputs
    encoders = [load_encoder("efficientnet_lite0", input_size="patch", layer=layer) for layer in (1, 2)]
    for _ in range(2):  # computed, then from memory
        assert [extract(section, encoder).values.shape[1] for encoder in encoders] == [24, 40]


def test_fit_and_cross_validation_take_a_layer():
    tissue = make_tissue()
    arguments = {"image_encoder": "efficientnet_lite0", "encoder_layer": "blocks.2", "patch_size": 16}
    model = sth.tl.fit(tissue, method="ridge", **arguments)
    assert model.encoder.layers == ("blocks.2",)
    assert tissue["counts"].uns["sthisto"]["encoder_layer"] == "blocks.2"
    sth.tl.predict(tissue, model)
    sth.tl.cross_validate(tissue, "ridge", groups="section", seeds=1, **arguments)
    assert np.isfinite(tissue["counts"].uns["sthisto_cv"]["scores"]["pcc"]).any()
