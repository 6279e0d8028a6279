"""What a library offers in the place of each hand-written kernel, and how to put it there."""

from __future__ import annotations

from types import ModuleType

import torch


def step_by_step_scan(
    u: torch.Tensor, delta: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor
) -> torch.Tensor:
    """Scan one step after the other in torch, with autograd."""
    decay = torch.exp(delta.unsqueeze(-1) * a)
    drive = (delta * u).unsqueeze(-1) * b.unsqueeze(2)
    h, outputs = torch.zeros_like(decay[:, 0]), []
    for decay_, drive_, c_ in zip(decay.unbind(1), drive.unbind(1), c.unbind(1), strict=True):
        h = decay_ * h + drive_
        outputs.append((h * c_.unsqueeze(1)).sum(-1))
    return torch.stack(outputs, 1)


def put(module: ModuleType, name: str, value: object) -> None:
    """Replace an attribute that must be there, so that a renamed kernel is not silently compared with itself."""
    getattr(module, name)
    setattr(module, name, value)
