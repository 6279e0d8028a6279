"""The power law that scores follow as a training set grows, fitted where it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import curve_fit

FEWEST_SIZES: Final = 4
"""Sizes that a power law, which has three parameters, needs at least."""
LEAST_EXPLAINED: Final = 0.9
"""Share of the variance of the scores that the law must explain to be used."""


@dataclass(frozen=True)
class PowerLaw:
    """``score = limit - scale * size ** -exponent`` (Hestness et al. 2017, arXiv:1712.00409)."""

    limit: float
    scale: float
    exponent: float

    def __call__(self, size: np.ndarray) -> np.ndarray:
        """Return the score at each size, (n_sizes,)."""
        return np.asarray(self.limit - self.scale * np.asarray(size, dtype=float) ** -self.exponent)


def fit_power_law(size: np.ndarray, score: np.ndarray) -> PowerLaw | None:
    """Fit the power law by least squares.

    Parameters
    ----------
    size
        (n_sizes,) size of the training set.
    score
        (n_sizes,) mean score.

    Returns
    -------
    The law. None where it does not hold: fewer than four sizes, scores that do not rise, or less than 90 % of their
    variance explained.
    """
    size, score = np.asarray(size, dtype=float), np.asarray(score, dtype=float)
    known = np.isfinite(score)
    size, score = size[known], score[known]
    if len(size) < FEWEST_SIZES or score[-1] <= score[0]:
        return None
    relative = size / size.max()
    try:
        (limit, scale, exponent), _ = curve_fit(
            lambda x, limit, scale, exponent: limit - scale * x**-exponent,
            relative,
            score,
            p0=(score[-1] + (score[-1] - score[0]) / 2, score[-1] - score[0], 0.5),
            bounds=((-1, 0, 0.01), (1, np.inf, 3)),
            maxfev=10_000,
        )
    except (RuntimeError, ValueError):  # did not converge, or the start lies outside the bounds: no law to use
        return None
    law = PowerLaw(float(limit), float(scale * size.max() ** exponent), float(exponent))
    left = np.square(score - law(size)).sum() / np.square(score - score.mean()).sum()
    return law if 1 - left >= LEAST_EXPLAINED else None
