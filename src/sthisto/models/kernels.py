"""Kernel ridge regression on blocks of features, centered by section, its strengths averaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, Literal

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from sthisto._utils.duration import in_words
from sthisto._utils.logging import logger
from sthisto.models.blocks import BlockLayout
from sthisto.models.low_rank import Components

KernelName = Literal["rbf", "linear"]
_EIGEN_SPOTS: Final = 3000
_FLOAT64_ENTRIES: Final = 10_000_000
_MATRICES: Final = 6
"""Matrices as large as the kernel that are in memory at once while it is inverted for several strengths."""
_TIMED_SPOTS: Final = 4096
"""Spots whose kernel is inverted to tell how long that of all takes."""
_TOLD_SECONDS: Final = 60.0
_TINY: Final = 1e-12


def inversion_bytes(n_spots: int) -> int:
    """Return about how many bytes it takes to make the kernel between so many spots and to fit it."""
    return _MATRICES * n_spots**2 * _dtype(n_spots**2)().itemsize


def _dtype(n_entries: int) -> type[Any]:
    return np.float64 if n_entries <= _FLOAT64_ENTRIES else np.float32


def block_kernel(one: np.ndarray, other: np.ndarray, layout: BlockLayout, kind: KernelName) -> np.ndarray:
    """Return the weighted mean over blocks of a kernel between standardized features.

    Parameters
    ----------
    one, other
        (n, n_features) and (m, n_features).
    kind
        "rbf" is exp(-|a - b|² / 2) in each block, "linear" the inner product.

    Returns
    -------
    (n, m) float64; float32 above ten million entries.
    """
    dtype = _dtype(len(one) * len(other))
    total = np.zeros((len(one), len(other)), dtype=dtype)
    for columns, weight in zip(layout.slices(), layout.weights, strict=True):
        a: Any = one[:, columns].astype(dtype)
        b: Any = other[:, columns].astype(dtype)
        product = a @ b.T
        if kind == "rbf":
            product *= 2
            product -= np.square(a).sum(axis=1)[:, None]
            product -= np.square(b).sum(axis=1)[None]
            product = np.exp(np.minimum(product, 0, out=product) / 2, out=product)
        total += weight * product
    return total


def center_columns(kernel: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Subtract the mean over the columns of each group, (m,), from every row of a kernel, (n, m), in place."""
    for group in np.unique(groups):
        columns = groups == group
        kernel[:, columns] -= kernel[:, columns].mean(axis=1, keepdims=True)
    return kernel


@dataclass(frozen=True)
class KernelFit:
    """What kernel ridge learned for one target.

    Attributes
    ----------
    coefficients
        (n_spots, n_components) float64: a spot's kernel with the training spots times these are its scores.
    scores
        (n_spots, n_components) scores of the training spots when the rest of their own fold, and they, are left out.
    """

    coefficients: np.ndarray
    scores: np.ndarray


def fit_kernel(
    kernel: np.ndarray,
    targets: Sequence[np.ndarray],
    components: Sequence[Components],
    *,
    alphas: Sequence[float],
    folds: np.ndarray,
) -> list[KernelFit]:
    """Fit every target for every strength and number of components, and average the predictions.

    Parameters
    ----------
    kernel
        (n, n), centered by section.
    targets
        (n, n_genes) each, centered by section.
    components
        Numbers of components to project each target on.
    alphas
        Strengths, times the trace of the kernel.
    folds
        (n,) which spots are left out together for `scores`.

    Notes
    -----
    Each strength's prediction of the components is divided by its root mean square over the training spots, for each
    number of components, before the average. With A the inverse of the regularized kernel and C = A Y, the prediction
    of fold f without it is Y_f - A_ff⁻¹ C_f.
    """
    wanted = np.concatenate([target @ one.vectors for target, one in zip(targets, components, strict=True)], axis=1)
    ends = np.cumsum([one.vectors.shape[1] for one in components])[:-1]
    n_genes = [target.shape[1] for target in targets]
    coefficients, left_out = np.zeros_like(wanted), np.zeros_like(wanted)
    for strength, inverse in _inverses(kernel, alphas):
        solved = inverse @ wanted
        held = _left_out(inverse, wanted, solved, folds)
        scale = scales(wanted - strength * solved, components, ends, n_genes)
        coefficients += solved * scale / len(alphas)
        left_out += held * scale / len(alphas)
    return [
        KernelFit(a, b)
        for a, b in zip(np.split(coefficients, ends, axis=1), np.split(left_out, ends, axis=1), strict=True)
    ]


def scales(
    fitted: np.ndarray, components: Sequence[Components], ends: np.ndarray, n_genes: Sequence[int]
) -> np.ndarray:
    """Return what fitted scores are multiplied with before strengths are averaged.

    Parameters
    ----------
    fitted
        (n, n_scores) of the components of all targets, side by side.
    ends
        (n_targets - 1,) where the scores of one target end and those of the next begin.
    n_genes
        Of each target.

    Returns
    -------
    (n_scores,).
    """
    parts = np.split(fitted, ends, axis=1)
    return np.concatenate([_scale(part, one, n) for part, one, n in zip(parts, components, n_genes, strict=True)])


def _scale(fitted: np.ndarray, components: Components, n_genes: int) -> np.ndarray:
    """Return (n_components,) what the average over the numbers of components multiplies each component with."""
    power = np.square(fitted).mean(axis=0)
    changes = np.flatnonzero(np.diff(components.share, append=0.0))
    factor = np.zeros(len(power))
    for last in changes:  # the number of components is last + 1
        weight = components.share[last] - (components.share[last + 1] if last + 1 < len(power) else 0.0)
        factor[: last + 1] += weight / np.sqrt(max(power[: last + 1].sum() / n_genes, _TINY))
    return factor


def _inverses(kernel: np.ndarray, alphas: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
    """Yield each strength and the inverse, (n, n), of the kernel plus it on the diagonal."""
    trace = max(float(np.trace(kernel)), _TINY)
    if len(kernel) <= _EIGEN_SPOTS:
        values, vectors = eigh(kernel)
        values = np.maximum(values, 0)
        for alpha in alphas:
            yield alpha * trace, (vectors / (values + alpha * trace)) @ vectors.T
        return
    _tell_time(kernel, alphas[0] * trace, len(alphas))
    for alpha in alphas:
        yield alpha * trace, _inverse(kernel, alpha * trace)


def _inverse(kernel: np.ndarray, strength: float) -> np.ndarray:
    """Return the inverse, (n, n), of a kernel plus a strength on the diagonal."""
    identity = np.eye(len(kernel), dtype=kernel.dtype)
    factor = cho_factor(kernel + strength * identity, lower=True, overwrite_a=True)
    return cho_solve(factor, identity)


def _tell_time(kernel: np.ndarray, strength: float, n_strengths: int) -> None:
    """Say about how long inverting an (n, n) kernel takes, where it is a minute or more, by a part of it.

    The work grows with the cube of n. Where it is little by that, no part is timed.
    """
    if len(kernel) < 2 * _TIMED_SPOTS:
        return
    start = perf_counter()
    _inverse(kernel[:_TIMED_SPOTS, :_TIMED_SPOTS], strength)
    seconds = (perf_counter() - start) * (len(kernel) / _TIMED_SPOTS) ** 3 * n_strengths
    if seconds >= _TOLD_SECONDS:
        logger.info(
            "Inverting the kernel between %d training spots for %d strengths takes about %s on this machine.",
            len(kernel),
            n_strengths,
            in_words(seconds),
        )


def _left_out(inverse: np.ndarray, wanted: np.ndarray, solved: np.ndarray, folds: np.ndarray) -> np.ndarray:
    held = np.empty_like(wanted)
    for fold in np.unique(folds):
        rows = folds == fold
        held[rows] = wanted[rows] - np.linalg.solve(inverse[np.ix_(rows, rows)], solved[rows])
    return held
