"""Cluster spots by measured or predicted expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from sthisto import metrics
from sthisto._sdata.expression import Normalization, looks_like_counts
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.slots import CLUSTER
from sthisto._sdata.tables import read_rows
from sthisto._sdata.write import apply, obs_updates
from sthisto._utils.validate import check_choice, check_new_name
from sthisto.metrics._arrays import predicted_part
from sthisto.metrics._leiden import search_resolution

if TYPE_CHECKING:
    from spatialdata import SpatialData

_N_COMPONENTS, _N_NEIGHBORS = 50, 15
"""scanpy's defaults; fewer where a section has fewer spots or genes."""


def cluster(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    layer: str | None = None,
    method: Literal["leiden", "kmeans"] = "leiden",
    n_clusters: int | None = None,
    seed: int = 0,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    key_added: str = CLUSTER,
) -> None:
    """Cluster the spots of each section by the principal components of their expression.

    "leiden" is scanpy's: `scanpy.pp.pca`, `scanpy.pp.neighbors` and `scanpy.tl.leiden` with their defaults, iterated
    until the partition no longer improves.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    layer
        Layer to cluster; "sthisto_pred" clusters a prediction, over the predicted genes. None: X. Raw counts are
        normalized first (library size 1e4, log1p).
    method
        "leiden", or "kmeans", which needs `n_clusters`.
    n_clusters
        Number of clusters; for Leiden, the resolution is searched until it gives that number. None: Leiden at
        resolution 1.
    seed
        Seed of the clustering.
    image_key
        H&E image, or a mapping from region to image; spots outside their image are left out. None: inferred if there is
        exactly one candidate; of several RGB images of one place, the finest.
    shapes_key
        Region or regions to use, shapes or labels. None: all regions that the table annotates.
    table_key
        Table that annotates the regions. None: inferred if there is exactly one.
    coordinate_system
        Coordinate system in which images and regions are aligned. None: inferred from those that both share.
    key_added
        Column that is written.

    Returns
    -------
    None. Writes ``obs[key_added]``, categorical; missing for spots without expression. Each section is clustered
    separately: equal names in two sections do not mean equal clusters.

    Raises
    ------
    KeyError
        An element or the layer is missing.
    ValueError
        "kmeans" without `n_clusters`, a section has fewer than two spots or two genes with expression, or an element is
        ambiguous.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=1, n_patients=1)
    >>> sth.tl.cluster(sdata, method="kmeans", n_clusters=4)
    """
    check_new_name(key_added, name="key_added")
    check_choice(method, ("leiden", "kmeans"), name="method")
    sections = read_sections(sdata, ElementKeys(image_key, shapes_key, table_key, coordinate_system))
    names = [_names(section, layer, method, n_clusters, seed) for section in sections]
    apply(obs_updates(sections, key_added, names))


def _names(
    section: Section, layer: str | None, method: Literal["leiden", "kmeans"], n_clusters: int | None, seed: int
) -> np.ndarray:
    """Return the name of each spot's cluster, (n_spots,), None for spots without expression."""
    values = _values(section, layer)
    try:
        if method == "leiden":
            number = _leiden(values, n_clusters, seed)
        else:
            number = metrics.cluster(values, n_clusters, method=method, seed=seed)
    except ValueError as error:
        msg = f"Section {section.name!r} cannot be clustered by {'X' if layer is None else f'layer {layer!r}'}: {error}"
        raise ValueError(msg) from error
    return np.array([None if label < 0 else str(label) for label in number], dtype=object)


def _leiden(values: np.ndarray, n_clusters: int | None, seed: int) -> np.ndarray:
    """Cluster (n_spots, n_genes) values by scanpy's components, neighbors and Leiden; -1 for spots with NaN."""
    import scanpy as sc
    from anndata import AnnData

    spots, genes = predicted_part(values)
    table = AnnData(values[np.ix_(spots, genes)])
    smallest = min(table.shape)
    if smallest < 2:
        msg = f"Clustering needs at least two predicted spots and two predicted genes, found {table.shape}."
        raise ValueError(msg)
    sc.pp.pca(table, n_comps=min(_N_COMPONENTS, smallest - 1), svd_solver="arpack", random_state=seed)
    sc.pp.neighbors(table, n_neighbors=min(_N_NEIGHBORS, table.n_obs), random_state=seed)

    def communities(resolution: float) -> np.ndarray:
        sc.tl.leiden(table, resolution, flavor="igraph", n_iterations=-1, directed=False, random_state=seed)
        return table.obs["leiden"].astype(int).to_numpy()

    clusters = np.full(len(values), -1)
    clusters[spots] = communities(1.0) if n_clusters is None else search_resolution(communities, n_clusters)
    return clusters


def _values(section: Section, layer: str | None) -> np.ndarray:
    """Return what is clustered, (n_spots, n_genes), NaN where nothing was measured or predicted."""
    matrix = read_rows(section, layer)
    if not np.isfinite(matrix.data).all():
        return np.asarray(matrix.toarray())
    empty = np.asarray(abs(matrix).sum(axis=1)).ravel() == 0
    values = Normalization("log1p" if looks_like_counts(matrix) else "as_is", layer)(matrix)
    values[empty] = np.nan
    return values
