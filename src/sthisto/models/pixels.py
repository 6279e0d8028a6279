"""What the pixels of a patch look like, for every method alike: their colors, and how sharp they are."""

from __future__ import annotations

from typing import Final

import numpy as np
from skimage.color import hed_from_rgb

from sthisto._images.fingerprints import fingerprints
from sthisto._images.patches import PatchSource
from sthisto.models.data import Features, SectionInput, kept_features

N_COLORS: Final = 9
_IDENTITY: Final = "pixels-1"
"""What kept numbers are found by; another number for another way to compute them."""
_AROUND_PX: Final = 32
_LEVELS: Final = 5
_LEAST_PX: Final = 4
_TINY: Final = 1e-3


def pixel_blocks(section: SectionInput) -> list[np.ndarray]:
    """Return colors and sharpness of the patch of every spot, (n_spots, n) float32 each; colors alone below 4 px.

    Those of a dense section, whose patches are not cut, are of a few pixels around each spot.
    """
    values = section.features(_IDENTITY, lambda: _measure(section)).values
    return [block for block in (values[:, :N_COLORS], values[:, N_COLORS:]) if block.shape[1]]


def color_numbers(patches: np.ndarray) -> np.ndarray:
    """Return nine numbers of each patch, (n, 9) float32: mean and spread of red, green and blue, and three stains.

    Hematoxylin, eosin and residual are unmixed with the vectors of Ruifrok and Johnston (2001), as scikit-image has
    them.
    """
    n, height, width = patches.shape[:3]
    channels = np.ascontiguousarray(patches.reshape(n, height * width, 3).transpose(0, 2, 1))
    counts = [np.bincount(values, minlength=256) for values in channels.reshape(3 * n, height * width)]
    shares = np.reshape(counts, (n, 3, 256)) / (height * width)  # of the 256 values in each channel of a patch
    value = np.arange(256) / 255
    mean = shares @ value
    spread = np.sqrt(np.maximum(shares @ np.square(value) - np.square(mean), 0))
    stains = -(shares @ np.log(np.maximum(value, 1 / 255))) @ hed_from_rgb
    return np.concatenate([mean, spread, stains], axis=1).astype(np.float32)


def sharpness_numbers(patches: np.ndarray) -> np.ndarray:
    """Return how much structure patches have at each scale, and how sparse it is, (n, 2 n_levels) float32.

    Patches are (n, height, width, 3). At the patch's resolution, at half of it, and so on down to a sixteenth, or to
    4 px: the logarithms of the root mean square of the Laplacian of the brightness (Pech-Pacheco et al., ICPR 2000,
    take its variance at the finest scale for focus), and of its mean absolute value divided by that. Blur takes away
    fine structure, another magnification moves it to another scale, and blocks of pixels make it sparse.
    """
    gray = (patches[..., 0].astype(np.float32) + patches[..., 1] + patches[..., 2]) / 3
    columns = []
    for _ in range(_LEVELS):
        if min(gray.shape[1:]) < _LEAST_PX:
            break
        inner = gray[:, 1:-1, 1:-1]
        sides = gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:]
        edges = 4 * inner - sides
        size = np.sqrt(np.square(edges).mean(axis=(1, 2))) + _TINY
        columns += [np.log(size), np.log((np.abs(edges).mean(axis=(1, 2)) + _TINY) / size)]
        height, width = (n // 2 * 2 for n in gray.shape[1:])
        gray = gray[:, :height, :width].reshape(len(gray), height // 2, 2, width // 2, 2).mean(axis=(2, 4))
    return np.stack(columns, axis=1) if columns else np.empty((len(patches), 0), dtype=np.float32)


def _measure(section: SectionInput) -> Features:
    source = section.patches[0]
    if section.dense:
        source = source.around(extent=_AROUND_PX, size=_AROUND_PX)
    return kept_features(_IDENTITY, [source], lambda: _of_patches(source))


def _of_patches(source: PatchSource) -> tuple[np.ndarray, np.ndarray]:
    fingerprint = np.zeros(len(source), dtype=np.uint64)
    values = np.empty((len(source), 0), dtype=np.float32)
    for index, patches in source.batches():
        found = np.concatenate([color_numbers(patches), sharpness_numbers(patches)], axis=1)
        if not values.shape[1]:
            values = np.empty((len(source), found.shape[1]), dtype=np.float32)
        values[index], fingerprint[index] = found, fingerprints(patches)
    return values, fingerprint
