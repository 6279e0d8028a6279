"""The heads that project a modality's features into the shared space."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from sthisto.nn.kan import KANLinear

__all__ = ["ResidualKAN", "ResidualMLP"]


class KAN(nn.Module):
    """KAN layers one after the other, named as efficient-kan names them (``layers.0``, ``layers.1``)."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(KANLinear(i, o) for i, o in pairwise(widths)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., widths[0]) to (..., widths[-1])."""
        return self.layers(x)


class ResidualKAN(nn.Module):
    """DANet's projection head, equation 2: ``LN(Drop(U(KAN(D(GELU(fc(F)))))) + fc(F))``.

    fc (`projection`) maps to the shared space, D (`fc_in`) down to the bottleneck, U (`fc_out`) back up.

    Parameters
    ----------
    in_features
        Features of the modality.
    embedding_dim
        Dimensions of the shared space.
    bottleneck
        Width of the KAN layer.
    dropout
        Share of the residual branch's values set to zero while training.

    References
    ----------
    Wu et al., DANet, Briefings in Bioinformatics 2025.

    Examples
    --------
    >>> import torch
    >>> from sthisto.nn import ResidualKAN
    >>> ResidualKAN(1024)(torch.rand(4, 1024)).shape
    torch.Size([4, 256])
    """

    def __init__(self, in_features: int, embedding_dim: int = 256, bottleneck: int = 64, dropout: float = 0.1) -> None:
        super().__init__()
        self.projection = nn.Linear(in_features, embedding_dim)
        self.fc_in = nn.Linear(embedding_dim, bottleneck)
        self.kan = KAN(bottleneck, bottleneck)
        self.fc_out = nn.Linear(bottleneck, embedding_dim)
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = nn.LayerNorm(embedding_dim)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_features) to (batch, embedding_dim)."""
        projected = self.projection(features)
        x = self.kan(self.fc_in(F.gelu(projected)))
        return self.layer_norm(self.dropout(self.fc_out(x)) + projected)


class ResidualMLP(nn.Module):
    """BLEEP's projection head: ``LN(Drop(fc(GELU(projection(F)))) + projection(F))``.

    Parameters
    ----------
    in_features
        Features of the modality.
    embedding_dim
        Dimensions of the shared space.
    dropout
        Share of the residual branch's values set to zero while training.

    References
    ----------
    Xie et al., BLEEP, NeurIPS 2023, doi:10.48550/arXiv.2306.01859.

    Examples
    --------
    >>> import torch
    >>> from sthisto.nn import ResidualMLP
    >>> ResidualMLP(1024)(torch.rand(4, 1024)).shape
    torch.Size([4, 256])
    """

    def __init__(self, in_features: int, embedding_dim: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.projection = nn.Linear(in_features, embedding_dim)
        self.fc = nn.Linear(embedding_dim, embedding_dim)
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = nn.LayerNorm(embedding_dim)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_features) to (batch, embedding_dim)."""
        projected = self.projection(features)
        return self.layer_norm(self.dropout(self.fc(F.gelu(projected))) + projected)
