"""Stain and texture of tissue as maps: what can be measured in an image without a network. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from scipy import ndimage
from skimage.color import hed_from_rgb
from skimage.feature import local_binary_pattern

from sthisto._images.stains import SlideStains, is_tissue, is_white, optical_density, saturation

UM_PER_PX: Final = 3.22
"""µm per px of the image that texture is measured on."""
HALO: Final = 24
"""Px around a region on which its maps depend."""
N_SPREAD: Final = 10
"""Maps of which mean and standard deviation are taken; the others count by their mean."""
_SIGMAS: Final = (1, 2, 4)
_COHERENCE_SIGMAS: Final = (2, 4)
_RADII: Final = (1, 2)
_N_POINTS: Final = 8
_N_PATTERNS: Final = _N_POINTS + 2
_GRAY: Final = np.array([0.2125, 0.7154, 0.0721], dtype=np.float32)
_DARK_NUCLEI: Final = 1.4
_PEAK_PX: Final = 5

N_TEXTURES: Final = 2 * N_SPREAD + 4 * len(_SIGMAS) + len(_COHERENCE_SIGMAS) + _N_PATTERNS * len(_RADII) + 5
"""Numbers of a window."""


def texture_maps(rgb: np.ndarray, stains: SlideStains) -> Iterator[np.ndarray]:
    """Yield the maps whose means over a window are its texture, `N_TEXTURES` of them, (height, width) float32 each.

    First come `N_SPREAD` maps of which also the spread counts: red, green, blue; hematoxylin, eosin and residual by
    fixed vectors; hematoxylin, eosin and their difference by the slide's own; saturation. Then come their squares, and
    then: Laplacian of Gaussian of hematoxylin and its absolute value, gradient of brightness and of eosin (σ of 1, 2
    and 4 px); coherence of the structure tensor (σ of 2 and 4 px); uniform local binary patterns of radius 1 and 2, one
    map a pattern; nuclei, dark nuclei, centers of nuclei, white, and tissue.

    Parameters
    ----------
    rgb
        (height, width, 3) uint8 of about `UM_PER_PX`. Values within `HALO` of a border that is not the image's own
        depend on what is missing there.
    stains
        Stain vectors of the slide.
    """
    pixels = rgb.astype(np.float32) / 255
    density = optical_density(pixels)
    fixed = density @ hed_from_rgb.astype(np.float32)
    amounts = stains.amounts(density)
    hematoxylin, eosin = amounts[..., 0], amounts[..., 1]
    spread = [
        *(pixels[..., channel] for channel in range(3)),
        *(fixed[..., channel] for channel in range(3)),
        hematoxylin,
        eosin,
        hematoxylin - eosin,
        saturation(pixels),
    ]
    yield from spread
    for values in spread:
        yield np.square(values)
    gray = pixels @ _GRAY
    yield from _edges(hematoxylin, eosin, gray)
    yield from _coherence(gray)
    yield from _patterns(gray)
    yield from _nuclei(hematoxylin, stains.nuclear)
    yield is_white(pixels).astype(np.float32)
    yield is_tissue(pixels).astype(np.float32)


def texture_of_means(means: np.ndarray) -> np.ndarray:
    """Return texture, (..., N_TEXTURES) float32, from the means of `texture_maps` over windows, of the same shape."""
    values = np.array(means, dtype=np.float64)
    first, squares = values[..., :N_SPREAD], values[..., N_SPREAD : 2 * N_SPREAD]
    values[..., N_SPREAD : 2 * N_SPREAD] = np.sqrt(np.maximum(squares - np.square(first), 0))
    return values.astype(np.float32)


def patch_texture(rgb: np.ndarray, stains: SlideStains) -> np.ndarray:
    """Return the texture of a whole picture, (N_TEXTURES,) float32, of (height, width, 3) uint8."""
    return texture_of_means(np.array([values.mean(dtype=np.float64) for values in texture_maps(rgb, stains)]))


def _edges(hematoxylin: np.ndarray, eosin: np.ndarray, gray: np.ndarray) -> Iterator[np.ndarray]:
    for sigma in _SIGMAS:
        blobs = ndimage.gaussian_laplace(hematoxylin, sigma)
        yield blobs
        yield np.abs(blobs)
        yield ndimage.gaussian_gradient_magnitude(gray, sigma)
        yield ndimage.gaussian_gradient_magnitude(eosin, sigma)


def _coherence(gray: np.ndarray) -> Iterator[np.ndarray]:
    across, down = ndimage.sobel(gray, axis=1), ndimage.sobel(gray, axis=0)
    for sigma in _COHERENCE_SIGMAS:
        xx, xy, yy = (ndimage.gaussian_filter(v, sigma) for v in (across * across, across * down, down * down))
        yield np.sqrt(np.square(xx - yy) + 4 * np.square(xy)) / (xx + yy + 1e-6)


def _patterns(gray: np.ndarray) -> Iterator[np.ndarray]:
    levels = (gray * 255).astype(np.uint8)
    for radius in _RADII:
        pattern = local_binary_pattern(levels, _N_POINTS, radius, method="uniform")
        for number in range(_N_PATTERNS):
            yield (pattern == number).astype(np.float32)


def _nuclei(hematoxylin: np.ndarray, threshold: float) -> Iterator[np.ndarray]:
    yield (hematoxylin > threshold).astype(np.float32)
    yield (hematoxylin > _DARK_NUCLEI * threshold).astype(np.float32)
    smooth = ndimage.gaussian_filter(hematoxylin, 1)
    peaks = (smooth == ndimage.maximum_filter(smooth, _PEAK_PX)) & (smooth > threshold)
    yield peaks.astype(np.float32)
