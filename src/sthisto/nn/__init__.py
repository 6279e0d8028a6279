"""The methods' parts as plain torch modules, each exact to its reference and tested against a second implementation."""

from __future__ import annotations

from sthisto.nn._kernels.scan import scan_backend
from sthisto.nn.contrastive import contrastive_loss
from sthisto.nn.heads import ResidualKAN, ResidualMLP
from sthisto.nn.kan import KANLinear
from sthisto.nn.mamba import GeneEncoder, Mamba
from sthisto.nn.vit import Transformer, TransformerBlock

__all__ = [
    "GeneEncoder",
    "KANLinear",
    "Mamba",
    "ResidualKAN",
    "ResidualMLP",
    "Transformer",
    "TransformerBlock",
    "contrastive_loss",
    "scan_backend",
]


def __dir__() -> list[str]:
    return __all__
