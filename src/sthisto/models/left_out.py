"""What predictions of left-out training spots tell: how much they vary with what was measured, and miss it."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.sparse import csr_matrix

from sthisto.models.blocks import FEWEST_SPOTS
from sthisto.models.low_rank import centered_by

N_NEAREST: Final = 100
"""Training spots whose errors make the spread of a prediction."""
_LEAST_CORRELATION: Final = 0.05
_FEWEST_DEGREES: Final = 2
"""Spots less folds below which any two columns correlate perfectly, which says nothing of the prediction."""
_MOST_FOLDS: Final = 5
_TINY: Final = 1e-12


def left_out_together(group: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return (n,) which spots are left out together: sections, or bands across the longer side of each section.

    Bands are for a single section, and for sections beside one without which hardly any spot is left to train on.

    Parameters
    ----------
    group
        (n,) number of each spot's section.
    positions
        (n, 2) x and y of the spots.
    """
    names, sizes = np.unique(group, return_counts=True)
    most = sizes.max(initial=0)
    if len(names) > 1 and len(group) - most >= min(FEWEST_SPOTS, most):
        return group
    folds = np.zeros(len(group), dtype=np.int64)
    for name, size in zip(names, sizes, strict=True):
        own = positions[group == name]
        axis = int(np.argmax(np.ptp(own, axis=0)))
        order = np.argsort(np.argsort(own[:, axis], kind="stable"), kind="stable")
        folds[group == name] = order * min(_MOST_FOLDS, size) // size
    return folds


def amplitude_and_errors(
    expression: np.ndarray, predicted: np.ndarray, group: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how much predictions of one s.d. vary on the expression's scale, (n_genes,), and their errors.

    The amplitude is the expression's standard deviation within sections times its correlation with the prediction, at
    least 0.05. The correlation is that within folds: targets were centered with the left-out spots, whose mean they
    give away.

    Parameters
    ----------
    expression, predicted
        (n_spots, n_genes) what was measured, and what was predicted when the spot was left out, on any scale.
    group, folds
        (n_spots,) number of each spot's section, and which spots were left out together.
    """
    one_a_section = len(group) == len(np.unique(group))
    measured = (
        expression - expression.mean(axis=0, dtype=np.float64) if one_a_section else centered_by(expression, group)
    )
    outside = centered_by(predicted, folds)
    outside /= np.maximum(column_sd(outside), _TINY)
    held_out = centered_by(expression, folds)
    correlation = (outside * held_out).mean(axis=0) / np.maximum(column_sd(held_out), _TINY)
    if len(group) - len(np.unique(folds)) < _FEWEST_DEGREES:
        correlation = np.zeros_like(correlation)
    amplitude = column_sd(measured) * np.maximum(correlation, _LEAST_CORRELATION)
    return amplitude, measured - outside * amplitude


def spread_of_nearest(kernel: np.ndarray, squared_error: np.ndarray) -> np.ndarray:
    """Return the root mean square of the errors of the most similar training spots, (n, n_genes) float32.

    Parameters
    ----------
    kernel
        (n, n_training) similarity to the training spots.
    squared_error
        (n_training, n_genes) float32 of the training spots when they were left out.
    """
    k = min(N_NEAREST, kernel.shape[1])
    nearest = np.argpartition(kernel, kernel.shape[1] - k, axis=1)[:, kernel.shape[1] - k :]
    n = len(kernel)
    chosen = csr_matrix(
        (np.full(n * k, 1 / k, dtype=np.float32), nearest.ravel(), np.arange(0, n * k + 1, k)), (n, len(squared_error))
    )
    return np.sqrt(np.asarray(chosen @ squared_error, dtype=np.float32))


def column_sd(values: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each column, (n_columns,) float64."""
    return np.asarray(values.std(axis=0, dtype=np.float64))
