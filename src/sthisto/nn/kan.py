"""A Kolmogorov-Arnold layer: every connection is a spline that is learned."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from sthisto._utils.validate import check_positive

__all__ = ["KANLinear", "spline_bases"]


class KANLinear(nn.Module):
    """A layer of learned univariate functions: ``y_o = sum_i (w_oi SiLU(x_i) + s_oi sum_c c_oic B_c(x_i))``.

    The B_c are B-splines on `grid`; `base_weight` is w, `spline_scaler` is s, `spline_weight` is c. The formulation
    and the parameters' names are those of efficient-kan, so that weights pass both ways: written after
    efficient-kan by Blealtan and contributors (MIT license), which reformulates KAN's activations as one linear map
    of the bases. Initial values come from torch's generator.

    Parameters
    ----------
    in_features, out_features
        Width of the input and of the output.
    grid_size
        Intervals between -1 and 1, where the splines are defined; outside only the SiLU term remains.
    spline_order
        Degree of the splines.
    scale_noise
        Size of the splines' random initial values.

    References
    ----------
    Liu et al., KAN: Kolmogorov-Arnold networks, 2024, doi:10.48550/arXiv.2404.19756.

    Examples
    --------
    >>> import torch
    >>> from sthisto.nn import KANLinear
    >>> KANLinear(64, 32)(torch.rand(4, 64)).shape
    torch.Size([4, 32])
    """

    grid: torch.Tensor  # (in_features, grid_size + 2 * spline_order + 1)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid_size: int = 5,
        spline_order: int = 3,
        *,
        scale_noise: float = 0.1,
    ) -> None:
        super().__init__()
        sizes = {"in_features": in_features, "out_features": out_features, "grid_size": grid_size}
        for name, value in sizes.items():
            check_positive(value, name=name)
        if spline_order < 0:
            msg = f"`spline_order` must be zero or more, found {spline_order!r}."
            raise ValueError(msg)
        self.in_features = in_features
        self.out_features = out_features
        self.spline_order = spline_order
        knots = torch.arange(-spline_order, grid_size + spline_order + 1) * (2 / grid_size) - 1
        self.register_buffer("grid", knots.expand(in_features, -1).contiguous())
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.empty(out_features, in_features, grid_size + spline_order))
        self.spline_scaler = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.kaiming_uniform_(self.base_weight, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.spline_scaler, a=math.sqrt(5))
        with torch.no_grad():
            self.spline_weight.copy_(self._random_splines(scale_noise / grid_size))

    def _random_splines(self, scale: float) -> torch.Tensor:
        """Coefficients of the smallest splines that take uniform random values at the knots between -1 and 1.

        They are (out_features, in_features, n_bases).
        """
        order = self.spline_order
        knots = self.grid[:1, order : self.grid.shape[1] - order].T.double()
        bases = spline_bases(knots, self.grid[:1].double(), order).squeeze(1)  # (grid_size + 1, n_bases)
        values = (torch.rand(len(knots), self.in_features, self.out_features) - 0.5) * scale
        return torch.einsum("ck,kio->oic", torch.linalg.pinv(bases).float(), values)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., in_features) to (..., out_features)."""
        if x.shape[-1] != self.in_features:
            msg = f"KANLinear expects (..., {self.in_features}), found {tuple(x.shape)}."
            raise ValueError(msg)
        rows = x.reshape(-1, self.in_features)
        bases = spline_bases(rows, self.grid, self.spline_order).flatten(1)
        spline_weight = (self.spline_weight * self.spline_scaler.unsqueeze(-1)).flatten(1)
        y = F.linear(F.silu(rows), self.base_weight) + F.linear(bases, spline_weight)
        return y.reshape(*x.shape[:-1], self.out_features)


def spline_bases(x: torch.Tensor, grid: torch.Tensor, order: int) -> torch.Tensor:
    """Evaluate all B-splines of degree `order` on each feature's own knots.

    Parameters
    ----------
    x
        (n, features).
    grid
        Increasing knots, evenly spaced or not, (features, n_bases + order + 1).
    order
        Degree.

    Returns
    -------
    (n, features, n_bases), of the type of `grid` where `x` is of half precision, else of `x`.

    References
    ----------
    de Boor, A practical guide to splines, 1978, doi:10.1007/978-1-4612-6333-3.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    grid = grid.to(x.dtype)
    x = x.unsqueeze(-1)
    bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
    for k in range(1, order + 1):
        rising = (x - grid[:, : -k - 1]) / (grid[:, k:-1] - grid[:, : -k - 1])
        falling = (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:-k])
        bases = rising * bases[..., :-1] + falling * bases[..., 1:]
    return bases
