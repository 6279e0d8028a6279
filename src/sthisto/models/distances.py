"""The distance of spots to training spots in one block of features, and how large it is between held-out groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

_N_COMPONENTS: Final = 64
_N_NEAREST: Final = 10
_LEAST_SHARE: Final = 1e-3
_STEEPEST: Final = 12.0
_QUARTILES: Final = (0.25, 0.5, 0.75)
_ODDS_OF_QUARTILE: Final = float(np.log(3))
_TINY: Final = 1e-12

BLOCK_AXES: Final[dict[str, tuple[int | str, ...]]] = {
    "mean": ("features",),
    "scale": ("features",),
    "axes": ("features", "components"),
    "reference": ("references", "components"),
    "rest": ("references",),
    "curve": (2,),
}
"""Axes of the tensors of `BlockDistance.state`."""


@dataclass(frozen=True, eq=False)
class BlockDistance:
    """Reference spots of the training sections, and the distances between held-out folds of them.

    The distance of a spot is the mean over its ten nearest reference spots of the root mean square difference of their
    features, each in units of its standard deviation within training sections. Features are kept as principal
    components and the squared length of the rest, which adds up, since two spots hardly share it.

    Attributes
    ----------
    mean, scale
        (n_features,) float32 that standardize features, by the training spots.
    axes
        (n_features, n_components) float32 principal axes.
    reference, rest
        (n_reference, n_components) and (n_reference,) float32: components of the training spots, and the squared length
        of what these leave.
    typical, steepness
        Median distance between held-out folds, and what its logarithm is multiplied with, so that the logistic function
        is 0.25 and 0.75 at the quartiles, up to a limit.
    """

    mean: np.ndarray
    scale: np.ndarray
    axes: np.ndarray
    reference: np.ndarray
    rest: np.ndarray
    typical: float
    steepness: float

    def excess(self, values: np.ndarray, fold: np.ndarray) -> np.ndarray:
        """Return how much farther spots are than typical ones of a held-out fold, (n_spots,) in logistic units.

        Parameters
        ----------
        values
            (n_spots, n_features) finite features.
        fold
            (n_reference,) fold of each reference spot, left out in turn.
        """
        components, rest = _reduced(_standard(values, self.mean, self.scale), self.axes)
        left = [fold != number for number in np.unique(fold)]
        parts = [_distance(components, rest, self.reference[rows], self.rest[rows]) for rows in left]
        return _excess(np.mean(parts, axis=0), self.typical, self.steepness)

    def state(self) -> dict[str, Tensor]:
        """Return what is saved, as tensors."""
        arrays = {name: getattr(self, name) for name in BLOCK_AXES if name != "curve"}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
        return tensors | {"curve": torch.tensor([self.typical, self.steepness], dtype=torch.float64)}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> BlockDistance:
        """Return what `state` returned; raise ValueError for a distance that means nothing."""
        typical, steepness = state["curve"].tolist()
        if not (typical > 0 and 0 < steepness <= 2 * _STEEPEST and (state["scale"] > 0).all()):
            msg = "the scales and the typical distance must be positive, and the steepness no more than it ever is"
            raise ValueError(msg)
        arrays = {name: state[name].numpy() for name in BLOCK_AXES if name != "curve"}
        return cls(**arrays, typical=typical, steepness=steepness)


def fit_block_distance(
    values: np.ndarray, section: np.ndarray, fold: np.ndarray, *, seed: int
) -> tuple[BlockDistance, np.ndarray]:
    """Measure the distances between folds of training spots.

    Parameters
    ----------
    values
        (n_spots, n_features) features.
    section, fold
        (n_spots,) section and fold of each spot; at least two folds.
    seed
        Seed of PCA's randomized solver.

    Returns
    -------
    The distance, and (n_spots,) that of each spot to the other folds, in logistic units.
    """
    mean = values.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = (_spread_within(values, section) * np.sqrt(values.shape[1])).astype(np.float32)
    standard = _standard(values, mean, scale)
    n_components = min(_N_COMPONENTS, len(values) - 1, values.shape[1])
    solver = "full" if n_components == values.shape[1] else "randomized"
    pca = PCA(n_components, svd_solver=solver, random_state=seed).fit(standard)
    axes = np.asarray(pca.components_.T, dtype=np.float32)
    reference, rest = (part.astype(np.float32) for part in _reduced(standard, axes))
    distance = np.empty(len(fold))
    for number in np.unique(fold):
        held, others = fold == number, fold != number
        distance[held] = _distance(
            reference[held].astype(np.float64), rest[held].astype(np.float64), reference[others], rest[others]
        )
    typical, width = median_and_width(np.log(np.maximum(distance, _TINY)), fold)
    found = BlockDistance(
        mean, scale, axes, reference, rest, float(np.exp(typical)), 1 / max(float(width), 1 / _STEEPEST)
    )
    return found, _excess(distance, found.typical, found.steepness)


def median_and_width(values: np.ndarray, fold: np.ndarray) -> tuple[float, float]:
    """Return the median of (n,) values and the width of the logistic distribution of their quartiles.

    `fold` is that of each value, (n,); all folds have the same weight.
    """
    _, number, size = np.unique(fold, return_inverse=True, return_counts=True)
    weight = 1 / size[number]
    order = np.argsort(values, kind="stable")
    share = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    low, median, high = np.interp(_QUARTILES, share, values[order])
    return float(median), float((high - low) / (2 * _ODDS_OF_QUARTILE))


def _excess(distance: np.ndarray, typical: float, steepness: float) -> np.ndarray:
    return np.asarray(steepness * (np.log(np.maximum(distance, _TINY)) - np.log(typical)))


def _spread_within(values: np.ndarray, section: np.ndarray) -> np.ndarray:
    """Return (n_features,) standard deviations within sections, not far below the magnitude: they divide."""
    square = np.zeros(values.shape[1])
    for number in np.unique(section):
        rows = values[section == number].astype(np.float64)
        square += np.square(rows - rows.mean(axis=0)).sum(axis=0)
    spread = np.sqrt(square / len(values))
    return np.maximum(spread, np.maximum(_LEAST_SHARE * np.abs(values).max(axis=0), _TINY))


def _standard(values: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.asarray((values.astype(np.float64) - mean) / scale)


def _reduced(standard: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return components, (n, n_components), and the squared length of what they leave, (n,)."""
    components = standard @ axes
    rest = np.square(standard).sum(axis=1) - np.square(components).sum(axis=1)
    return components, np.maximum(rest, 0)


def _distance(components: np.ndarray, rest: np.ndarray, reference: np.ndarray, its_rest: np.ndarray) -> np.ndarray:
    """Return the mean distance of each spot to its ten nearest reference spots, (n_spots,)."""
    other = reference.astype(np.float64)
    square = np.square(components).sum(axis=1)[:, None] + np.square(other).sum(axis=1) - 2 * components @ other.T
    square = np.maximum(square, 0) + rest[:, None] + its_rest
    n_nearest = min(_N_NEAREST, len(reference))
    return np.asarray(np.sqrt(np.partition(square, n_nearest - 1, axis=1)[:, :n_nearest]).mean(axis=1))
