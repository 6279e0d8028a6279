"""How large a pixel is, from what the layout of Visium's spots and bins is known to be. Arrays in, numbers out."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from sthisto._sdata.columns import read_numbers
from sthisto._utils.logging import logger

_VISIUM_PITCH_UM = 100.0
_ISOTROPY_TOLERANCE = 0.05
_MISPLACED_UM = 50.0
_MOST_MISPLACED = 0.1
"""How far a spot may lie from where its array position puts it, half a pitch of Visium; and the share of spots beyond
which their array tells no µm per px."""
_XENIUM_AREA = "cell_area"
_XENIUM_COLUMNS = frozenset({_XENIUM_AREA, "transcript_counts"})
_XENIUM_UNITS_UM = (0.2125, 1.0)
_UNIT_TOLERANCE = 0.05
_BIN_SIZE = re.compile(r"square_(\d{3})um")


def um_per_px_of_visium(
    obs: pd.DataFrame, centers: np.ndarray, region: str, *, bin_size_um: float | None = None
) -> float | None:
    """Return µm per px from the array positions of Visium spots or Visium HD bins, None for anything else.

    Visium's spots lie on a hexagonal lattice 100 µm apart, on which `array_row + array_col` is even. Visium HD's bins
    are as far apart as they are wide, and spatialdata-io names their elements "…_square_008um". The distance is
    what counts: Space Ranger's "spot_diameter_fullres" is that of a theoretical spot of 65 µm, not of the real 55 µm.
    Spots without a position are left out of the fit. A lattice of Visium that lies mirrored in the image is warned of,
    and so is an array that the places of the spots do not follow.

    Parameters
    ----------
    obs
        Rows of the table, of which `array_row` and `array_col` are read.
    centers
        (n, 2) x and y of the same rows, in px.
    region
        The region's name.
    bin_size_um
        Width of a bin of Visium HD in µm; None takes it from the region's name.
    """
    if not {"array_row", "array_col"} <= set(obs.columns):
        return None
    row, column = (read_numbers(obs[name]) for name in ("array_row", "array_col"))
    has_place = np.isfinite(row) & np.isfinite(column) & np.isfinite(centers).all(axis=1)
    row, column, centers = row[has_place], column[has_place], centers[has_place]
    named = _BIN_SIZE.search(region)
    step = float(named.group(1)) if named else bin_size_um
    if step:  # Space Ranger counts the columns of Visium HD from the right: its array is a mirror image of the slide
        return _um_per_px(np.column_stack([column * step, row * step]), centers, region)
    if len(row) and ((row + column) % 2 == 0).all():
        half = _VISIUM_PITCH_UM / 2
        um = np.column_stack([column * half, row * half * np.sqrt(3)])
        um_per_px = _um_per_px(um, centers, region)
        if um_per_px is not None and _is_mirrored(um, centers):
            logger.warning(
                "The array of %r lies mirrored in its image: x and y of the coordinates are probably swapped, or the "
                "image was mirrored. Look at where the spots lie on the tissue.",
                region,
            )
        return um_per_px
    return None


def um_per_unit_of_xenium(obs: pd.DataFrame, areas: np.ndarray) -> float | None:
    """Return µm per unit of a coordinate system from the areas of Xenium's cells, None for anything else.

    Xenium's table holds the area of every cell in µm². The unit is a pixel of its morphology image, 0.2125 µm, where
    spatialdata-io read the run, or 1 µm.

    Parameters
    ----------
    obs
        Rows of the table, of which `cell_area` is read; other tables than Xenium's lack `transcript_counts`.
    areas
        (n,) area of the same cells in the coordinate system, NaN where unknown.
    """
    if not set(obs.columns) >= _XENIUM_COLUMNS:
        return None
    ratio = read_numbers(obs[_XENIUM_AREA]) / areas
    known = ratio[np.isfinite(ratio) & (ratio > 0)]
    unit = np.sqrt(np.median(known)) if len(known) else np.nan
    return next((um for um in _XENIUM_UNITS_UM if abs(unit / um - 1) < _UNIT_TOLERANCE), None)


def _is_mirrored(um: np.ndarray, px: np.ndarray) -> bool:
    """Return whether the affine from array to px, (n, 2) positions each, turns left into right."""
    linear, *_ = np.linalg.lstsq(np.column_stack([um, np.ones(len(um))]), px, rcond=None)
    return bool(np.linalg.det(linear[:2]) < 0)


def _um_per_px(um: np.ndarray, px: np.ndarray, region: str) -> float | None:
    """Return the µm per px of the affine from µm to px, (n, 2) each; None unless it is a similarity that most follow.

    Rounded to three digits: a table of fewer rows must not see the same spots resampled to other pixels.
    """
    if len(um) < 4:
        return None
    design = np.column_stack([um, np.ones(len(um))])
    linear, _, rank, _ = np.linalg.lstsq(design, px, rcond=None)
    if rank < 3:
        return None
    misplaced = np.linalg.norm(design @ linear - px, axis=1) > _MISPLACED_UM * _px_per_um(um, px)
    if misplaced.any():
        logger.warning(
            "%d of %d spots of %r do not lie where their array_row and array_col put them: their coordinates are "
            "probably those of other spots, as where rows were put into another order.",
            misplaced.sum(),
            len(misplaced),
            region,
        )
        if misplaced.mean() > _MOST_MISPLACED:
            return None
    largest, smallest = np.linalg.svd(linear[:2], compute_uv=False)
    if smallest == 0 or largest / smallest > 1 + _ISOTROPY_TOLERANCE:
        logger.warning(
            "The coordinates of %r are stretched against its array, %.3g times in one direction: they are not in px of "
            "an image, or the image was resized unequally.",
            region,
            largest / smallest if smallest else np.inf,
        )
        return None
    return float(f"{1 / np.sqrt(largest * smallest):.3g}")


def _px_per_um(um: np.ndarray, px: np.ndarray) -> float:
    """Return the ratio of how far places are spread in px and in µm, whichever of them belong to each other."""
    return float((np.linalg.det(np.cov(px.T)) / np.linalg.det(np.cov(um.T))) ** 0.25)
