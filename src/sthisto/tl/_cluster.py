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
from sthisto._sdata.write import apply, check_slot, obs_updates
from sthisto._utils.arguments import checked
from sthisto._utils.checks import choice

if TYPE_CHECKING:
    from spatialdata import SpatialData


@checked(method=choice("leiden", "kmeans"))
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
    sections = read_sections(sdata, ElementKeys(image_key, shapes_key, table_key, coordinate_system))
    for section in sections:
        check_slot(section.table, "obs", key_added)
    names = [_names(section, layer, method, n_clusters, seed) for section in sections]
    apply(obs_updates(sections, key_added, names))


def _names(
    section: Section, layer: str | None, method: Literal["leiden", "kmeans"], n_clusters: int | None, seed: int
) -> np.ndarray:
    values = _values(section, layer)
    try:
        number = metrics.cluster(values, n_clusters, method=method, seed=seed)
    except ValueError as error:
        msg = f"Section {section.name!r} cannot be clustered by {'X' if layer is None else f'layer {layer!r}'}: {error}"
        raise ValueError(msg) from error
    return np.array([None if label < 0 else str(label) for label in number], dtype=object)


def _values(section: Section, layer: str | None) -> np.ndarray:
    matrix = read_rows(section, layer)
    if not np.isfinite(matrix.data).all():
        return np.asarray(matrix.toarray())
    empty = np.asarray(abs(matrix).sum(axis=1)).ravel() == 0
    values = Normalization("log1p" if looks_like_counts(matrix) else "as_is", layer)(matrix)
    values[empty] = np.nan
    return values
