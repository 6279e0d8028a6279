"""The inner part of a Mamba block on the CPU in float32: one fused loop over the sequence, forward and backward.

Nothing of size (batch, length, channels, states) is ever stored. The loop walks the sequence tile by tile; the
forward pass keeps the state at the start of each tile, the backward pass recomputes a tile's states from it. Arrays
of one spot are (channels, length) here, so that loops over a tile's steps read neighboring values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from sthisto.nn._kernels.native import compiled, over_ranges

__all__ = ["TILE", "NativeBlock"]

TILE = 64
"""Steps whose decays and states are held at once: two tiles of 64 x 16 floats stay in the first-level cache."""

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


@compiled
def _logistic(x: float) -> Any:
    return _ONE / (_ONE + np.exp(-x))


@compiled
def _softplus(x: float) -> Any:
    """Return ``log(1 + exp(x))``, without overflow."""
    return np.maximum(x, _ZERO) + np.log1p(np.exp(-np.abs(x)))


@compiled
def _convolve(xz: Any, weight: Any, bias: Any, t0: int, x: Any, c: Any) -> None:
    """Read a tile's input and the steps before it into `x`, convolve it causally into `c`."""
    n_channels, width = weight.shape
    n_steps = c.shape[1]
    for d in range(n_channels):
        for t in range(n_steps + width - 1):
            at = t0 + t - (width - 1)
            x[d, t] = xz[at, d] if at >= 0 else _ZERO
        c[d] = bias[d]
        for k in range(width):
            for t in range(n_steps):
                c[d, t] += weight[d, k] * x[d, t + k]


@compiled
def _project(u: Any, step_weight: Any, state_weight: Any, low: Any, bc: Any) -> None:
    """Fill the low-rank step sizes `low` (rank, steps), and B and C of a tile, `bc` (steps, 2 * states)."""
    n_channels, n_steps = u.shape
    low[:] = _ZERO
    for d in range(n_channels):
        for r in range(low.shape[0]):
            for t in range(n_steps):
                low[r, t] += step_weight[r, d] * u[d, t]
    for t in range(n_steps):
        for m in range(bc.shape[1]):
            bc[t, m] = u[0, t] * state_weight[0, m]
        for d in range(1, n_channels):
            for m in range(bc.shape[1]):
                bc[t, m] += u[d, t] * state_weight[d, m]


@compiled
def _raw_steps(low: Any, weight: Any, bias: Any, raw: Any) -> None:
    """Fill one channel's step sizes before the softplus, (steps,)."""
    raw[:] = bias
    for r in range(low.shape[0]):
        for t in range(raw.size):
            raw[t] += weight[r] * low[r, t]


@compiled
def _unroll(u: Any, delta: Any, a: Any, bc: Any, decay: Any, states: Any) -> None:
    """Fill ``decay`` (steps, n) and ``states`` (steps + 1, n), whose first row is the state before the tile."""
    n_steps, n_states = u.size, a.size
    for t in range(n_steps):
        for n in range(n_states):
            decay[t, n] = np.exp(delta[t] * a[n])
    for t in range(n_steps):
        drive = delta[t] * u[t]
        for n in range(n_states):
            states[t + 1, n] = decay[t, n] * states[t, n] + drive * bc[t, n]


@compiled
def _forward(
    xz: Any, parameters: Any, a: Any, u: Any, delta: Any, y: Any, starts: Any, out: Any, b0: int, b1: int
) -> None:
    conv_weight, conv_bias, step_weight, state_weight, dt_weight, dt_bias, skip = parameters
    n_channels, n_states = a.shape
    length = xz.shape[1]
    x = np.empty((n_channels, TILE + conv_weight.shape[1] - 1), np.float32)
    low = np.empty((step_weight.shape[0], TILE), np.float32)
    bc = np.empty((TILE, 2 * n_states), np.float32)
    decay = np.empty((TILE, n_states), np.float32)
    states = np.empty((TILE + 1, n_states), np.float32)
    for b in range(b0, b1):
        carried = np.zeros((n_channels, n_states), np.float32)
        for tile in range(starts.shape[1]):
            t0 = tile * TILE
            t1 = min(t0 + TILE, length)
            n_steps = t1 - t0
            tile_u = u[b, :, t0:t1]
            _convolve(xz[b], conv_weight, conv_bias, t0, x, tile_u)
            for d in range(n_channels):
                for t in range(n_steps):
                    tile_u[d, t] *= _logistic(tile_u[d, t])
            _project(tile_u, step_weight, state_weight, low[:, :n_steps], bc)
            for d in range(n_channels):
                step = delta[b, d, t0:t1]
                _raw_steps(low, dt_weight[d], dt_bias[d], step)
                for t in range(n_steps):
                    step[t] = _softplus(step[t])
                states[0] = carried[d]
                starts[b, tile, d] = carried[d]
                _unroll(tile_u[d], step, a[d], bc, decay, states)
                carried[d] = states[n_steps]
                for t in range(n_steps):
                    total = _ZERO
                    for n in range(n_states):
                        total += states[t + 1, n] * bc[t, n_states + n]
                    y[b, d, t0 + t] = total + skip[d] * tile_u[d, t]
                for t in range(n_steps):
                    gate = xz[b, t0 + t, n_channels + d]
                    out[b, t0 + t, d] = y[b, d, t0 + t] * gate * _logistic(gate)


@compiled
def _backward_scan(
    u: Any,
    delta: Any,
    a: Any,
    bc: Any,
    decay: Any,
    states: Any,
    slope: Any,
    carried: Any,
    grad_u: Any,
    grad_delta: Any,
    grad_a: Any,
    grad_bc: Any,
) -> None:
    """Gradients of one channel's tile, from the gradient `slope` of its output, last step first."""
    n_states = a.size
    for t in range(u.size - 1, -1, -1):
        drive = delta[t] * u[t]
        along_a = _ZERO
        along_b = _ZERO
        for n in range(n_states):
            grad_state = carried[n] + slope[t] * bc[t, n_states + n]
            decayed = grad_state * decay[t, n]
            before = decayed * states[t, n]
            carried[n] = decayed
            along_a += before * a[n]
            along_b += grad_state * bc[t, n]
            grad_a[n] += delta[t] * before
            grad_bc[t, n] += grad_state * drive
            grad_bc[t, n_states + n] += slope[t] * states[t + 1, n]
        grad_delta[t] = along_a + along_b * u[t]
        grad_u[t] += along_b * delta[t]


@compiled
def _backward_projections(
    u: Any,
    low: Any,
    grad_raw: Any,
    grad_bc: Any,
    step_weight: Any,
    state_weight: Any,
    dt_weight: Any,
    grad_low: Any,
    grad_u: Any,
    grad_step_weight: Any,
    grad_state_weight: Any,
    grad_dt_weight: Any,
    grad_dt_bias: Any,
) -> None:
    """Gradients through B, C and the low-rank step sizes of a tile."""
    n_channels, n_steps = u.shape
    grad_low[:] = _ZERO
    for d in range(n_channels):
        grad_dt_bias[d] += grad_raw[d].sum()
        for r in range(low.shape[0]):
            total = _ZERO
            for t in range(n_steps):
                total += grad_raw[d, t] * low[r, t]
                grad_low[r, t] += grad_raw[d, t] * dt_weight[d, r]
            grad_dt_weight[d, r] += total
    for d in range(n_channels):
        for r in range(low.shape[0]):
            total = _ZERO
            for t in range(n_steps):
                total += grad_low[r, t] * u[d, t]
                grad_u[d, t] += grad_low[r, t] * step_weight[r, d]
            grad_step_weight[r, d] += total
        for t in range(n_steps):
            total = _ZERO
            for m in range(grad_bc.shape[1]):
                total += grad_bc[t, m] * state_weight[d, m]
                grad_state_weight[d, m] += grad_bc[t, m] * u[d, t]
            grad_u[d, t] += total


@compiled
def _backward_convolution(
    x: Any, c: Any, grad_u: Any, weight: Any, grad_x: Any, grad_weight: Any, grad_bias: Any
) -> None:
    """Gradients through SiLU and the causal convolution of a tile; `grad_x` reaches back before the tile."""
    n_channels, width = weight.shape
    n_steps = c.shape[1]
    for d in range(n_channels):
        for t in range(n_steps):
            share = _logistic(c[d, t])
            grad_u[d, t] *= share * (_ONE + c[d, t] * (_ONE - share))
        grad_bias[d] += grad_u[d, :n_steps].sum()
        for k in range(width):
            total = _ZERO
            for t in range(n_steps):
                total += grad_u[d, t] * x[d, t + k]
                grad_x[d, t + k] += grad_u[d, t] * weight[d, k]
            grad_weight[d, k] += total


@compiled
def _backward(
    xz: Any, parameters: Any, a: Any, saved: Any, grad_out: Any, grad_xz: Any, grads: Any, b0: int, b1: int
) -> None:
    conv_weight, conv_bias, step_weight, state_weight, dt_weight, dt_bias, skip = parameters
    u, delta, y, starts = saved
    g_conv_weight, g_conv_bias, g_step_weight, g_state_weight, g_dt_weight, g_dt_bias, g_skip, g_a = grads
    n_channels, n_states = a.shape
    before = conv_weight.shape[1] - 1
    x = np.empty((n_channels, TILE + before), np.float32)
    grad_x = np.empty((n_channels, TILE + before), np.float32)
    c, grad_u, slope, grad_raw, raw = (
        np.empty((n_channels, TILE), np.float32),
        np.empty((n_channels, TILE), np.float32),
        np.empty((n_channels, TILE), np.float32),
        np.empty((n_channels, TILE), np.float32),
        np.empty(TILE, np.float32),
    )
    low, grad_low = (
        np.empty((step_weight.shape[0], TILE), np.float32),
        np.empty((step_weight.shape[0], TILE), np.float32),
    )
    bc, grad_bc = np.empty((TILE, 2 * n_states), np.float32), np.empty((TILE, 2 * n_states), np.float32)
    decay, states = np.empty((TILE, n_states), np.float32), np.empty((TILE + 1, n_states), np.float32)
    for b in range(b0, b1):
        carried = np.zeros((n_channels, n_states), np.float32)
        carried_x = np.zeros((n_channels, before), np.float32)
        for tile in range(starts.shape[1] - 1, -1, -1):
            t0 = tile * TILE
            t1 = min(t0 + TILE, xz.shape[1])
            n = t1 - t0
            tile_u = u[b, :, t0:t1]
            _convolve(xz[b], conv_weight, conv_bias, t0, x, c[:, :n])
            _project(tile_u, step_weight, state_weight, low[:, :n], bc)
            grad_bc[:] = _ZERO
            for d in range(n_channels):
                for t in range(n):
                    gate = xz[b, t0 + t, n_channels + d]
                    share = _logistic(gate)
                    grad = grad_out[b, t0 + t, d]
                    slope[d, t] = grad * gate * share
                    grad_xz[b, t0 + t, n_channels + d] = grad * y[b, d, t0 + t] * share * (_ONE + gate * (_ONE - share))
                    grad_u[d, t] = slope[d, t] * skip[d]
                total = _ZERO
                for t in range(n):
                    total += slope[d, t] * tile_u[d, t]
                g_skip[b, d] += total
                step = delta[b, d, t0:t1]
                states[0] = starts[b, tile, d]
                _unroll(tile_u[d], step, a[d], bc, decay, states)
                _backward_scan(
                    tile_u[d],
                    step,
                    a[d],
                    bc,
                    decay,
                    states,
                    slope[d],
                    carried[d],
                    grad_u[d],
                    grad_raw[d],
                    g_a[b, d],
                    grad_bc,
                )
                _raw_steps(low, dt_weight[d], dt_bias[d], raw[:n])
                for t in range(n):
                    grad_raw[d, t] *= _logistic(raw[t])
            _backward_projections(
                tile_u,
                low[:, :n],
                grad_raw[:, :n],
                grad_bc,
                step_weight,
                state_weight,
                dt_weight,
                grad_low,
                grad_u,
                g_step_weight[b],
                g_state_weight[b],
                g_dt_weight[b],
                g_dt_bias[b],
            )
            grad_x[:] = _ZERO
            for d in range(n_channels):
                for t in range(before):
                    grad_x[d, n + t] = carried_x[d, t]
            _backward_convolution(x, c[:, :n], grad_u, conv_weight, grad_x, g_conv_weight[b], g_conv_bias[b])
            for d in range(n_channels):
                for t in range(before):
                    carried_x[d, t] = grad_x[d, t]
                for t in range(n):
                    grad_xz[b, t0 + t, d] = grad_x[d, before + t]


class NativeBlock(torch.autograd.Function):
    """Everything of a Mamba block between its first and its last projection, for float32 on the CPU.

    ``(SSM(SiLU(conv(x))) + D u) * SiLU(z)`` with x and z the halves of `xz`, parallel over the batch.
    """

    @staticmethod
    def forward(ctx: Any, xz: torch.Tensor, a: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        """Map (batch, length, 2 * channels) to (batch, length, channels).

        `parameters` are those of the convolution (channels, width) and (channels,), the projections to the step size
        (rank, channels) and to B and C (channels, 2 * states), dt_proj's (channels, rank) and (channels,), and D.
        """
        batch, length, _ = xz.shape
        n_channels, n_states = a.shape
        xz, a = xz.contiguous(), a.contiguous()
        parameters = tuple(p.contiguous() for p in parameters)
        saved = (
            *(xz.new_empty(batch, n_channels, length) for _ in ("u", "delta", "y")),
            xz.new_empty(batch, -(-length // TILE), n_channels, n_states),
        )
        out = xz.new_empty(batch, length, n_channels)
        arrays = (xz.numpy(), _arrays(parameters), a.numpy(), *_arrays(saved), out.numpy())
        over_ranges(_forward, batch, *arrays)
        ctx.save_for_backward(xz, a, *parameters, *saved)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Gradients of `xz`, (batch, length, 2 * channels), of `a` and of the parameters.

        The last two are summed over the batch in a fixed order.
        """
        xz, a, *rest = ctx.saved_tensors
        parameters, saved = tuple(rest[:-4]), tuple(rest[-4:])
        grad_xz = torch.empty_like(xz)
        grads = tuple(xz.new_zeros(len(xz), *p.shape) for p in (*parameters, a))
        arrays = (xz, parameters, a, saved, grad_out.contiguous(), grad_xz, grads)
        over_ranges(_backward, len(xz), *(_arrays(x) if isinstance(x, tuple) else x.numpy() for x in arrays))
        *of_parameters, of_a = (g.sum(0) for g in grads)
        return grad_xz, of_a, *of_parameters


def _arrays(tensors: tuple[torch.Tensor, ...]) -> tuple[np.ndarray, ...]:
    return tuple(t.numpy() for t in tensors)
