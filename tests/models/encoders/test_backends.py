"""Frozen encoders through other libraries: the same features, and torch where these fail."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
import timm
import torch
from tissue import Pool, make_section
from torch import nn

from sthisto import settings
from sthisto.models import Encoder, load_encoder
from sthisto.models.encoders import backends
from sthisto.models.encoders.features import extract, features_identity
from sthisto.models.encoders.inference import FrozenEncoder

INSTALLED = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            not backends._is_installed(name), reason=f"{name} is not installed (pip install {name})"
        ),
    )
    for name in backends.BACKENDS
]
PATCHES = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


def small() -> Encoder:
    torch.manual_seed(0)
    return Encoder(timm.create_model("resnet10t", num_classes=0).eval(), name="small")


@pytest.fixture
def backend(monkeypatch):
    def choose(name):
        monkeypatch.setattr(settings, "encoder_backend", name)

    choose("torch")
    return choose


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("layer", [None, 1])
def test_backends_give_the_features_of_torch(backend, caplog, name, layer):
    encoder = small().at(layer)
    expected = FrozenEncoder(encoder, "32")(PATCHES)
    before = encoder.digest()
    backend(name)
    frozen = FrozenEncoder(encoder, "32")
    with caplog.at_level(logging.WARNING, "sthisto"):
        found = frozen(PATCHES)
    assert not caplog.text
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert found.dtype == np.float32
    assert encoder.digest() == before
    np.testing.assert_array_equal(frozen(PATCHES[:1]), FrozenEncoder(encoder, "32")(PATCHES[:1]))


@pytest.mark.parametrize("name", INSTALLED)
def test_features_of_backends_are_kept_apart(backend, name):
    section, encoder = make_section().inputs, small()
    of_torch = features_identity(encoder)
    backend(name)
    assert features_identity(encoder) == f"{of_torch}-{name}"
    assert extract(section, encoder).values.shape == (len(section), 512)
    settings.precision, kept = "bf16", settings.precision
    try:
        assert name not in features_identity(encoder)
    finally:
        settings.precision = kept


class Fake:
    """A backend whose programs return what torch does, or something else."""

    def __init__(self, monkeypatch, wrong: float = 0.0, error: Exception | None = None) -> None:
        self.wrong, self.error, self.compiled, self.calls = wrong, error, 0, 0
        monkeypatch.setattr(backends, "_is_installed", lambda name: name == "openvino")
        monkeypatch.setitem(backends._COMPILERS, "openvino", self.compile)
        monkeypatch.setitem(backends._RUNS, "openvino", self.run)
        monkeypatch.setattr(backends, "_PROGRAMS", type(backends._PROGRAMS)())

    def compile(self, module, example):
        self.compiled += 1
        if self.error is not None:
            raise self.error
        return module

    def run(self, module):
        def call(pixels):
            self.calls += 1
            with torch.inference_mode():
                return module(torch.from_numpy(pixels)).numpy() * (1 + self.wrong)

        return call


def test_a_program_is_compiled_once_for_each_encoder_and_size(backend, monkeypatch):
    fake, encoder = Fake(monkeypatch), small()
    expected = FrozenEncoder(encoder, "32")(PATCHES)
    backend("openvino")
    for _ in range(2):
        np.testing.assert_allclose(FrozenEncoder(encoder, "32")(PATCHES), expected, rtol=1e-6)
    assert fake.compiled == 1
    FrozenEncoder(encoder, "32")(PATCHES[:, :32, :32])
    assert fake.compiled == 2
    other = Encoder(Pool(), name="pool")
    FrozenEncoder(other, "32")(PATCHES)
    assert fake.compiled == 3


@pytest.mark.parametrize("fault", [{"wrong": 1e-3}, {"error": RuntimeError("no such operation")}])
def test_torch_computes_what_a_backend_cannot(backend, monkeypatch, caplog, fault):
    Fake(monkeypatch, **fault)
    encoder = small()
    expected = FrozenEncoder(encoder, "32")(PATCHES)
    backend("openvino")
    frozen = FrozenEncoder(encoder, "32")
    with caplog.at_level(logging.WARNING, "sthisto"):
        np.testing.assert_allclose(frozen(PATCHES), expected, rtol=1e-5)
        frozen(PATCHES)
    assert caplog.text.count("Torch does") == 1


def test_auto_spares_small_jobs_the_conversion(backend, monkeypatch):
    fake, encoder = Fake(monkeypatch), small()
    backend("auto")
    frozen = FrozenEncoder(encoder, "32")
    many = np.repeat(PATCHES[:1, :32, :32], 256, axis=0)
    frozen(many)
    assert fake.compiled == 0
    frozen(many[:2])
    assert (fake.compiled, fake.calls) == (1, 2)


def test_settings_name_what_is_installed(backend, monkeypatch):
    monkeypatch.setattr(backends, "_is_installed", lambda name: False)
    backend("auto")
    assert backends.backend_name(torch.device("cpu"), "32") == "torch"
    backend("onnxruntime")
    with pytest.raises(ImportError, match="pip install onnxruntime onnx"):
        FrozenEncoder(small(), "32")
    assert backends.backend_name(torch.device("cuda"), "32") == "torch"
    with pytest.raises(ValueError, match="'openvino'"):
        settings.encoder_backend = "tensorrt"


@pytest.mark.skipif(not backends._is_installed("openvino"), reason="openvino is not installed")
def test_openvino_sends_no_statistics(backend, monkeypatch):
    telemetry = pytest.importorskip("openvino_telemetry")
    monkeypatch.setattr(telemetry.Telemetry, "init", lambda *_, **__: pytest.fail("telemetry was begun"))
    backend("openvino")
    FrozenEncoder(Encoder(nn.Sequential(Pool()), name="pool"), "32")(PATCHES)
    assert "openvino" in sys.modules


def test_the_packaged_encoder_is_the_same_by_default(backend):
    encoder = load_encoder("efficientnet_lite0", input_size="patch")
    expected = FrozenEncoder(encoder, "32")(PATCHES[:2])
    backend("auto")
    np.testing.assert_allclose(FrozenEncoder(encoder, "32")(PATCHES[:2]), expected, rtol=1e-5, atol=1e-6)
