"""Embed 64 patches of 224 px with DenseNet-121 on the CPU, against the same model in float32, contiguous, in one batch.

The weights are random: they cost what trained ones do. Backends of `settings.encoder_backend` that are installed stand
beside torch, compiled before the clock starts. Run: python benchmarks/embed_patches.py [--check]
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from _ratios import compare

from sthisto import settings
from sthisto.models import load_encoder
from sthisto.models.encoders.inference import FrozenEncoder

N_PATCHES, SIZE = 64, 224
PATCHES = np.random.default_rng(0).integers(0, 256, (N_PATCHES, SIZE, SIZE, 3), dtype=np.uint8)


def contiguous() -> Callable[[], np.ndarray]:
    """Prepare the model as it is usually called."""
    encoder = load_encoder("densenet121", weights="random")
    module = encoder.module.to(memory_format=torch.contiguous_format).eval()

    def embed() -> np.ndarray:
        with torch.inference_mode():
            pixels = torch.from_numpy(PATCHES).permute(0, 3, 1, 2).contiguous().float() / 255
            return module((pixels - encoder.mean) / encoder.std).numpy()

    return embed


def ours(precision: str, backend: str = "torch") -> Callable[[], np.ndarray]:
    """Prepare sthisto's frozen encoder, nothing cached."""
    settings.encoder_backend = backend
    frozen = FrozenEncoder(load_encoder("densenet121", weights="random"), precision)
    frozen(PATCHES[:2])  # compiles
    return lambda: frozen(PATCHES)


def installed() -> list[str]:
    """Return the backends that are installed."""
    packages = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime", "onnx")}
    return [name for name, needed in packages.items() if all(find_spec(one) for one in needed)]


def agreement() -> str:
    """Return how far the embeddings lie from those of the usual call."""
    expected = torch.from_numpy(contiguous()())
    lines = []
    for precision, backend in (("32", "torch"), ("bf16", "torch"), *(("32", name) for name in installed())):
        found = torch.from_numpy(ours(precision, backend)())
        relative = float((found - expected).abs().max() / expected.abs().max())
        cosine = float((1 - torch.cosine_similarity(found, expected)).max())
        lines.append(
            f"{backend:12s}precision {precision:5s} cosine distance up to {cosine:.1e}, difference {relative:.1e}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    compare(
        f"DenseNet-121, {N_PATCHES} patches of {SIZE} px, {torch.get_num_threads()} threads",
        {
            "float32, contiguous, one batch": contiguous(),
            "sthisto, float32": ours("32"),
            "sthisto, bf16": ours("bf16"),
            **{f"sthisto, {name}": ours("32", name) for name in installed()},
        },
        against="float32, contiguous, one batch",
        targets={"sthisto, float32": 1.3, "sthisto, bf16": 3},
        repeats=3,
        notes=agreement(),
    )
