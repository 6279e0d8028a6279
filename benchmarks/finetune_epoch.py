"""A training step of DANet with its DenseNet-121: 180 patches of 112 px, 785 genes, against float32, contiguous.

An epoch is as many such steps as there are batches. The loss curves of the three are printed over a few steps from the
same weights, beside those of two other seeds: how far precision moves the loss against how far chance does.
Run: python benchmarks/finetune_epoch.py [--check] [--repeats 2]
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from _ratios import compare
from torch import nn

from sthisto.models import DANet, PatchSpec, load_encoder
from sthisto.models.training.loop import Training
from sthisto.nn import contrastive_loss

N_SPOTS, SIZE, N_GENES, N_STEPS = 180, 112, 785, 4
_rng = np.random.default_rng(0)
PATCHES = torch.from_numpy(_rng.integers(0, 256, (N_SPOTS, SIZE, SIZE, 3), dtype=np.uint8))
EXPRESSION = torch.from_numpy(_rng.random((N_SPOTS, N_GENES), dtype=np.float32))


class Contiguous(nn.Module):
    """An encoder's module that is fed as usual: channels first in memory."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.to(memory_format=torch.contiguous_format)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode (batch, 3, height, width)."""
        return self.module(pixels.contiguous())


def stepper(precision: str = "32", *, contiguous: bool = False, seed: int = 0) -> Callable[[], float]:
    """Prepare one step of training on the batch."""
    torch.manual_seed(seed)
    encoder = load_encoder("densenet121", weights="random", input_size="patch", seed=seed)
    if contiguous:
        encoder.module = Contiguous(encoder.module)
    options = DANet.make_options({"finetune": True})
    model = DANet([f"gene{i}" for i in range(N_GENES)], patch=PatchSpec(SIZE), options=options, encoder=encoder)
    training = Training(
        max_epochs=1, batch_size=N_SPOTS, learning_rate=1e-4, weight_decay=1e-3, precision=precision, seed=seed
    )
    fabric = training.fabric()
    towers = model.towers(encoder.n_features(SIZE), encoder)
    wrapped, optimizer = fabric.setup(towers, torch.optim.AdamW(towers.parameters(), lr=1e-4))
    wrapped.train()

    def step() -> float:
        optimizer.zero_grad()
        loss = contrastive_loss(*wrapped(PATCHES, EXPRESSION))
        fabric.backward(loss)
        optimizer.step()
        return loss.item()

    return step


def curves() -> str:
    """Return the loss over a few steps: of both precisions from the same weights, and of other seeds."""
    cases = {"float32, contiguous": stepper(contiguous=True), "float32": stepper(), "bf16": stepper("bf16")}
    cases |= {f"float32, seed {seed}": stepper(seed=seed) for seed in (1, 2)}
    lines = []
    for name, step in cases.items():
        torch.manual_seed(0)
        lines.append(f"loss, {name:24s}" + " ".join(f"{step():8.4f}" for _ in range(N_STEPS)))
    return "\n".join(lines)


if __name__ == "__main__":
    compare(
        f"DANet, one step of training on {N_SPOTS} patches of {SIZE} px, {torch.get_num_threads()} threads",
        {
            "float32, contiguous": stepper(contiguous=True),
            "sthisto, float32": stepper(),
            "sthisto, precision='bf16'": stepper("bf16"),
        },
        against="float32, contiguous",
        targets={"sthisto, float32": 1.3, "sthisto, precision='bf16'": 2.5},
        repeats=2,
        notes=curves(),
    )
