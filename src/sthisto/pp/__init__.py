"""Preparation: judge the image, normalize, choose genes, split, lay a grid over tissue, find nuclei."""

from __future__ import annotations

from sthisto.pp._add_features import add_features
from sthisto.pp._normalize import normalize
from sthisto.pp._nuclei import nuclei
from sthisto.pp._quality import quality
from sthisto.pp._select_genes import select_genes
from sthisto.pp._split import split
from sthisto.pp._tissue_grid import tissue_grid

__all__ = ["add_features", "normalize", "nuclei", "quality", "select_genes", "split", "tissue_grid"]


def __dir__() -> list[str]:
    return __all__
