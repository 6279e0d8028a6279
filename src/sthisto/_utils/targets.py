"""What a model may predict in place of genes, by the name of its scale."""

from __future__ import annotations

from typing import Final

SET_MEANS: Final = "set_means"
"""Scale of means of Pearson residuals over sets of genes."""

OBSM: Final = "obsm:"
"""Begins the scale of proportions that stand in ``obsm``; the slot follows."""


def is_proportions(target: str) -> bool:
    """Return whether a scale is that of proportions in ``obsm``."""
    return target.startswith(OBSM) and len(target) > len(OBSM)
