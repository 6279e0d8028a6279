"""Where a marker was drawn on a slide, from its color. Arrays in, arrays out."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import ndimage
from skimage.morphology import disk

from sthisto._images.stains import optical_density

_SMOOTHING_UM: Final = 5.0
_BLOOD_UM: Final = 13.0
"""Radius of what red must be part of: vessels with blood are narrower than a red marker's line."""
_LEAST_DENSITY: Final = 0.2
_MOST_BLUE: Final = (0.38, 0.56, 0.65)
_LEAST_GREEN: Final = 0.1
_LEAST_BLACK: Final = 0.17
_BLACK_DENSITY: Final = 1.0
_LEAST_RED: Final = -0.03
_RED_SLOPE: Final = 0.6


def pen_mask(rgb: np.ndarray, um_per_px: float) -> np.ndarray:
    """Return where blue, green, black or red marker was drawn, (height, width) bool.

    The hue of a pixel is its place in the plane of hue, saturation and density, which does not depend on how much dye
    there is. Mixtures of hematoxylin and eosin, whatever the scanner, lie in a narrow band of that plane. What lies
    beyond it is marker: on the side of blue, of green and black, or of red. Red must be wider than 26 µm, since blood
    in vessels is red too. Bleeding and brown chromogens are taken for marker; so is what is masked in black.

    Parameters
    ----------
    rgb
        (height, width, 3) uint8.
    um_per_px
        µm per px of `rgb`.

    References
    ----------
    van der Laak et al., Hue-saturation-density (HSD) model for stain recognition in digital images from transmitted
    light microscopy, Cytometry 39:275 (2000), doi:10.1002/(SICI)1097-0320(20000401)39:4<275::AID-CYTO5>3.0.CO;2-8.
    """
    density = optical_density(rgb.astype(np.float32) / 255)
    density = ndimage.gaussian_filter(density, (_SMOOTHING_UM / um_per_px,) * 2 + (0,))
    mean = density.mean(axis=-1)
    relative = density / np.maximum(mean, 1e-6)[..., None]
    x, y = relative[..., 0] - 1, (relative[..., 1] - relative[..., 2]) / np.sqrt(3)
    blue = (x > _MOST_BLUE[0]) | (y > _MOST_BLUE[1]) | (x + y > _MOST_BLUE[2])
    green_or_black = (y < np.where(mean > _BLACK_DENSITY, _LEAST_BLACK, _LEAST_GREEN)) & (x > -_LEAST_BLACK)
    red = y + _RED_SLOPE * x < _LEAST_RED
    is_dense = mean > _LEAST_DENSITY
    return np.asarray(is_dense & (blue | green_or_black | _wide(red & is_dense, _BLOOD_UM / um_per_px)))


def _wide(mask: np.ndarray, radius: float) -> np.ndarray:
    """Return the parts of a (height, width) mask that hold a disk of that radius in px; the mask goes on outside."""
    if radius < 1:
        return mask
    footprint = disk(int(radius))
    eroded = ndimage.binary_erosion(mask, footprint, border_value=1)
    return np.asarray(ndimage.binary_dilation(eroded, footprint) & mask)
