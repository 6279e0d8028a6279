"""A Mamba block forward and backward on the CPU, against the same block with a step-by-step scan in PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from _side_by_side import Case, main

from sthisto.nn import Mamba

BATCH, LENGTH = 256, 3467


class StepByStep(Mamba):
    """The block as it is usually written: every step's decay and input at once, then one step after the other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, length, d_model) to the same."""
        u, gate = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)
        u = F.silu(self.conv1d(F.pad(u, (self.conv1d.kernel_size[0] - 1, 0)))).transpose(1, 2)
        low, b, c = self.x_proj(u).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = F.softplus(self.dt_proj(low))
        decay = torch.exp(delta.unsqueeze(-1) * -torch.exp(self.A_log))
        drive = (delta * u).unsqueeze(-1) * b.unsqueeze(2)
        h, outputs = torch.zeros_like(decay[:, 0]), []
        for decay_, drive_, c_ in zip(decay.unbind(1), drive.unbind(1), c.unbind(1), strict=True):
            h = decay_ * h + drive_
            outputs.append((h * c_.unsqueeze(1)).sum(-1))
        y = torch.stack(outputs, 1) + self.D * u
        return self.out_proj(y * F.silu(gate.transpose(1, 2)))


def block(kind: type[Mamba]) -> Callable[[], Callable[[], object]]:
    """Prepare one forward and backward pass of a block with the same weights and inputs."""

    def prepare() -> Callable[[], object]:
        torch.manual_seed(0)
        model = kind(1)
        x, grad = torch.rand(BATCH, LENGTH, 1), torch.randn(BATCH, LENGTH, 1)

        def step() -> torch.Tensor:
            model.zero_grad()
            y = model(x)
            y.backward(grad)
            return y.detach()

        return step

    return prepare


if __name__ == "__main__":
    main(
        f"Mamba(1), batch {BATCH}, length {LENGTH}, forward + backward",
        [
            Case("sthisto.nn.Mamba, fused", block(Mamba)),
            Case("step by step over unbind", block(StepByStep), least_ratio=8, least_memory_ratio=4),
        ],
        repeats=5,
    )
