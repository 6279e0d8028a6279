"""A KAN layer forward and backward on the CPU, against efficient-kan's own formula and pykan."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from _side_by_side import Case, main

from sthisto.nn import KANLinear

BATCH, FEATURES = 4096, 64


class EfficientKAN(KANLinear):
    """The layer by efficient-kan's own formula: all bases by Cox and de Boor's recurrence, two products."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_features) to (batch, out_features)."""
        base = F.linear(F.silu(x), self.base_weight)
        grid, points = self.grid, x.unsqueeze(-1)
        bases = ((points >= grid[:, :-1]) & (points < grid[:, 1:])).to(x.dtype)
        for k in range(1, self.spline_order + 1):
            bases = (points - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)]) * bases[:, :, :-1] + (
                grid[:, k + 1 :] - points
            ) / (grid[:, k + 1 :] - grid[:, 1:-k]) * bases[:, :, 1:]
        weight = self.spline_weight * self.spline_scaler.unsqueeze(-1)
        return base + F.linear(bases.contiguous().view(len(x), -1), weight.view(self.out_features, -1))


def pykan() -> torch.nn.Module:
    """Make the layer as published code does: pykan's defaults, symbolic branch included."""
    from kan import KAN

    return KAN(width=[FEATURES, FEATURES], grid=5, k=3, auto_save=False)


def layer(make: Callable[[], torch.nn.Module]) -> Callable[[], Callable[[], object]]:
    """Prepare one forward and backward pass."""

    def prepare() -> Callable[[], object]:
        torch.manual_seed(0)
        model = make()
        x = torch.empty(BATCH, FEATURES).uniform_(-1.2, 1.2).requires_grad_()
        grad = torch.randn(BATCH, FEATURES)

        def step() -> torch.Tensor:
            model.zero_grad()
            x.grad = None
            y = model(x)
            y.backward(grad)
            return y.detach()

        return step

    return prepare


if __name__ == "__main__":
    cases = [
        Case("sthisto.nn.KANLinear", layer(lambda: KANLinear(FEATURES, FEATURES))),
        Case("efficient-kan's formula", layer(lambda: EfficientKAN(FEATURES, FEATURES)), least_ratio=1.5),
    ]
    skipped = {}
    if find_spec("kan") is None:
        skipped["pykan"] = "not installed, skipped"
    else:
        cases.append(Case("pykan", layer(pykan), least_ratio=100))
    main(f"KAN {FEATURES} -> {FEATURES}, batch {BATCH}, forward + backward", cases, repeats=7, skipped=skipped)
