"""How familiar a spot looks: its distance to training spots, against distances between held-out training groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

GroupKind = Literal["patient", "section", "block"]

UNLIKE: Final = 0.05
"""Confidence below which a spot is called unlike the training spots."""
_N_REFERENCE: Final = 3000
_N_COMPONENTS: Final = 64
_N_NEAREST: Final = 10
_MOST_FOLDS: Final = 5
_ROWS_AT_ONCE: Final = 2048
_LEAST_SHARE: Final = 1e-3
_STEEPEST: Final = 12.0
_SHARES: Final = (0.25, 0.5, 0.75)
_ODDS_OF_QUARTILE: Final = float(np.log(3))
_TINY: Final = 1e-12


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Training spots in few dimensions, and how far apart held-out groups of them are.

    The distance of a spot is the mean over its ten nearest reference spots of the root mean square difference of their
    features, each in units of its standard deviation within training sections. Features are kept as principal
    components and the squared length of the rest, which adds up, since two spots hardly share it. Groups are dealt into
    folds, and the distance is the mean of those to all folds but one, so that a new spot is compared with as many spots
    as a held-out one was (as in cross-conformal prediction: Vovk, Ann Math Artif Intell 74:9, 2015).

    The confidence is ``1 / (1 + (distance / typical) ** steepness)``: 0.5 where the spot is as far from the training
    spots as half of those of a held-out fold, and 0.25 and 0.75, up to the limit of the steepness, at the quartiles.

    Attributes
    ----------
    mean, scale
        (n_features,) float32 that standardize features, by the training spots.
    axes
        (n_features, n_components) float32 principal axes.
    reference
        (n_reference, n_components + 2) float32 training spots: components, the squared length of the rest, and the
        number of the fold.
    typical, steepness
        Median distance between held-out groups, and how fast the confidence falls with the distance.
    groups
        What was held out: "patient", "section" or spatial "block".
    """

    mean: np.ndarray
    scale: np.ndarray
    axes: np.ndarray
    reference: np.ndarray
    typical: float
    steepness: float
    groups: GroupKind

    def confidence(self, blocks: Sequence[np.ndarray]) -> np.ndarray:
        """Return the confidence of spots, (n_spots,) float32 between 0 and 1; NaN where a feature is not finite.

        Parameters
        ----------
        blocks
            (n_spots, n) features each, the same blocks as were fitted on.
        """
        values = np.concatenate(list(blocks), axis=1)
        finite = np.isfinite(values).all(axis=1)
        result = np.full(len(values), np.nan, dtype=np.float32)
        spots = _reduced(_standard(values[finite], self.mean, self.scale), self.axes)
        reference, fold = self.reference[:, :-1], self.reference[:, -1]
        parts = [_distance(spots, reference[fold != number]) for number in np.unique(fold)]
        ratio = np.maximum(np.mean(parts, axis=0), _TINY) / self.typical
        result[finite] = 1 / (1 + ratio**self.steepness)
        return result

    def state(self) -> dict[str, Tensor]:
        """Return what is saved, as tensors."""
        arrays = {"mean": self.mean, "scale": self.scale, "axes": self.axes, "reference": self.reference}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
        return tensors | {"curve": torch.tensor([self.typical, self.steepness], dtype=torch.float64)}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], groups: GroupKind) -> Familiarity:
        """Return what `state` returned; raise ValueError for a curve that does not fall."""
        typical, steepness = state["curve"].tolist()
        if not (typical > 0 and steepness > 0 and (state["scale"] > 0).all()):
            msg = "the distance at which the confidence is 0.5, its steepness and the scales must be positive"
            raise ValueError(msg)
        arrays = (state[name].numpy() for name in ("mean", "scale", "axes", "reference"))
        return cls(*arrays, typical, steepness, groups)


FAMILIARITY_AXES: Final[dict[str, tuple[int | str, ...]]] = {
    "mean": ("features",),
    "scale": ("features",),
    "axes": ("features", "components"),
    "reference": ("references", "components, rest and fold"),
    "curve": (2,),
}
"""Axes of the tensors of `Familiarity.state`."""


def fit_familiarity(
    blocks: Sequence[np.ndarray],
    *,
    section: np.ndarray,
    patients: Sequence[str],
    positions: np.ndarray,
    seed: int = 0,
) -> Familiarity | None:
    """Measure how far apart groups of training spots are; None where there are not two groups to compare.

    Groups are patients where there are several, else sections, else five bands across the longer side of the only
    section.

    Parameters
    ----------
    blocks
        (n_spots, n) features each, of all training spots; blocks weigh alike, whatever their number of features.
    section
        (n_spots,) number of each spot's section.
    patients
        The patient of each section, "" where unknown.
    positions
        (n_spots, 2) x and y.
    seed
        Seed of the choice of reference spots.
    """
    group, kind = _groups(section, patients, positions)
    values, divisor = np.concatenate(list(blocks), axis=1), _divisors(blocks)
    kept = np.flatnonzero(np.isfinite(values).all(axis=1))
    kept = kept[_sample(section[kept], _N_REFERENCE, seed)]
    values, group, section = values[kept], group[kept], section[kept]
    if len(np.unique(group)) < 2:
        return None
    mean, scale = values.mean(axis=0, dtype=np.float64), _spread_within(values, section) * divisor
    mean, scale = mean.astype(np.float32), scale.astype(np.float32)
    standard = _standard(values, mean, scale)
    n_components = min(_N_COMPONENTS, len(values) - 1, values.shape[1])
    pca = PCA(n_components, svd_solver="randomized", random_state=seed).fit(standard)
    axes = np.asarray(pca.components_.T, dtype=np.float32)
    reference = _reduced(standard, axes)
    fold = _dealt(group, seed)
    typical, steepness = _curve(reference, fold)
    return Familiarity(mean, scale, axes, np.column_stack([reference, fold]), typical, steepness, kind)


def _groups(section: np.ndarray, patients: Sequence[str], positions: np.ndarray) -> tuple[np.ndarray, GroupKind]:
    """Return what is held out together, (n_spots,), and its kind."""
    if all(patients) and len({patients[i] for i in np.unique(section)}) > 1:
        return np.unique(np.asarray(patients), return_inverse=True)[1][section], "patient"
    if len(np.unique(section)) > 1:
        return section, "section"
    order = np.argsort(np.argsort(positions[:, np.argmax(np.ptp(positions, axis=0))], kind="stable"), kind="stable")
    return np.asarray(order * min(_MOST_FOLDS, len(section)) // len(section)), "block"


def _dealt(group: np.ndarray, seed: int) -> np.ndarray:
    """Return the fold of each spot, (n_spots,) float32; groups stay together, and there are five folds at most."""
    names, number = np.unique(group, return_inverse=True)
    return np.asarray(np.random.default_rng(seed).permutation(len(names))[number] % _MOST_FOLDS, dtype=np.float32)


def _divisors(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Return (n_features,) what features are divided by so that every block weighs alike and all weigh 1."""
    sizes = [block.shape[1] for block in blocks]
    return np.repeat(np.sqrt(np.multiply(sizes, len(sizes))), sizes)


def _sample(section: np.ndarray, n_most: int, seed: int) -> np.ndarray:
    """Return at most `n_most` positions in ascending order, from each section as many as from any other."""
    rng = np.random.default_rng(seed)
    rank = np.empty(len(section), dtype=int)
    for number in np.unique(section):
        rows = np.flatnonzero(section == number)
        rank[rows] = rng.permutation(len(rows))
    return np.sort(np.argsort(rank, kind="stable")[:n_most])


def _spread_within(values: np.ndarray, section: np.ndarray) -> np.ndarray:
    """Return (n_features,) standard deviations within sections, not far below the magnitude: they divide."""
    square = np.zeros(values.shape[1])
    for number in np.unique(section):
        rows = values[section == number]
        square += np.square(rows - rows.mean(axis=0, dtype=np.float64)).sum(axis=0)
    spread = np.sqrt(square / len(values))
    return np.maximum(spread, np.maximum(_LEAST_SHARE * np.abs(values).max(axis=0), _TINY))


def _standard(values: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.asarray((values - mean) / scale, dtype=np.float32)


def _reduced(standard: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return components, and the squared length of what they leave, (n, n_components + 1) float32."""
    components = standard @ axes
    rest = np.square(standard).sum(axis=1) - np.square(components).sum(axis=1)
    return np.column_stack([components, np.maximum(rest, 0)]).astype(np.float32)


def _distance(spots: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the mean distance of each spot to its ten nearest reference spots, (n_spots,)."""
    n_nearest = min(_N_NEAREST, len(reference))
    other, rest = reference[:, :-1].astype(np.float64), reference[:, -1]
    length = np.square(other).sum(axis=1) + rest
    found = np.empty(len(spots))
    for start in range(0, len(spots), _ROWS_AT_ONCE):
        rows = spots[start : start + _ROWS_AT_ONCE].astype(np.float64)
        own = np.square(rows[:, :-1]).sum(axis=1) + rows[:, -1]
        square = own[:, None] + length - 2 * rows[:, :-1] @ other.T
        nearest = np.partition(square, n_nearest - 1, axis=1)[:, :n_nearest]
        found[start : start + len(rows)] = np.sqrt(np.maximum(nearest, 0)).mean(axis=1)
    return found


def _curve(reference: np.ndarray, fold: np.ndarray) -> tuple[float, float]:
    """Return the median distance of held-out folds to all others, folds weighing alike, and the steepness."""
    distance, weight = np.empty(len(fold)), np.empty(len(fold))
    for number in np.unique(fold):
        rows = fold == number
        distance[rows] = _distance(reference[rows], reference[~rows])
        weight[rows] = 1 / rows.sum()
    order = np.argsort(distance, kind="stable")
    share = np.cumsum(weight[order]) - weight[order] / 2
    low, typical, high = np.interp(_SHARES, share / weight.sum(), np.maximum(distance[order], _TINY))
    width = max(np.log(high / low), 2 * _ODDS_OF_QUARTILE / _STEEPEST)
    return float(typical), float(2 * _ODDS_OF_QUARTILE / width)
