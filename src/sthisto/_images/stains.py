"""Hematoxylin and eosin of one slide, from a sample of its tissue. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from skimage.color import rgb_from_hed
from skimage.filters import threshold_otsu

N_NUMBERS: Final = 9
"""Numbers that describe the stains of a slide."""
_DARKEST: Final = 1 / 255
_LEAST_DENSITY: Final = 0.15
_FEWEST_PIXELS: Final = 100
_SMALLEST_ANGLE: Final = 0.05
_LEAST_SATURATION: Final = 0.07
_LEAST_BRIGHTNESS: Final = 0.12
_WHITE: Final = 0.8
_STRONG: Final = 99


@dataclass(frozen=True)
class SlideStains:
    """The stains of a slide.

    Attributes
    ----------
    vectors
        (2, 3) optical density of hematoxylin and eosin in red, green and blue, each of length 1.
    strength
        (2,) amount of each that 1 % of the tissue's pixels exceed: the unit of the amounts.
    nuclear
        Otsu's threshold of the amount of hematoxylin in tissue.
    """

    vectors: np.ndarray
    strength: np.ndarray
    nuclear: float

    def amounts(self, density: np.ndarray) -> np.ndarray:
        """Return hematoxylin and eosin of optical densities: (..., 3) to (..., 2) float32."""
        unmix = np.linalg.pinv(self.vectors) / self.strength
        return np.asarray(density @ unmix.astype(np.float32), dtype=np.float32)

    @classmethod
    def from_key(cls, key: np.ndarray) -> SlideStains:
        """Return the stains of the numbers, (9,), that `key` returned."""
        return cls(key[:6].reshape(2, 3), key[6:8], float(key[8]))

    def key(self) -> np.ndarray:
        """Return all numbers, (9,) float64."""
        return np.concatenate([self.vectors.ravel(), self.strength, [self.nuclear]]).astype(np.float64)


def optical_density(rgb: np.ndarray) -> np.ndarray:
    """Return the optical density of RGB between 0 and 1, (..., 3)."""
    return np.asarray(-np.log(np.maximum(rgb, _DARKEST)))


def saturation(rgb: np.ndarray) -> np.ndarray:
    """Return the saturation of RGB between 0 and 1: (..., 3) to (...)."""
    most = rgb.max(axis=-1)
    return np.asarray((most - rgb.min(axis=-1)) / np.maximum(most, 1e-6))


def is_tissue(rgb: np.ndarray) -> np.ndarray:
    """Return where RGB between 0 and 1 is colored, neither glass nor masked in black: (..., 3) to (...) bool."""
    return np.asarray((saturation(rgb) > _LEAST_SATURATION) & (rgb.max(axis=-1) > _LEAST_BRIGHTNESS))


def is_white(rgb: np.ndarray) -> np.ndarray:
    """Return where RGB between 0 and 1 is glass or a lumen: (..., 3) to (...) bool."""
    return np.asarray(rgb.min(axis=-1) > _WHITE)


def fit_stains(rgb: np.ndarray) -> SlideStains:
    """Estimate the stain vectors of a slide by Macenko's method.

    Parameters
    ----------
    rgb
        (n, 3) pixels of tissue between 0 and 1. Of fewer than 100 stained ones, or where these are of a single hue, the
        vectors are those of Ruifrok and Johnston.

    References
    ----------
    Macenko et al., A method for normalizing histology slides for quantitative analysis, ISBI 2009,
    doi:10.1109/ISBI.2009.5193250.
    """
    density = optical_density(rgb.astype(np.float64))
    stained = density[(density > _LEAST_DENSITY).all(axis=-1)]
    vectors = _macenko(stained) if len(stained) >= _FEWEST_PIXELS else None
    if vectors is None:
        vectors = rgb_from_hed[:2] / np.linalg.norm(rgb_from_hed[:2], axis=1, keepdims=True)
    if not len(density):
        return SlideStains(vectors, np.ones(2), 0.5)
    amounts = density @ np.linalg.pinv(vectors)
    strength = np.maximum(np.percentile(amounts, _STRONG, axis=0), 1e-3)
    hematoxylin = amounts[:, 0] / strength[0]
    spread = np.ptp(hematoxylin) > 0
    return SlideStains(vectors, strength, float(threshold_otsu(hematoxylin)) if spread else float(hematoxylin[0]))


def _macenko(density: np.ndarray) -> np.ndarray | None:
    """Return (2, 3) vectors at the extreme hues of (n, 3) densities; None where the hues are all but one."""
    _, directions = np.linalg.eigh(np.cov(density.T))
    plane = directions[:, [2, 1]]
    plane = plane * np.where(plane[0] < 0, -1, 1)
    angle = np.arctan2(*(density @ plane).T[::-1])
    ends = np.percentile(angle, [100 - _STRONG, _STRONG])
    if ends[1] - ends[0] < _SMALLEST_ANGLE:
        return None
    vectors = np.stack([plane @ (np.cos(end), np.sin(end)) for end in ends])
    if (vectors.max(axis=1) <= 0).any() or (vectors.min(axis=1) < -0.5).any():
        return None
    return np.asarray(vectors[np.argsort(-vectors[:, 0])])  # hematoxylin absorbs more red than eosin does
