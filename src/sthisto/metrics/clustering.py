"""Clusters of predicted expression, and how far they agree with labels that somebody else gave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, homogeneity_score, normalized_mutual_info_score

from sthisto._utils.arguments import checked
from sthisto._utils.checks import choice, is_list, label, list_of
from sthisto._utils.validate import check_choice
from sthisto.metrics._arrays import check_matrix, check_spotwise, predicted_part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from sthisto.metrics._arrays import Matrix

Method = Literal["kmeans", "leiden"]
_LARGEST = 1e30
"""Beyond it, squares leave the range of single precision or their sums that of double."""
_METHOD = choice("kmeans", "leiden")
_LABELS = label | list_of(label, "a list of labels", least=0)


@checked(method=_METHOD)
def cluster(
    prediction: Matrix,
    n_clusters: int | None = None,
    *,
    method: Method = "kmeans",
    n_components: int = 50,
    n_neighbors: int = 15,
    resolution: float = 1.0,
    seed: int = 0,
) -> NDArray[np.intp]:
    """Group spots by the principal components of their expression.

    Parameters
    ----------
    prediction
        (n_spots, n_genes) expression, measured or predicted, dense or sparse. Genes that are NaN throughout and
        spots with NaN in any other gene are left out.
    n_clusters
        How many clusters. None leaves the number to Leiden at `resolution`; with a number, Leiden's resolution is
        searched for it and `resolution` is where the search begins.
    method
        "kmeans" (k-means++, ten starts) or "leiden" (on a graph of `n_neighbors` nearest neighbors, weighted by the
        Jaccard index of their neighborhoods).
    n_components
        Most principal components; fewer spots or genes allow one less than the smaller of the two, as in scanpy.
    n_neighbors, resolution
        For Leiden only.
    seed
        Seed of the principal components, of k-means and of Leiden.

    Returns
    -------
    (n_spots,) cluster numbers from 0, -1 for spots that were left out.

    Raises
    ------
    ValueError
        k-means without a number of clusters, more clusters than spots, fewer than two genes or spots, or a number of
        clusters that Leiden does not reach at any resolution.
    ImportError
        Leiden without leidenalg and igraph.

    References
    ----------
    Leiden: Traag et al., Scientific Reports 2019, doi:10.1038/s41598-019-41695-z. Jaccard weights: Levine et al., Cell
    2015, doi:10.1016/j.cell.2015.05.047.

    Examples
    --------
    >>> import numpy as np
    >>> from sthisto import metrics
    >>> x = np.repeat([[0.0, 5.0, 1.0], [9.0, 1.0, 2.0]], 4, axis=0) + np.eye(8, 3)
    >>> labels = metrics.cluster(x, 2)
    >>> len(set(labels[:4])), len(set(labels[4:])), labels[0] != labels[4]
    (1, 1, np.True_)
    """
    check_choice(method, ("kmeans", "leiden"), name="method")
    matrix = check_matrix(prediction, name="prediction")
    x = matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
    spots, genes = predicted_part(x)
    components = _principal_components(x[np.ix_(spots, genes)], n_components, seed)
    if method == "leiden":
        from sthisto.metrics._leiden import leiden

        labels = leiden(components, n_clusters, n_neighbors=n_neighbors, resolution=resolution, seed=seed)
    else:
        labels = _kmeans(components, n_clusters, seed)
    clusters = np.full(len(x), -1, dtype=np.intp)
    clusters[spots] = labels
    return clusters


def _check_variation(x: NDArray[Any]) -> None:
    if not np.isfinite(x).all() or np.abs(x).max() > _LARGEST:
        msg = f"`prediction` must be finite and at most {_LARGEST:g}, or NaN where nothing was predicted."
        raise ValueError(msg)
    if (x == x[0]).all():
        msg = "`prediction` is the same at all spots, so there are no clusters to find."
        raise ValueError(msg)


def _principal_components(x: NDArray[Any], n_components: int, seed: int) -> NDArray[np.floating]:
    """Compute (n_spots, n_components) as scanpy does: `n_components`, or the smaller side less one if that is fewer."""
    smallest = min(x.shape)
    if smallest < 2:
        msg = f"Clustering needs at least two predicted spots and two predicted genes in `prediction`, found {x.shape}."
        raise ValueError(msg)
    _check_variation(x)
    x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
    components = n_components if n_components < smallest else smallest - 1
    return PCA(n_components=components, svd_solver="arpack", random_state=seed).fit_transform(x)


def _kmeans(components: NDArray[np.floating], n_clusters: int | None, seed: int) -> NDArray[np.intp]:
    if n_clusters is None or not 1 <= n_clusters <= len(components):
        msg = f"`n_clusters` for k-means must be between 1 and the {len(components)} spots, found {n_clusters!r}."
        raise ValueError(msg)
    return KMeans(n_clusters, init="k-means++", n_init=10, random_state=seed).fit_predict(components)


@checked(method=_METHOD, exclude=_LABELS)
def cluster_ari(
    prediction: Matrix,
    labels: ArrayLike,
    *,
    exclude: str | Sequence[str] | None = "undetermined",
    n_clusters: int | None = None,
    method: Method = "kmeans",
    seed: int = 0,
) -> float:
    """Compare clusters of the prediction with given labels by the adjusted Rand index.

    Parameters
    ----------
    prediction
        (n_spots, n_genes) expression, as for `cluster`.
    labels
        (n_spots,) a label for each spot; None and NaN are left out.
    exclude
        Labels whose spots are left out before the components are computed.
    n_clusters
        How many clusters; None is the number of labels that remain.
    method, seed
        Algorithm and its seed, see `cluster`.

    Returns
    -------
    1 for equal partitions, about 0 for unrelated ones.

    Raises
    ------
    ValueError
        For the same reasons as `cluster`, or fewer than two spots remain.

    Notes
    -----
    Taking the number of clusters from the labels uses the labels; it is the usual protocol, and it favors no method.
    The measured expression, clustered alike, is the scale to read it against.

    References
    ----------
    Hubert and Arabie, Journal of Classification 1985, doi:10.1007/BF01908075.

    Examples
    --------
    >>> import numpy as np
    >>> from sthisto import metrics
    >>> x = np.repeat([[0.0, 5.0, 1.0], [9.0, 1.0, 2.0]], 4, axis=0) + np.eye(8, 3)
    >>> metrics.cluster_ari(x, ["tumor"] * 4 + ["stroma"] * 3 + ["undetermined"])
    1.0
    """
    return _agreement(adjusted_rand_score, prediction, labels, exclude, n_clusters, method, seed)


@checked(method=_METHOD, exclude=_LABELS)
def cluster_nmi(
    prediction: Matrix,
    labels: ArrayLike,
    *,
    exclude: str | Sequence[str] | None = "undetermined",
    n_clusters: int | None = None,
    method: Method = "kmeans",
    seed: int = 0,
) -> float:
    """Compare clusters of the prediction with given labels by normalized mutual information.

    Parameters
    ----------
    prediction, labels, exclude, n_clusters, method, seed
        See `cluster_ari`.

    Returns
    -------
    A value between 0 and 1, and above 0 for unrelated partitions of few spots: it is not adjusted for chance, as
    `cluster_ari` is.

    Raises
    ------
    ValueError
        For the same reasons as `cluster_ari`.

    References
    ----------
    Vinh, Epps and Bailey, Journal of Machine Learning Research 2010, 11:2837-2854.

    Examples
    --------
    >>> import numpy as np
    >>> from sthisto import metrics
    >>> prediction = np.repeat([[0.0, 1.0, 2.0], [5.0, 0.0, 1.0]], 10, axis=0)
    >>> prediction += np.random.default_rng(0).normal(scale=0.1, size=prediction.shape)
    >>> metrics.cluster_nmi(prediction, ["tumor"] * 10 + ["stroma"] * 10)
    1.0
    """
    return _agreement(normalized_mutual_info_score, prediction, labels, exclude, n_clusters, method, seed)


@checked(method=_METHOD, exclude=_LABELS)
def cluster_homogeneity(
    prediction: Matrix,
    labels: ArrayLike,
    *,
    exclude: str | Sequence[str] | None = "undetermined",
    n_clusters: int | None = None,
    method: Method = "kmeans",
    seed: int = 0,
) -> float:
    """How far each cluster of the prediction holds spots of one label only.

    Parameters
    ----------
    prediction, labels, exclude, n_clusters, method, seed
        See `cluster_ari`.

    Returns
    -------
    A value between 0 and 1, not adjusted for chance, which grows with the number of clusters.

    Raises
    ------
    ValueError
        For the same reasons as `cluster_ari`.

    References
    ----------
    Rosenberg and Hirschberg, EMNLP-CoNLL 2007, pages 410-420.

    Examples
    --------
    >>> import numpy as np
    >>> from sthisto import metrics
    >>> prediction = np.repeat([[0.0, 1.0, 2.0], [5.0, 0.0, 1.0]], 10, axis=0)
    >>> prediction += np.random.default_rng(0).normal(scale=0.1, size=prediction.shape)
    >>> metrics.cluster_homogeneity(prediction, ["tumor"] * 10 + ["stroma"] * 10)
    1.0
    """
    return _agreement(homogeneity_score, prediction, labels, exclude, n_clusters, method, seed)


def _agreement(
    score: Callable[[Any, Any], float],
    prediction: Matrix,
    labels: ArrayLike,
    exclude: str | Sequence[str] | None,
    n_clusters: int | None,
    method: Method,
    seed: int,
) -> float:
    matrix = check_matrix(prediction, name="prediction")
    given = check_spotwise(np.asarray(labels, dtype=object), matrix.shape[0], name="labels")
    left_out = set() if exclude is None else {exclude} if not is_list(exclude) else set(exclude)
    labeled = np.array([not (pd.isna(v) or v in left_out) for v in given], dtype=bool)
    if labeled.sum() < 2:
        msg = f"Fewer than two spots have a label in `labels` once {sorted(map(str, left_out))} are excluded."
        raise ValueError(msg)
    _, codes = np.unique(given[labeled].astype(str), return_inverse=True)
    clusters = cluster(
        matrix[labeled], n_clusters if n_clusters is not None else codes.max() + 1, method=method, seed=seed
    )
    found = clusters >= 0
    return float(score(codes[found], clusters[found]))
