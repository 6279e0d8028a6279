"""Kernel ridge regression of many spots, by their kernels with a few of them: Nyström's approximation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from sthisto.models.blocks import BlockLayout
from sthisto.models.kernels import KernelFit, KernelName, block_kernel, scales
from sthisto.models.low_rank import Components

EXACT_SPOTS: Final = 20_000
"""Training spots above which only `N_LANDMARKS` of them are kept."""
N_LANDMARKS: Final = 3_000
_ROWS_AT_ONCE: Final = 4_096
_MOST_FOLDS: Final = 5
_JITTER: Final = 1e-7


@dataclass(frozen=True)
class LandmarkFit:
    """What kernel ridge learned by landmarks.

    Attributes
    ----------
    targets
        For each target, coefficients (n_landmarks, n_components) and the scores of spots left out with their fold.
    fitted
        For each target, (n_spots, n_components) scores of the training spots.
    row_mean
        (n_landmarks,) mean kernel of the training spots with each landmark.
    """

    targets: list[KernelFit]
    fitted: list[np.ndarray]
    row_mean: np.ndarray


def choose_landmarks(n_spots: int, seed: int) -> np.ndarray:
    """Return the rows, (n,) ascending, of the training spots that are kept: all of them up to `EXACT_SPOTS`."""
    if n_spots <= EXACT_SPOTS:
        return np.arange(n_spots)
    return np.sort(np.random.default_rng(seed).choice(n_spots, min(N_LANDMARKS, n_spots), replace=False))


def fit_landmarks(
    x: np.ndarray,
    kept: np.ndarray,
    layout: BlockLayout,
    kind: KernelName,
    targets: Sequence[np.ndarray],
    components: Sequence[Components],
    *,
    alphas: Sequence[float],
    groups: np.ndarray,
    folds: np.ndarray,
) -> LandmarkFit:
    """Fit as `fit_kernel` does, with the kernel replaced by its projection on landmarks.

    Memory is bounded by a few matrices of the landmarks' kernel; the kernel with all spots is made in parts, three
    times.

    Parameters
    ----------
    x
        (n, n_features) standardized features of the training spots.
    kept
        (n_landmarks,) rows of `x` that are landmarks.
    layout, kind
        Of the kernel.
    targets, components, alphas
        As for `fit_kernel`.
    groups
        (n,) section of each spot, by which the kernel is centered.
    folds
        (n,) which spots are left out together; brought to at most five folds.

    Notes
    -----
    With C the kernel of all spots with the landmarks, centered by section, and W that of the landmarks, coefficients
    are (CᵀC + α t W)⁻¹ Cᵀ Y, t being the trace of C W⁻¹ Cᵀ: ridge regression on the features of
    `sklearn.kernel_approximation.Nystroem`.
    """
    wanted = np.concatenate([target @ one.vectors for target, one in zip(targets, components, strict=True)], axis=1)
    ends = np.cumsum([one.vectors.shape[1] for one in components])[:-1]
    folds = np.unique(folds, return_inverse=True)[1] % _MOST_FOLDS
    landmarks = x[kept]
    means = np.zeros((groups.max() + 1, len(kept)))
    for rows, part in _parts(x, landmarks, layout, kind):
        np.add.at(means, groups[rows], part)
    sizes = np.bincount(groups)
    row_mean = means.sum(axis=0) / len(x)
    means /= np.maximum(sizes, 1)[:, None]
    gram = np.zeros((folds.max() + 1, len(kept), len(kept)))
    cross = np.zeros((folds.max() + 1, len(kept), wanted.shape[1]))
    for rows, part in _parts(x, landmarks, layout, kind):
        part = part - means[groups[rows]]
        for fold in np.unique(folds[rows]):
            own = folds[rows] == fold
            gram[fold] += part[own].T @ part[own]
            cross[fold] += part[own].T @ wanted[rows][own]
    inner = block_kernel(landmarks, landmarks, layout, kind).astype(np.float64)
    inner[np.diag_indices_from(inner)] += _JITTER * np.trace(inner)
    trace = float(np.trace(cho_solve(cho_factor(inner, lower=True), gram.sum(axis=0))))
    solutions = [_solutions(gram, cross, inner, alpha * trace) for alpha in alphas]
    fitted = np.zeros((len(alphas), *wanted.shape))
    left_out = np.zeros_like(fitted)
    for rows, part in _parts(x, landmarks, layout, kind):
        part = part - means[groups[rows]]
        for i, (whole, others) in enumerate(solutions):
            fitted[i, rows] = part @ whole
            for fold in np.unique(folds[rows]):
                own = np.flatnonzero(folds[rows] == fold)
                left_out[i, np.arange(rows.start, rows.stop)[own]] = part[own] @ others[fold]
    n_genes = [target.shape[1] for target in targets]
    weights = [scales(one, components, ends, n_genes) / len(alphas) for one in fitted]
    coefficients = np.sum([w * whole for w, (whole, _) in zip(weights, solutions, strict=True)], axis=0)
    total, outside = (np.einsum("aij,aj->ij", one, np.stack(weights)) for one in (fitted, left_out))
    split = [np.split(one, ends, axis=1) for one in (coefficients, outside, total)]
    return LandmarkFit([KernelFit(a, b) for a, b in zip(split[0], split[1], strict=True)], split[2], row_mean)


def _solutions(
    gram: np.ndarray, cross: np.ndarray, inner: np.ndarray, strength: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return coefficients of all spots, and of those outside each fold, (n_landmarks, n_components) each."""
    every, products = gram.sum(axis=0), cross.sum(axis=0)

    def solve(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.asarray(cho_solve(cho_factor(left + strength * inner, lower=True), right))

    return solve(every, products), [solve(every - g, products - c) for g, c in zip(gram, cross, strict=True)]


def _parts(
    x: np.ndarray, landmarks: np.ndarray, layout: BlockLayout, kind: KernelName
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows and their kernel with the landmarks, (n_rows, n_landmarks) float64."""
    for start in range(0, len(x), _ROWS_AT_ONCE):
        rows = slice(start, min(start + _ROWS_AT_ONCE, len(x)))
        yield rows, block_kernel(x[rows], landmarks, layout, kind).astype(np.float64)
