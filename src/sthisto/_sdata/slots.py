"""The name of every slot that sthisto writes, once.

All result slots derive from ``key_added``, so that the results of two methods live side by side in one table.
"""

from __future__ import annotations

from typing import Final

KEY: Final = "sthisto"
"""Default of ``key_added``, and the key under which SpatialData's ``attrs`` hold what sthisto knows of a section."""

UM_PER_UNIT: Final = "um_per_unit"
"""``sdata.attrs["sthisto"]["um_per_unit"][coordinate_system]``: µm per unit of that coordinate system."""

OBJECTIVE: Final = "objective"
"""``sdata.attrs["sthisto"]["objective"][coordinate_system]``: magnification of the scanner's objective."""

ALLOW_OUTSIDE: Final = "allow_outside"
CHECK_IMAGE: Final = "check_image"
"""``sdata.attrs["sthisto"][…]``: whether spots may lie outside the image, and whether the image is checked."""

SPLIT: Final = "sthisto_split"
TRAIN: Final = "train"
VALIDATION: Final = "val"
TEST: Final = "test"
CALIBRATION: Final = "calibration"
FITTED: Final = (TRAIN, VALIDATION)
"""Roles of the spots whose expression a fit may read."""

PATIENT: Final = "patient"
"""``obs`` column that names the patient in our data sets, and where tools look for it by default."""

SELECTED_GENES: Final = "sthisto_selected"
"""``var`` column that `pp.select_genes` writes, and key of ``uns`` with the rule that it chose them by."""
GENES_GIVEN: Final = "given"
GENES_VARIABLE: Final = "highly variable on training spots"

CLUSTER: Final = "sthisto_cluster"
"""``obs`` column that `tl.cluster` writes by default."""

CROSS_VALIDATION: Final = "sthisto_cv"
"""Key of ``uns`` that `tl.cross_validate` writes by default."""

REGION: Final = "sthisto_region"
INSTANCE: Final = "sthisto_instance"
"""``obs`` columns that tie the table of `io.from_anndata` to its shapes."""

SPATIAL: Final = "spatial"
"""``obsm`` of every table that we make: x and y in px of the full resolution, as scanpy and squidpy expect them."""

NEW_REGION: Final = "region"
NEW_INSTANCE: Final = "instance"
SPOT: Final = "spot"
"""``obs`` columns of a table that annotates new shapes; `SPOT` names the measured spot that a new one lies around."""

GIVEN_NAME: Final = "sthisto_prediction"
"""Key of ``uns`` of an AnnData that `io.read_prediction` read: what the prediction is called."""
GENES_OF_PREDICTION: Final = "those of the prediction"
GIVEN: Final = "given"
"""Rule of the genes, and flag in the record, of a prediction that sthisto did not make."""

COHORT_STATES: Final = "states"
"""Folder beside the stores of a cohort with the state of each slide, in JSON."""
COHORT_DONE: Final = "done"
"""State of a slide whose prediction was written."""

FEATURES: Final = "sthisto_features"
"""Key of ``uns`` that names the width of the tiles which features in ``obsm`` were computed from."""

BLUR: Final = "sthisto_blur"
PEN: Final = "sthisto_pen"
FOLD: Final = "sthisto_fold"
TISSUE: Final = "sthisto_tissue"
QUALITY: Final = "sthisto_quality"
"""``obs`` columns that `pp.quality` writes: of the image around each spot, 0 to 1."""
USABLE: Final = "sthisto_usable"
"""``obs`` column: spots where it is 0 are left out everywhere, as those off tissue are; others are 1, or NaN."""

TISSUE_GRID: Final = "tissue_grid"
"""Shapes that `pp.tissue_grid` writes by default."""

NUCLEI: Final = "nuclei"
"""Shapes that `pp.nuclei` writes by default."""

CELLS: Final = "cells"
"""Table of predicted cells that `tl.aggregate` reads by default."""

BETWEEN: Final = "between"
"""Table that `tl.predict_between` writes by default."""

SCORES: Final = ("pcc", "pcc_residual", "reproducibility", "sibling")
"""Scores and references that `tl.evaluate` writes for each gene."""
CEILING: Final = "ceiling"
"""Name of reproducibility in 0.1, which is written beside it until 0.3."""


INTERVAL: Final = "interval"
INTERVAL_HOLDS_FOR: Final = "interval_holds_for"
"""Entries of the record: the share that intervals are to cover, and whose tissue they hold for."""

N_TOP: Final = 50
ALL_GENES: Final = "all modeled"
MOST_EXPRESSED: Final = f"top {N_TOP}"
MOST_VARIABLE: Final = f"{N_TOP} most variable"
MARKERS: Final = "markers"
"""Sets of genes in the tables of scores; the 50 genes are those of the scored section."""


def image_embedding(key: str) -> str:
    """Slot of ``obsm`` with the image embedding in the shared space."""
    return f"X_{key}"


def gene_embedding(key: str) -> str:
    """Slot of ``obsm`` with the gene embedding in the shared space."""
    return f"X_{key}_gene"


def prediction(key: str) -> str:
    """Slot of ``layers`` with the predicted expression; of ``obsm`` with what is predicted in place of genes."""
    return f"{key}_pred"


def prediction_sd(key: str) -> str:
    """Slot of ``layers``, or of ``obsm``, with the spread of the prediction."""
    return f"{key}_pred_sd"


def low(key: str) -> str:
    """Slot of ``layers`` with the lower bound of the interval of the expression."""
    return f"{key}_low"


def high(key: str) -> str:
    """Slot of ``layers`` with the upper bound of the interval of the expression."""
    return f"{key}_high"


def confidence(key: str) -> str:
    """Slot of ``obs`` with the confidence of a spot's prediction, 0 to 1."""
    return f"{key}_confidence"


def seen(key: str) -> str:
    """Slot of ``obs`` that is true for the spots that the model was trained on."""
    return f"{key}_seen"


def n_cells(key: str) -> str:
    """Slot of ``obs`` with the number of cells that were averaged into a spot."""
    return f"{key}_cells"


def modeled_gene(key: str) -> str:
    """Slot of ``var`` that is true for the genes that the model predicts."""
    return f"{key}_gene"


def verdict(key: str) -> str:
    """Slot of ``var`` with the verdict on a gene: "use", "pattern only", "do not use", or "not assessed"."""
    return score(key, "verdict")


def score(key: str, metric: str) -> str:
    """Slot of ``var`` with one value per gene: ``pcc``, ``pcc_residual``, ``reproducibility``, ``sibling``."""
    return f"{key}_{metric}"


def table_of_shapes(shapes: str) -> str:
    """Name of the table that annotates new shapes."""
    return f"{shapes}_table"


def shapes_between(region: str, table: str) -> str:
    """Name of the shapes between the spots of a region, which the new `table` annotates."""
    return f"{region}_{table}"
