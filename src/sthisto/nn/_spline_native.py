"""B-spline bases on the CPU in float32: only those that are not zero, by de Boor's recurrence."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from sthisto.nn._native import compiled, over_ranges

__all__ = ["NativeSplineBases"]

_ONE = np.float32(1.0)
_ZERO = np.float32(0.0)
_NAN = np.float32(np.nan)


@compiled
def _interval(x: float, knots: Any) -> int:
    """Index of the interval [knots[i], knots[i + 1]) with x in it, or -1 outside all of them."""
    below = 0
    for i in range(knots.size):
        below += x >= knots[i]
    return below - 1 if below < knots.size else -1


@compiled
def _local_bases(x: float, knots: Any, i: int, degree: int, values: Any, lower: Any) -> None:
    """Fill ``values[: degree + 1]`` with the bases that are not zero on interval `i`, `lower` with those of one less.

    Algorithm A2.2 of Piegl and Tiller, The NURBS Book. Knots beyond the ends of the grid do not exist: the bases that
    would need them are never read, so they stay zero.
    """
    last = knots.size - 1
    values[0] = _ONE
    for j in range(1, degree + 1):
        for r in range(j):
            lower[r] = values[r]
        saved = _ZERO
        for r in range(j):
            left, right = i + 1 - j + r, i + 1 + r
            share = lower[r] / (knots[right] - knots[left]) if left >= 0 and right <= last else _ZERO
            values[r] = saved + ((knots[right] - x) * share if right <= last else _ZERO)
            saved = (x - knots[left]) * share if left >= 0 else _ZERO
        values[j] = saved


@compiled
def _forward(x: Any, grid: Any, degree: int, bases: Any, first: int, last: int) -> None:
    n_bases = bases.shape[2]
    values, lower = np.empty(degree + 1, np.float32), np.empty(degree + 1, np.float32)
    for b in range(first, last):
        for f in range(x.shape[1]):
            i = _interval(x[b, f], grid[f])
            bases[b, f] = _NAN if np.isnan(x[b, f]) else _ZERO
            if i >= 0:
                _local_bases(x[b, f], grid[f], i, degree, values, lower)
                for r in range(max(0, degree - i), min(degree + 1, n_bases + degree - i)):
                    bases[b, f, i - degree + r] = values[r]


@compiled
def _backward(x: Any, grid: Any, degree: int, grad_bases: Any, grad_x: Any, first: int, last: int) -> None:
    n_bases = grad_bases.shape[2]
    values, lower = np.empty(degree + 1, np.float32), np.empty(degree + 1, np.float32)
    for b in range(first, last):
        for f in range(x.shape[1]):
            knots = grid[f]
            i = _interval(x[b, f], knots)
            total = _NAN if np.isnan(x[b, f]) else _ZERO
            if i >= 0 and degree > 0:
                _local_bases(x[b, f], knots, i, degree, values, lower)
                for r in range(degree):  # lower[r] rises into basis i - degree + r + 1 and falls out of the one before
                    left = i - degree + r + 1
                    if left >= 0 and left + degree < knots.size:
                        slope = lower[r] * np.float32(degree) / (knots[left + degree] - knots[left])
                        if left < n_bases:
                            total += slope * grad_bases[b, f, left]
                        if left > 0:
                            total -= slope * grad_bases[b, f, left - 1]
            grad_x[b, f] = total


class NativeSplineBases(torch.autograd.Function):
    """`sthisto.nn.kan.spline_bases` for contiguous float32 tensors on the CPU."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, grid: torch.Tensor, degree: int) -> torch.Tensor:
        bases = x.new_empty(*x.shape, grid.shape[1] - degree - 1)
        over_ranges(_forward, len(x), x.numpy(), grid.numpy(), degree, bases.numpy())
        ctx.save_for_backward(x, grid)
        ctx.degree = degree
        return bases

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_bases: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, grid = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        arrays = (x.numpy(), grid.numpy(), ctx.degree, grad_bases.contiguous().numpy(), grad_x.numpy())
        over_ranges(_backward, len(x), *arrays)
        return grad_x, None, None
