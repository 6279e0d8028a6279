"""What the other genes of the same spots tell about a gene: a reference for scores of predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import issparse

from sthisto._utils.arguments import checked
from sthisto._utils.checks import is_list, shown
from sthisto._utils.validate import check_positive
from sthisto.metrics._arrays import check_matrix
from sthisto.metrics._pearson import pearson

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_CANDIDATES = (1, 2, 3, 5, 8, 12, 16, 20, 30)
MOST_SPOTS = 20_000
"""Training spots beyond which a random sample of them fits the components: these change little with more."""


@dataclass(frozen=True, eq=False)
class SiblingReference:
    """Components of the training residuals, through which the genes of a spot predict each other.

    Attributes
    ----------
    components
        (n_genes, n_components) orthonormal principal components of the training residuals, the largest first.
    """

    components: NDArray[np.float64]

    @classmethod
    @checked()
    def fit(
        cls,
        training: Sequence[ArrayLike],
        *,
        n_components: int | None = None,
        n_folds: int = 10,
        seed: int = 0,
    ) -> SiblingReference:
        """Find the components on training sections alone.

        Parameters
        ----------
        training
            Pearson residuals of each training section, (n_spots, n_genes); spots with NaN are left out. Each section is
            centered.
        n_components
            Number of components; None chooses the one with the highest sibling score on training sections that are
            held out in turn, or on two halves of the spots where there is one section.
        n_folds
            Parts that the genes are dealt to, as in `sibling_score`.
        seed
            Seed of the parts, and of the sample of spots where there are more than 20,000.

        Returns
        -------
        The reference. Without two spots or two genes it has no component.

        Raises
        ------
        ValueError
            There is no section, one is no matrix, or they differ in their number of genes.
        TypeError
            `training` is no list, or holds something else than numbers.

        Examples
        --------
        >>> import numpy as np
        >>> from sthisto import metrics
        >>> rng = np.random.default_rng(0)
        >>> sections = [rng.normal(size=(50, 1)) + rng.normal(size=(50, 20)) for _ in range(2)]
        >>> metrics.SiblingReference.fit(sections).components.shape
        (20, 1)
        """
        if issparse(training) or (not is_list(training) and getattr(training, "ndim", 0) < 1):
            msg = f"`training` must be a list of matrices, one for each section, found {shown(training)}."
            raise TypeError(msg)
        sections = _sample([_centered(_as_matrix(one, name="training")) for one in training], seed)
        if not sections:
            msg = "`training` is empty; pass the residuals of at least one training section."
            raise ValueError(msg)
        n_genes = {one.shape[1] for one in sections}
        if len(n_genes) > 1:
            msg = f"`training` has sections of {sorted(n_genes)} genes; all must have the same genes."
            raise ValueError(msg)
        if n_components is not None:
            check_positive(n_components, name="n_components")
            return cls(_components(sections, n_components))
        parts = sections if len(sections) > 1 else _halves(sections[0], seed)
        scores = np.zeros(len(_CANDIDATES))
        for i, held_out in enumerate(parts):
            found = _components([one for j, one in enumerate(parts) if j != i], max(_CANDIDATES))
            scores += [_mean(cls(found[:, :k])._score(held_out, n_folds, seed)) for k in _CANDIDATES]
        return cls(_components(sections, _CANDIDATES[int(np.argmax(scores))]))

    @checked()
    def predict(self, residuals: ArrayLike, *, n_folds: int = 10, seed: int = 0) -> NDArray[np.float64]:
        """Predict each gene from the other genes of the same spots.

        The genes are dealt to `n_folds` parts at random. For each part, the spot's scores on the components are
        estimated from the genes of the other parts alone, by least squares.

        Parameters
        ----------
        residuals
            (n_spots, n_genes) measured Pearson residuals of one section.
        n_folds
            Number of parts; 10 uses 90 % of the other genes.
        seed
            Seed of the parts.

        Returns
        -------
        (n_spots, n_genes) predicted residuals, centered; NaN for spots with NaN.

        Raises
        ------
        ValueError
            The genes are not those of the reference.
        """
        measured = self._check_genes(residuals)
        complete = np.isfinite(measured).all(axis=1)
        predicted = np.full(measured.shape, np.nan)
        centered = _centered(measured)
        filled = np.zeros(centered.shape)
        for part in _parts(measured.shape[1], n_folds, seed):
            others = np.setdiff1d(np.arange(measured.shape[1]), part)
            scores = np.linalg.lstsq(self.components[others], centered[:, others].T, rcond=None)[0]
            filled[:, part] = (self.components[part] @ scores).T
        predicted[complete] = filled
        return predicted

    def _check_genes(self, residuals: ArrayLike) -> NDArray[np.float64]:
        measured, n_genes = _as_matrix(residuals, name="residuals"), len(self.components)
        if measured.shape[1] != n_genes:
            msg = f"`residuals` has {measured.shape[1]} genes, the reference {n_genes}; pass the same genes."
            raise ValueError(msg)
        return measured

    def _score(self, residuals: NDArray[np.float64], n_folds: int, seed: int) -> NDArray[np.float64]:
        return pearson(residuals, self.predict(residuals, n_folds=n_folds, seed=seed))


@checked()
def sibling_score(
    residuals: ArrayLike,
    reference: SiblingReference | Sequence[ArrayLike],
    *,
    n_folds: int = 10,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Correlate each gene with what the *other* genes of the same spots predict of it.

    A prediction from an image can know the state of the tissue under a spot, and through it what genes have in common.
    This reference knows that state from the measured genes themselves: each gene is predicted from 90 % of the other
    genes of the spot, through principal components that were found on training sections. Noise that each gene has for
    itself, which `reproducibility` counts as signal, does not help it. It is informative but not a strict bound: an
    image may show more than a few noisy genes tell.

    Parameters
    ----------
    residuals
        (n_spots, n_genes) measured Pearson residuals of *one* test section.
    reference
        A fitted `SiblingReference`, or the residuals of the training sections to fit it on, (n_spots, n_genes) each.
    n_folds
        Parts that the genes are dealt to; the genes of a part are predicted from those of all other parts.
    seed
        Seed of the parts.

    Returns
    -------
    (n_genes,) Pearson correlation; NaN for a gene that is constant.

    Raises
    ------
    ValueError
        The genes are not those of the reference, or as for `SiblingReference.fit`.

    Notes
    -----
    Compare it with `residual_pearson` on the same spots and genes. Counts of a small panel whose totals are those of
    the panel alone compete with each other, which lowers it: pass residuals with the depth over all genes.

    Examples
    --------
    >>> import numpy as np
    >>> from sthisto import metrics
    >>> rng = np.random.default_rng(0)
    >>> train, test = (rng.normal(size=(200, 1)) + rng.normal(size=(200, 30)) for _ in range(2))
    >>> bool(metrics.sibling_score(test, [train]).mean() > 0.6)
    True
    """
    fitted = reference if isinstance(reference, SiblingReference) else SiblingReference.fit(reference, seed=seed)
    return fitted._score(fitted._check_genes(residuals), n_folds, seed)


def _as_matrix(values: ArrayLike, *, name: str) -> NDArray[np.float64]:
    """Return (n_spots, n_genes) numbers as a dense array."""
    matrix = check_matrix(values, name=name)
    return np.asarray(matrix.toarray() if issparse(matrix) else matrix, dtype=np.float64)


def _centered(residuals: ArrayLike) -> NDArray[np.float64]:
    """Return the spots without NaN, (n_spots, n_genes), minus their mean."""
    values = np.asarray(residuals, dtype=np.float64)
    values = values[np.isfinite(values).all(axis=1)]
    return values - values.mean(axis=0) if len(values) else values


def _sample(sections: Sequence[NDArray[np.float64]], seed: int) -> list[NDArray[np.float64]]:
    """Return the (n_spots, n_genes) sections with two spots or more, thinned alike if too many; without any, all."""
    used = [one for one in sections if len(one) > 1]
    rows = sample_rows([len(one) for one in used], seed)
    return [one[kept] for one, kept in zip(used, rows, strict=True)] or list(sections)


def sample_rows(n_spots: Sequence[int], seed: int) -> list[NDArray[np.int64]]:
    """Return the spots of each section, (n,), that fit the components: all, or of too many a like share of each.

    Parameters
    ----------
    n_spots
        Number of spots of each section.
    seed
        Seed of the sample.
    """
    share = MOST_SPOTS / max(sum(n_spots), 1)
    if share >= 1:
        return [np.arange(n) for n in n_spots]
    rng = np.random.default_rng(seed)
    return [np.sort(rng.permutation(n)[: max(int(share * n), 2)]) for n in n_spots]


def _halves(section: NDArray[np.float64], seed: int) -> list[NDArray[np.float64]]:
    order = np.random.default_rng(seed).permutation(len(section))
    return [_centered(section[np.sort(half)]) for half in np.array_split(order, 2)]


def _components(sections: Sequence[NDArray[np.float64]], n_components: int) -> NDArray[np.float64]:
    """Return the eigenvectors of the genes' covariance with the largest eigenvalues, (n_genes, n_components)."""
    n_spots, n_genes = sum(map(len, sections)), sections[0].shape[1]
    n = min(n_components, n_spots - 1, n_genes - 1)
    if n < 1:
        return np.zeros((n_genes, 0))
    covariance = sum((one.T @ one for one in sections), np.zeros((n_genes, n_genes)))
    _, components = eigh(covariance, subset_by_index=(n_genes - n, n_genes - 1))
    return np.ascontiguousarray(components[:, ::-1])


def _parts(n_genes: int, n_folds: int, seed: int) -> Iterator[NDArray[np.int64]]:
    check_positive(n_folds, name="n_folds")
    order = np.random.default_rng(seed).permutation(n_genes)
    return (order[i::n_folds] for i in range(min(n_folds, n_genes)))


def _mean(scores: NDArray[np.float64]) -> float:
    """Average over the genes, (n_genes,), that have a score, 0 without any."""
    known = scores[np.isfinite(scores)]
    return float(known.mean()) if len(known) else 0.0
