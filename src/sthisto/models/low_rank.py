"""The few directions in which the targets of the training spots vary together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sthisto._utils.validate import check_positive


@dataclass(frozen=True)
class Components:
    """Principal components of targets.

    Attributes
    ----------
    vectors
        (n_genes, n_components) float64, orthonormal, the largest first.
    share
        (n_components,) how many of the chosen numbers of components include each, between 0 and 1.
    """

    vectors: np.ndarray
    share: np.ndarray

    @property
    def projection(self) -> np.ndarray:
        """The mean over the chosen numbers k of the projection on the first k components, (n_genes, n_genes)."""
        return np.asarray((self.vectors * self.share) @ self.vectors.T)


def fit_components(targets: np.ndarray, numbers: Sequence[int]) -> Components:
    """Return the top components of (n_spots, n_genes) targets that are centered already.

    Parameters
    ----------
    numbers
        Numbers of components, over which the projection is averaged; () keeps all.
    """
    rank = min(targets.shape)
    wanted = tuple(min(int(number), rank) for number in numbers) or (rank,)
    most = max(wanted)
    gram = targets.T @ targets if targets.shape[1] <= targets.shape[0] else targets @ targets.T
    values, vectors = np.linalg.eigh(gram.astype(np.float64))
    values, vectors = values[::-1][:most], vectors[:, ::-1][:, :most]
    if targets.shape[1] > targets.shape[0]:
        vectors = targets.T @ vectors / np.sqrt(np.maximum(values, 1e-12))
    real = values > 1e-10 * max(values[0], 1e-30)
    share = np.mean([np.arange(most) < number for number in wanted], axis=0)
    return Components(np.ascontiguousarray(vectors * real), share)


def check_components(numbers: int | Sequence[int] | None) -> tuple[int, ...]:
    """Return numbers of components as a tuple, () for None; raise ValueError for one below 1."""
    if numbers is None:
        return ()
    several = tuple(numbers) if isinstance(numbers, Sequence) and not isinstance(numbers, str) else (numbers,)
    for number in several:
        check_positive(number, name="expression_components")
        if number != int(number):
            msg = f"`expression_components` must be a whole number, or several of them, found {numbers!r}."
            raise TypeError(msg)
    return tuple(int(number) for number in several)


def centered_by(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return (n, n_columns) less the mean of each row's group, float64."""
    names, group = np.unique(groups, return_inverse=True)
    means = np.stack([values[group == i].mean(axis=0, dtype=np.float64) for i in range(len(names))])
    return np.asarray(values - means[group])
