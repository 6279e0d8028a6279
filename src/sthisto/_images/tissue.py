"""Where the tissue is, from pixels. Arrays in, arrays out."""

from __future__ import annotations

import numpy as np
from skimage.color import rgb2hsv
from skimage.filters import gaussian, threshold_otsu
from skimage.transform import integral_image

from sthisto._images.pen import pen_mask
from sthisto._images.pyramid import Pyramid

_OVERVIEW_PX = 2000
_PX_UM = 5.0
"""What a pixel of an overview is taken for where marker is looked for."""
_LEAST_SATURATION = 0.05


def tissue_share(image: Pyramid, centers: np.ndarray, diameter: float) -> np.ndarray:
    """Return which share of each spot is tissue.

    Stained tissue is saturated where glass and masked background are white, gray or black: the saturation of an
    overview of at most 2000 px is smoothed and divided by Otsu's threshold. Marker, which is far more saturated, takes
    no part in the threshold.

    Parameters
    ----------
    image
        The slide.
    centers
        (n, 2) x and y in px of the full resolution.
    diameter
        Width of a spot in px of the full resolution.

    Returns
    -------
    (n,) between 0 and 1. Without anything saturated it is 0 everywhere.
    """
    picture, (left, right, bottom, top) = image.overview(max_size=_OVERVIEW_PX)
    saturation = gaussian(rgb2hsv(picture)[..., 1], sigma=2)
    clean = saturation[~pen_mask(picture, _PX_UM)]
    tissue = saturation > max(float(threshold_otsu(clean if clean.size else saturation)), _LEAST_SATURATION)
    height, width = tissue.shape
    px = np.array([width / (right - left), height / (bottom - top)])
    low = np.round((centers - [left, top] - diameter / 2) * px).astype(int)
    high = np.maximum(np.round((centers - [left, top] + diameter / 2) * px).astype(int), low + 1)
    low, high = np.clip(low, 0, [width, height]), np.clip(high, 0, [width, height])
    summed = integral_image(np.pad(tissue, ((1, 0), (1, 0))))  # (height + 1, width + 1)
    inside = (
        summed[high[:, 1], high[:, 0]]
        - summed[low[:, 1], high[:, 0]]
        - summed[high[:, 1], low[:, 0]]
        + summed[low[:, 1], low[:, 0]]
    )
    area = np.maximum((high - low).prod(axis=1), 1)
    share: np.ndarray = inside / area
    return share


def hexagonal_grid(width: float, height: float, pitch: float) -> np.ndarray:
    """Return (n, 2) x and y of a hexagonal lattice that fills a box from the origin, half a pitch from its border."""
    rows = np.arange(pitch / 2, height, pitch * np.sqrt(3) / 2)
    columns = np.arange(pitch / 2, width, pitch)
    x, y = np.meshgrid(columns, rows)
    x = x + np.where(np.arange(len(rows)) % 2, pitch / 2, 0)[:, None]
    grid = np.column_stack([x.ravel(), y.ravel()])
    return grid[grid[:, 0] < width]
