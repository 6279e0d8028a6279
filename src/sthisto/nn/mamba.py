"""The Mamba block, and the gene encoder made of it."""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from sthisto._utils.validate import check_choice, check_positive
from sthisto.nn._kernels.scan import BACKENDS, ScanBackend, scan_backend, selective_scan

__all__ = ["GeneEncoder", "Mamba"]

WIDEST_CONVOLUTION: Final = 64


class Mamba(nn.Module):
    """A Mamba block: ``out_proj(SSM(SiLU(conv(in_proj(x)))) * SiLU(in_proj(x)))``.

    Equation 1 of DANet. The parameters have mamba-ssm's names and shapes, so that weights pass both ways.

    Parameters
    ----------
    d_model
        Features of a position.
    d_state
        States of a channel.
    d_conv
        Width of the causal convolution along the sequence, at most 64.
    expand
        Channels inside the block, as a multiple of `d_model`.
    backend
        Which scan is used; see `sthisto.nn.scan_backend`, which also tells which one a tensor will get.

    References
    ----------
    Gu and Dao, Mamba: linear-time sequence modeling with selective state spaces, 2023, doi:10.48550/arXiv.2312.00752.

    Examples
    --------
    >>> import torch
    >>> from sthisto.nn import Mamba
    >>> Mamba(1)(torch.rand(4, 100, 1)).shape
    torch.Size([4, 100, 1])
    """

    def __init__(
        self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: int = 2, *, backend: ScanBackend = "auto"
    ) -> None:
        super().__init__()
        for name, value in {"d_model": d_model, "d_state": d_state, "d_conv": d_conv, "expand": expand}.items():
            check_positive(value, name=name)
        check_choice(backend, BACKENDS, name="backend")
        if d_conv > WIDEST_CONVOLUTION:
            msg = f"`d_conv` must be at most {WIDEST_CONVOLUTION}, found {d_conv}."
            raise ValueError(msg)
        self.d_model = d_model
        self.d_state = d_state
        self.d_inner = expand * d_model
        self.dt_rank = math.ceil(d_model / 16)
        self.backend: ScanBackend = backend
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=False)
        self.conv1d = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner)
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        self.A_log = nn.Parameter(torch.arange(1, d_state + 1, dtype=torch.float32).log().repeat(self.d_inner, 1))
        self.D = nn.Parameter(torch.ones(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)
        self._reset_steps()

    def _reset_steps(self, smallest: float = 1e-3, largest: float = 1e-1) -> None:
        """Spread the initial step sizes log-uniformly, as mamba-ssm does."""
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        with torch.no_grad():
            step = torch.empty(self.d_inner).uniform_(math.log(smallest), math.log(largest)).exp()
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))

    @property
    def scan_backend(self) -> str:
        """The scan that serves the block where its parameters are now: "numba", "torch" or "cuda"."""
        return scan_backend(self.A_log, self.backend)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, length, d_model) to (batch, length, d_model); a position sees itself and those before it.

        Computed and returned in the type of the block's parameters, under autocast too: errors would add up along
        the sequence.
        """
        if x.ndim != 3 or x.shape[-1] != self.d_model or not x.shape[1]:
            msg = f"Mamba expects (batch, length, {self.d_model}) with a length of at least 1, found {tuple(x.shape)}."
            raise ValueError(msg)
        with torch.autocast(x.device.type, enabled=False):
            xz = self.in_proj(x.to(self.in_proj.weight.dtype))
            backend = scan_backend(xz, self.backend)
            inner = self._fused(xz) if backend == "numba" else self._composed(xz, on_cuda=backend == "cuda")
            return self.out_proj(inner)

    def _composed(self, xz: torch.Tensor, *, on_cuda: bool) -> torch.Tensor:
        """Map (batch, length, 2 * d_inner) to (batch, length, d_inner) between the outer projections, step by step."""
        u, gate = xz.chunk(2, dim=-1)
        u = F.silu(self._convolve(u))
        step_weight, state_weight = self._input_projections()
        delta = F.softplus(self.dt_proj(F.linear(u, step_weight)))
        y = selective_scan(u, delta, -torch.exp(self.A_log), state_weight, on_cuda=on_cuda)
        return (y + self.D * u) * F.silu(gate)

    def _fused(self, xz: torch.Tensor) -> torch.Tensor:
        """Compute the same, (batch, length, d_inner), in one compiled loop."""
        from sthisto.nn._kernels.block import NativeBlock

        step_weight, state_weight = self._input_projections()
        convolution = self.conv1d.weight.squeeze(1), self.conv1d.bias
        steps = self.dt_proj.weight, self.dt_proj.bias
        return NativeBlock.apply(
            xz, -torch.exp(self.A_log), *convolution, step_weight, state_weight.t(), *steps, self.D
        )

    def _input_projections(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Split `x_proj` into parts for the step size, (dt_rank, d_inner), and B and C, (2 * d_state, d_inner)."""
        step_weight, state_weight = self.x_proj.weight.split([self.dt_rank, 2 * self.d_state])
        return step_weight, state_weight

    def _convolve(self, u: torch.Tensor) -> torch.Tensor:
        """Causal convolution of each channel of (batch, length, d_inner)."""
        padded = F.pad(u.transpose(1, 2), (self.conv1d.kernel_size[0] - 1, 0))
        return self.conv1d(padded).transpose(1, 2)


class GeneEncoder(nn.Module):
    """DANet's gene encoder: a Mamba block that reads a spot's genes as a sequence of one channel.

    The genes' order is part of the model: another order is another function.

    Parameters
    ----------
    d_state, d_conv, expand, backend
        See `Mamba`.

    Examples
    --------
    >>> import torch
    >>> from sthisto.nn import GeneEncoder
    >>> GeneEncoder()(torch.rand(4, 785)).shape
    torch.Size([4, 785])
    """

    def __init__(self, d_state: int = 16, d_conv: int = 4, expand: int = 2, *, backend: ScanBackend = "auto") -> None:
        super().__init__()
        self.mamba = Mamba(1, d_state, d_conv, expand, backend=backend)

    def forward(self, expression: torch.Tensor) -> torch.Tensor:
        """Map (batch, n_genes) to (batch, n_genes)."""
        if expression.ndim != 2:
            msg = f"GeneEncoder expects (batch, n_genes), found {tuple(expression.shape)}."
            raise ValueError(msg)
        return self.mamba(expression.unsqueeze(-1)).squeeze(-1)
