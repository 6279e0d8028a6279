"""B-spline bases on the CPU in float32: only those that are not zero, as polynomials of each interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from sthisto.nn._kernels.native import compiled, over_ranges

__all__ = ["NativeSplineBases"]

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
def _fill_pieces(grid: Any, degree: int, pieces: Any, first: int, last: int) -> None:
    """Write every basis as a polynomial of each interval, by Cox and de Boor's recurrence on the coefficients.

    ``pieces[f, i, p, r]`` multiplies ``(x - grid[f, i]) ** p`` in basis ``i - degree + r``, the only ones that are not
    zero on interval i. Those whose knots lie beyond the grid do not exist and stay zero. `pieces` comes in as zeros.
    """
    last_knot = grid.shape[1] - 1
    for f in range(first, last):
        knots = grid[f]
        for i in range(last_knot):
            piece = pieces[f, i]
            piece[0, degree] = 1
            for k in range(1, degree + 1):
                for r in range(degree - k, degree + 1):
                    j = i - degree + r
                    exists = j >= 0 and j + k + 1 <= last_knot
                    rise = 1 / (knots[j + k] - knots[j]) if exists else 0.0
                    fall = 1 / (knots[j + k + 1] - knots[j + 1]) if exists and r < degree else 0.0
                    past = knots[i] - knots[j] if exists else 0.0
                    ahead = knots[j + k + 1] - knots[i] if exists else 0.0
                    after = min(r + 1, degree)
                    for p in range(k, -1, -1):
                        value = rise * past * piece[p, r] + fall * ahead * piece[p, after]
                        if p > 0:
                            value += rise * piece[p - 1, r] - fall * piece[p - 1, after]
                        piece[p, r] = value


@compiled
def _forward(x: Any, grid: Any, pieces: Any, bases: Any, first: int, last: int) -> None:
    degree, n_bases = pieces.shape[2] - 1, bases.shape[2]
    for b in range(first, last):
        for f in range(x.shape[1]):
            i = _interval(x[b, f], grid[f])
            bases[b, f] = _NAN if np.isnan(x[b, f]) else _ZERO
            if i >= 0:
                s = x[b, f] - grid[f, i]
                for r in range(max(0, degree - i), min(degree + 1, n_bases + degree - i)):
                    value = pieces[f, i, degree, r]
                    for p in range(degree - 1, -1, -1):
                        value = value * s + pieces[f, i, p, r]
                    bases[b, f, i - degree + r] = value


@compiled
def _backward(x: Any, grid: Any, pieces: Any, grad_bases: Any, grad_x: Any, first: int, last: int) -> None:
    degree, n_bases = pieces.shape[2] - 1, grad_bases.shape[2]
    for b in range(first, last):
        for f in range(x.shape[1]):
            i = _interval(x[b, f], grid[f])
            total = _NAN if np.isnan(x[b, f]) else _ZERO
            if i >= 0:
                s = x[b, f] - grid[f, i]
                for r in range(max(0, degree - i), min(degree + 1, n_bases + degree - i)):
                    slope = _ZERO
                    for p in range(degree, 0, -1):
                        slope = slope * s + np.float32(p) * pieces[f, i, p, r]
                    total += slope * grad_bases[b, f, i - degree + r]
            grad_x[b, f] = total


class NativeSplineBases(torch.autograd.Function):
    """`sthisto.nn.kan.spline_bases` for contiguous float32 tensors on the CPU."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, grid: torch.Tensor, degree: int) -> torch.Tensor:
        n_knots = grid.shape[1]
        pieces = np.zeros((len(grid), n_knots - 1, degree + 1, degree + 1))
        over_ranges(_fill_pieces, len(grid), grid.double().numpy(), degree, pieces)
        ctx.pieces = pieces.astype(np.float32)
        bases = x.new_empty(*x.shape, n_knots - degree - 1)
        over_ranges(_forward, len(x), x.numpy(), grid.numpy(), ctx.pieces, bases.numpy())
        ctx.save_for_backward(x, grid)
        return bases

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_bases: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, grid = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        arrays = (x.numpy(), grid.numpy(), ctx.pieces, grad_bases.contiguous().numpy(), grad_x.numpy())
        over_ranges(_backward, len(x), *arrays)
        return grad_x, None, None
