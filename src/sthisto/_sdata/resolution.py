"""How large a pixel is, from what the layout of Visium's spots and bins is known to be. Arrays in, numbers out."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

_VISIUM_PITCH_UM = 100.0
_ISOTROPY_TOLERANCE = 0.05
_BIN_SIZE = re.compile(r"square_(\d{3})um")


def um_per_px_of_visium(obs: pd.DataFrame, centers: np.ndarray, region: str) -> float | None:
    """Return µm per px from the array positions of Visium spots or Visium HD bins, None for anything else.

    Visium's spots lie on a hexagonal lattice 100 µm apart, on which `array_row + array_col` is even. Visium HD's bins
    are as far apart as they are wide, and spatialdata-io names their elements "…_square_008um". The distance is
    what counts: Space Ranger's "spot_diameter_fullres" is that of a theoretical spot of 65 µm, not of the real 55 µm.

    Parameters
    ----------
    obs
        Rows of the table, of which `array_row` and `array_col` are read.
    centers
        (n, 2) x and y of the same rows, in px.
    region
        The region's name.
    """
    if not {"array_row", "array_col"} <= set(obs.columns):
        return None
    row, column = (obs[name].to_numpy(dtype=float) for name in ("array_row", "array_col"))
    if bin_size := _BIN_SIZE.search(region):
        step = float(bin_size.group(1))
        return _um_per_px(np.column_stack([column * step, row * step]), centers)
    if ((row + column) % 2 == 0).all():
        half = _VISIUM_PITCH_UM / 2
        return _um_per_px(np.column_stack([column * half, row * half * np.sqrt(3)]), centers)
    return None


def _um_per_px(um: np.ndarray, px: np.ndarray) -> float | None:
    """Fit an affine map from µm to px; None unless it is a similarity that the positions follow.

    Rounded to three digits: a table of fewer rows must not see the same spots resampled to other pixels.
    """
    if len(um) < 4:
        return None
    design = np.column_stack([um, np.ones(len(um))])
    linear, _, rank, _ = np.linalg.lstsq(design, px, rcond=None)
    if rank < 3:
        return None
    largest, smallest = np.linalg.svd(linear[:2], compute_uv=False)
    if smallest == 0 or largest / smallest > 1 + _ISOTROPY_TOLERANCE:
        return None
    return float(f"{1 / np.sqrt(largest * smallest):.3g}")
