"""Leiden communities of a nearest neighbor graph, at a resolution or with a number of communities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from sklearn.neighbors import kneighbors_graph

from sthisto._utils.validate import check_positive

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_SEARCH_STEPS = 40


def leiden(
    components: NDArray[np.floating], n_clusters: int | None, *, n_neighbors: int, resolution: float, seed: int
) -> NDArray[np.intp]:
    """Return the community of each spot, (n_spots,), given (n_spots, n_components) principal components."""
    check_positive(resolution, name="resolution")
    graph = _neighbor_graph(components, n_neighbors)
    if n_clusters is None:
        return _communities(graph, resolution, seed)
    return search_resolution(lambda at: _communities(graph, at, seed), n_clusters, resolution=resolution)


def _neighbor_graph(components: NDArray[np.floating], n_neighbors: int) -> Any:
    """Weight neighbors in (n_spots, n_components) by the Jaccard index of their neighborhoods, themselves included."""
    try:
        import igraph
    except ImportError as error:
        msg = 'method="leiden" needs igraph and leidenalg: pip install igraph leidenalg'
        raise ImportError(msg) from error
    n_spots = len(components)
    k = min(n_neighbors, n_spots - 1)
    neighbors = (kneighbors_graph(components, k) + sp.identity(n_spots)).tocsr()
    linked = sp.triu(neighbors.maximum(neighbors.T), k=1).tocoo()
    shared = np.asarray(neighbors[linked.row].multiply(neighbors[linked.col]).sum(axis=1)).ravel()
    weights = shared / (2 * (k + 1) - shared)
    return igraph.Graph(n=n_spots, edges=np.column_stack([linked.row, linked.col]), edge_attrs={"weight": weights})


def _communities(graph: Any, resolution: float, seed: int) -> NDArray[np.intp]:
    try:
        import leidenalg
    except ImportError as error:
        msg = 'method="leiden" needs leidenalg: pip install leidenalg'
        raise ImportError(msg) from error
    partition = leidenalg.find_partition(
        graph,
        leidenalg.RBConfigurationVertexPartition,
        weights="weight",
        resolution_parameter=resolution,
        n_iterations=-1,
        seed=seed,
    )
    return np.asarray(partition.membership, dtype=np.intp)


def search_resolution(
    communities: Callable[[float], NDArray[np.intp]], n_clusters: int, *, resolution: float = 1.0
) -> NDArray[np.intp]:
    """Bisect the logarithm of the resolution until the number of communities is `n_clusters`.

    Parameters
    ----------
    communities
        Function of a resolution that returns communities numbered from 0, (n_spots,).
    n_clusters
        Number of communities that is wanted.
    resolution
        Where the search begins.

    Returns
    -------
    (n_spots,) communities from 0 to `n_clusters` - 1.

    Raises
    ------
    ValueError
        No resolution gives that number.
    """
    low, high, reached = None, None, set()
    for _ in range(_SEARCH_STEPS):
        labels = communities(resolution)
        found = int(labels.max()) + 1
        if found == n_clusters:
            return labels
        reached.add(found)
        if found < n_clusters:
            low = resolution
        else:
            high = resolution
        resolution = resolution * 2 if high is None else resolution / 2 if low is None else float(np.sqrt(low * high))
    msg = (
        f"Leiden found no resolution with {n_clusters} clusters; it found {sorted(reached)}. "
        'Ask for one of these, or use method="kmeans".'
    )
    raise ValueError(msg)
