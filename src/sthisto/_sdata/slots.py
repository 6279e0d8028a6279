"""The name of every slot that sthisto writes, once.

All result slots derive from ``key_added``, so that the results of two methods live side by side in one table.
"""

from __future__ import annotations

from typing import Final

KEY: Final = "sthisto"
"""Default of ``key_added``, and the key under which SpatialData's ``attrs`` hold what sthisto knows of a section."""

UM_PER_UNIT: Final = "um_per_unit"
"""``sdata.attrs["sthisto"]["um_per_unit"][coordinate_system]``: µm per unit of that coordinate system."""

ALLOW_OUTSIDE: Final = "allow_outside"
CHECK_IMAGE: Final = "check_image"
"""``sdata.attrs["sthisto"][…]``: whether spots may lie outside the image, and whether the image is checked."""

SPLIT: Final = "sthisto_split"
TRAIN: Final = "train"
VALIDATION: Final = "val"
TEST: Final = "test"
CALIBRATION: Final = "calibration"

SELECTED_GENES: Final = "sthisto_selected"
"""``var`` column that `pp.select_genes` writes, and key of ``uns`` with the rule that it chose them by."""
GENES_GIVEN: Final = "given"
GENES_VARIABLE: Final = "highly variable on training spots"

SCORES: Final = ("pcc", "pcc_residual", "ceiling")
"""Scores that `tl.evaluate` writes for each gene."""


def image_embedding(key: str) -> str:
    """Slot of ``obsm`` with the image embedding in the shared space."""
    return f"X_{key}"


def gene_embedding(key: str) -> str:
    """Slot of ``obsm`` with the gene embedding in the shared space."""
    return f"X_{key}_gene"


def prediction(key: str) -> str:
    """Slot of ``layers`` with the predicted expression."""
    return f"{key}_pred"


def prediction_sd(key: str) -> str:
    """Slot of ``layers`` with the spread of the predicted expression."""
    return f"{key}_pred_sd"


def confidence(key: str) -> str:
    """Slot of ``obs`` with the confidence of a spot's prediction, 0 to 1."""
    return f"{key}_confidence"


def seen(key: str) -> str:
    """Slot of ``obs`` that is true for the spots that the model was trained on."""
    return f"{key}_seen"


def modeled_gene(key: str) -> str:
    """Slot of ``var`` that is true for the genes that the model predicts."""
    return f"{key}_gene"


def score(key: str, metric: str) -> str:
    """Slot of ``var`` with one score per gene: ``pcc``, ``pcc_residual``, ``ceiling``."""
    return f"{key}_{metric}"
