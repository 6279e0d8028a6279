from __future__ import annotations

import logging
import socket
import time

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from tissue import Pool
from torch import nn

from sthisto.models import Encoder, load_encoder
from sthisto.models.encoders import inference, network
from sthisto.models.encoders.densenet import FoldedDenseNet, can_fold
from sthisto.models.encoders.inference import FrozenEncoder


def small_densenet(**options) -> nn.Module:
    """A DenseNet whose norms differ from the identity, as trained ones do."""
    torch.manual_seed(0)
    module = timm.models.densenet.DenseNet(growth_rate=8, block_config=(2, 3, 2), num_classes=0, **options)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.normal_(part.weight, 1, 0.2)
            nn.init.normal_(part.bias, std=0.2)
    return module.eval()


def patches(n: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def as_it_is(module: nn.Module, given: np.ndarray) -> np.ndarray:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((torch.from_numpy(given).float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()
    with torch.inference_mode():
        return module(pixels).numpy()


@pytest.mark.parametrize("size", [64, 112, 75])
def test_folded_densenet_gives_the_features_of_the_densenet(size):
    module = small_densenet()
    assert can_fold(module)
    given = patches(5, size)
    expected = as_it_is(module, given)
    found = FrozenEncoder(Encoder(module, name="small"), "32")(given)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("options", [{"stem_type": "deep"}, {"act_layer": "silu"}])
def test_densenets_of_other_parts_are_left_as_they_are(options):
    module = timm.models.densenet.DenseNet(growth_rate=8, block_config=(2, 2), num_classes=0, **options).eval()
    assert not can_fold(module)
    expected = as_it_is(module, patches(2))
    np.testing.assert_allclose(
        FrozenEncoder(Encoder(module, name="other"), "32")(patches(2)), expected, rtol=1e-4, atol=1e-5
    )


def test_folding_leaves_the_encoder_as_it_was():
    encoder = Encoder(small_densenet(), name="small")
    before = encoder.digest()
    FoldedDenseNet(encoder.module)
    FrozenEncoder(encoder, "bf16")(patches(1))
    assert encoder.digest() == before
    assert encoder.dtype == torch.float32


@pytest.mark.parametrize("folds", [True, False])
def test_bf16_features_point_where_float32_features_do(folds):
    module = small_densenet() if folds else timm.create_model("resnet10t", num_classes=0).eval()
    encoder = Encoder(module, name="any")
    exact = torch.from_numpy(FrozenEncoder(encoder, "32")(patches(6)))
    rough = torch.from_numpy(FrozenEncoder(encoder, "bf16")(patches(6)))
    assert rough.dtype == torch.float32
    assert (1 - torch.cosine_similarity(exact, rough)).max() < 1e-2
    assert not torch.equal(exact, rough)


def test_bf16_on_a_cpu_without_it_is_said(monkeypatch, caplog):

    for there in (True, False):
        monkeypatch.setattr(inference, "onednn_computes", lambda dtype, there=there: there)
        FrozenEncoder(Encoder(Pool(), name="any"), "bf16")
        assert ("no instructions for bfloat16" in caplog.text) != there


def test_features_do_not_depend_on_how_many_patches_are_encoded_at_once():
    encoder = Encoder(small_densenet(), name="small")
    together = FrozenEncoder(encoder, "32")(patches(21))
    alone = np.concatenate([FrozenEncoder(encoder, "32")(patch[None]) for patch in patches(21)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


class RunsOut(nn.Module):
    """Has memory for three patches."""

    def forward(self, pixels):
        if len(pixels) > 3:
            msg = "CUDA out of memory."
            raise torch.OutOfMemoryError(msg)
        return pixels.mean((2, 3))


def test_out_of_memory_halves_the_batch_and_says_so(caplog):
    with caplog.at_level(logging.WARNING, "sthisto"):
        features = FrozenEncoder(Encoder(RunsOut(), name="large"), "32")(patches(20, 8))
    expected = as_it_is(Pool(), patches(20, 8))
    assert features.shape == (20, 3)
    np.testing.assert_allclose(features, expected[:, :12].reshape(20, 3, 4).mean(2), rtol=1e-4, atol=1e-5)
    assert [record.args[-1] for record in caplog.records] == [2]
    assert "encoding with 'large' takes 4 spots at once: going on with 2" in caplog.text


def test_out_of_memory_with_a_single_spot_is_an_error_that_says_what_to_do():
    class Never(nn.Module):
        def forward(self, pixels):
            msg = "CUDA out of memory."
            raise torch.OutOfMemoryError(msg)

    with pytest.raises(torch.OutOfMemoryError, match=r"not even for one spot.*device = 'cpu'"):
        FrozenEncoder(Encoder(Never(), name="never"), "32")(patches(4, 8))


def test_an_encoder_that_does_not_pool_is_named():
    with pytest.raises(ValueError, match=r"returned \(1, 4, 6, 6\).*Pool its output"):
        load_encoder(nn.Conv2d(3, 4, 3)).n_features(8)


def test_a_trained_encoder_has_another_digest():
    encoder = Encoder(small_densenet(), name="small")
    before = encoder.digest()
    with torch.no_grad():
        next(encoder.module.parameters()).add_(1e-3)
    assert encoder.digest() != before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_gpu_gives_the_features_of_the_cpu(monkeypatch, precision):
    from sthisto import settings

    encoder = Encoder(small_densenet(), name="small")
    on_gpu = FrozenEncoder(encoder, precision)(patches(5))
    monkeypatch.setattr(settings, "device", "cpu")
    on_cpu = FrozenEncoder(encoder, "32")(patches(5))
    distance = 1 - torch.cosine_similarity(torch.from_numpy(on_gpu), torch.from_numpy(on_cpu))
    assert distance.max() < (1e-2 if precision == "bf16" else 1e-4)


def test_an_encoder_of_another_architecture_has_another_digest():
    pooled = [Encoder(nn.Sequential(nn.AdaptiveAvgPool2d(n), nn.Flatten()), name="pool") for n in (2, 4)]
    assert pooled[0].digest() != pooled[1].digest()


@pytest.mark.parametrize("kind", ["safetensors", "state dict", "wrapped"])
def test_local_weights_are_loaded_without_their_classifier(kind, tmp_path):
    whole = timm.create_model("resnet10t")
    state = whole.state_dict()
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if kind == "wrapped" else state, path)
    loaded = load_encoder("resnet10t", weights=path).module.state_dict()
    assert not any(key.startswith("fc.") for key in loaded)
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())


def test_weights_that_do_not_fit_or_hold_more_than_tensors_are_refused(tmp_path):
    other = tmp_path / "other.pth"
    torch.save(timm.create_model("resnet18").state_dict(), other)
    with pytest.raises(ValueError, match=r"other\.pth could not be loaded into ResNet"):
        load_encoder("resnet10t", weights=other)
    code = tmp_path / "code.pth"
    torch.save({"state_dict": np.random.default_rng}, code)
    with pytest.raises(ValueError, match=r"code\.pth could not be loaded"):
        load_encoder("resnet10t", weights=code)
    with pytest.raises(ValueError, match="a module has its own"):
        load_encoder(Pool(), weights=other)


def test_without_a_network_an_encoder_of_a_hub_fails_at_once(monkeypatch):
    def lost(*_args, **_options):
        time.sleep(60)  # as looking up a name can take, without a timeout of its own
        raise TimeoutError  # while other tests run

    monkeypatch.setattr(socket, "create_connection", lost)
    monkeypatch.setattr(socket, "getaddrinfo", lost)
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="Without a network, use"):
        load_encoder("hf-hub:nobody/has-this-encoder")
    assert time.monotonic() - started < 5


def test_the_hub_is_asked_again_where_it_can_be_reached(monkeypatch):
    from huggingface_hub import constants

    for reached in (True, False):
        monkeypatch.setattr(network, "can_reach", lambda _url, reached=reached: reached)
        with network.offline_without_network():
            assert constants.is_offline_mode() is not reached
        assert not constants.is_offline_mode()


def test_a_host_is_reached_where_something_listens(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert network.can_reach(f"http://127.0.0.1:{port}")
    assert not network.can_reach(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04", b"\x80\x02cos\nsystem\n.", b"\x80\x04."])
def test_what_holds_no_weights_is_refused_by_name(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.pth could not be loaded into ResNet"):
        load_encoder("test_resnet", weights=path)


@pytest.mark.parametrize("stored", [3, [torch.zeros(1)], {"state_dict": {"a": "b"}}])
def test_what_is_no_state_dict_is_refused_by_name(tmp_path, stored):
    torch.save(stored, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth could not be loaded.*something else than a state dict"):
        load_encoder("test_resnet", weights=tmp_path / "weights.pth")
