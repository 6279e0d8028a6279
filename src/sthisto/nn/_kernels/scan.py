"""The selective scan, and which implementation of it serves a tensor."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from sthisto._utils.validate import check_choice

__all__ = ["ScanBackend", "scan_backend", "selective_scan"]

ScanBackend = Literal["auto", "numba", "torch", "cuda"]
BACKENDS: Final = ("auto", "numba", "torch", "cuda")

BLOCK = 32
"""Steps of a block, and blocks of a segment, in the scan in plain PyTorch."""


def scan_backend(x: torch.Tensor, backend: ScanBackend = "auto") -> str:
    """Name the implementation of the selective scan that serves `x`.

    Parameters
    ----------
    x
        A tensor of any shape, on the device and of the type of the block's parameters.
    backend
        "numba": a fused loop for float32 on the CPU. "cuda": mamba-ssm's kernel. "torch": the blocked scan in
        plain PyTorch, for every device and type; half precision is scanned in float32. "auto" takes "numba" or
        "cuda" where they can serve `x`, else "torch".

    Returns
    -------
    "numba", "torch" or "cuda".

    Raises
    ------
    ValueError
        If `backend` cannot serve `x`.
    ImportError
        If `backend` is "cuda" and mamba-ssm is not installed.

    Examples
    --------
    >>> import torch
    >>> from sthisto.nn import scan_backend
    >>> scan_backend(torch.zeros(2, 10, 1))
    'numba'
    >>> scan_backend(torch.zeros(2, 10, 1, dtype=torch.float64))
    'torch'
    """
    check_choice(backend, BACKENDS, name="backend")
    native = x.device.type == "cpu" and x.dtype == torch.float32
    on_cuda = x.device.type == "cuda" and x.dtype != torch.float64
    if backend == "auto":
        if native:
            return "numba"
        return "cuda" if on_cuda and find_spec("mamba_ssm") is not None else "torch"
    if backend == "numba" and not native:
        msg = f"`backend`='numba' serves float32 on the CPU, found {x.dtype} on {x.device}. Pass backend='torch'."
        raise ValueError(msg)
    if backend == "cuda":
        if not on_cuda:
            msg = f"`backend`='cuda' serves float32 on a CUDA device, found {x.dtype} on {x.device}."
            raise ValueError(msg)
        if find_spec("mamba_ssm") is None:
            msg = "`backend`='cuda' needs mamba-ssm. Install it with: pip install mamba-ssm (sthisto's extra 'mamba')"
            raise ImportError(msg)
    return backend


def selective_scan(
    u: torch.Tensor,
    delta: torch.Tensor,
    a: torch.Tensor,
    weight: torch.Tensor,
    *,
    on_cuda: bool = False,
) -> torch.Tensor:
    """Scan a sequence with a state space model whose B and C depend on the input.

    ``h[t] = exp(delta[t] * a) * h[t-1] + delta[t] * u[t] * B[t]`` and ``y[t] = <C[t], h[t]>``, where
    ``[B[t], C[t]] = weight @ u[t]``, the same for all channels, and h starts at zero.

    Parameters
    ----------
    u
        Input, (batch, length, channels).
    delta
        Step sizes, positive, same shape.
    a
        Decay rates, negative, (channels, states).
    weight
        Projection of the input to B and C, (2 * states, channels).
    on_cuda
        Whether mamba-ssm's kernel scans; else the blocked scan in plain PyTorch does.

    Returns
    -------
    y, (batch, length, channels), of the type of `u`.

    References
    ----------
    Gu and Dao, Mamba: linear-time sequence modeling with selective state spaces, 2023, doi:10.48550/arXiv.2312.00752.
    """
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    u_, delta_, a_ = (x.to(dtype) for x in (u, delta, a))
    b, c = F.linear(u_, weight.to(dtype)).chunk(2, dim=-1)
    y = _cuda_scan(u_, delta_, a_, b, c) if on_cuda else BlockedScan.apply(u_, delta_, a_, b, c)
    return y.to(u.dtype)


def _cuda_scan(u: torch.Tensor, delta: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    u, delta, b, c = (x.transpose(1, 2).contiguous() for x in (u, delta, b, c))
    return selective_scan_fn(u, delta, a.contiguous(), b, c).transpose(1, 2)


def _recurrence(decay: torch.Tensor, drive: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Solve ``h[t] = decay[t] * h[t-1] + drive[t]`` along dimension 1, with ``h[-1] = start``.

    `decay` and `drive` are (batch, length, channels, states), `start` is (batch, channels, states).

    All blocks of `BLOCK` steps advance together from zero; then each block's first state is carried into it through
    the product of its decays. Nothing is divided, so no decay is too small.
    """
    length = decay.shape[1]
    padding = (0, 0) * (decay.ndim - 2) + (0, -length % BLOCK)
    blocks = (-(-length // BLOCK), BLOCK)
    steps = F.pad(decay, padding, value=1.0).unflatten(1, blocks).unbind(2)
    inputs = F.pad(drive, padding).unflatten(1, blocks).unbind(2)
    local, products = [inputs[0]], [steps[0]]
    for step, value in zip(steps[1:], inputs[1:], strict=True):
        local.append(torch.addcmul(value, step, local[-1]))
        products.append(step * products[-1])
    carried = [start]
    for product, last in zip(products[-1].unbind(1)[:-1], local[-1].unbind(1)[:-1], strict=True):
        carried.append(torch.addcmul(last, product, carried[-1]))
    h = torch.addcmul(torch.stack(local, 2), torch.stack(products, 2), torch.stack(carried, 1).unsqueeze(2))
    return h.flatten(1, 2)[:, :length]


def _segment(
    u: torch.Tensor, delta: torch.Tensor, a: torch.Tensor, b: torch.Tensor, start: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decays and states of one segment, both (batch, steps, channels, states)."""
    decay = torch.exp(delta.unsqueeze(-1) * a)
    return decay, _recurrence(decay, (delta * u).unsqueeze(-1) * b.unsqueeze(2), start)


class BlockedScan(torch.autograd.Function):
    """The scan in plain PyTorch: exact, for every device and type, with the states of one segment in memory.

    Maps u and delta, (batch, length, channels), a, (channels, states), b and c, (batch, length, states), to y like u.
    """

    @staticmethod
    def forward(
        ctx: Any, u: torch.Tensor, delta: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor
    ) -> torch.Tensor:
        start = u.new_zeros(u.shape[0], *a.shape)
        starts, outputs = [], []
        for u_, delta_, b_, c_ in zip(*(x.split(BLOCK * BLOCK, 1) for x in (u, delta, b, c)), strict=True):
            starts.append(start)
            _, h = _segment(u_, delta_, a, b_, start)
            outputs.append((h * c_.unsqueeze(2)).sum(-1))
            start = h[:, -1].clone()
        ctx.save_for_backward(u, delta, a, b, c, *starts)
        return torch.cat(outputs, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        u, delta, a, b, c, *starts = ctx.saved_tensors
        grads: list[list[torch.Tensor]] = [[], [], [], []]
        grad_a = torch.zeros_like(a)
        carried = torch.zeros_like(starts[0])
        segments = list(zip(*(x.split(BLOCK * BLOCK, 1) for x in (u, delta, b, c, grad_y)), starts, strict=True))
        for u_, delta_, b_, c_, grad_, start in reversed(segments):
            decay, h = _segment(u_, delta_, a, b_, start)
            # The gradient of the state obeys the same recurrence, backward, with the decays of the step after.
            after = torch.cat([decay[:, 1:], torch.ones_like(decay[:, :1])], 1)
            slopes = grad_.unsqueeze(-1) * c_.unsqueeze(2)
            grad_h = _recurrence(after.flip(1), slopes.flip(1), carried).flip(1)
            carried = decay[:, 0] * grad_h[:, 0]
            before = decay * torch.cat([start.unsqueeze(1), h[:, :-1]], 1) * grad_h
            along_b = (grad_h * b_.unsqueeze(2)).sum(-1)
            grads[0].append(along_b * delta_)
            grads[1].append((before * a).sum(-1) + along_b * u_)
            grads[2].append((grad_h * (delta_ * u_).unsqueeze(-1)).sum(2))
            grads[3].append((h * grad_.unsqueeze(-1)).sum(2))
            grad_a += (before * delta_.unsqueeze(-1)).sum((0, 1))
        grad_u, grad_delta, grad_b, grad_c = (torch.cat(parts[::-1], 1) for parts in grads)
        return grad_u, grad_delta, grad_a, grad_b, grad_c
