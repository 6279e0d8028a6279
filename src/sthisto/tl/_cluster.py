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

if TYPE_CHECKING:
    from spatialdata import SpatialData


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
    """Cluster the spots of each section on the principal components of their expression.

    Parameters
    ----------
    sdata
        One SpatialData or a list of them.
    layer
        "sthisto_pred" clusters a prediction, over the genes that were predicted; None is X. Raw counts are normalized
        first (library size to 1e4, log1p).
    method
        "leiden", or "kmeans", which needs `n_clusters`.
    n_clusters
        Number of clusters; Leiden's resolution is searched until it finds as many. None is Leiden at resolution 1.
    seed
        Of the clustering.
    image_key, shapes_key, table_key, coordinate_system
        As for `tl.fit`; the image is not looked at, but spots outside it are left out.
    key_added
        Column that is written.

    Returns
    -------
    None. Writes ``obs[key_added]``, categorical; missing for spots without expression. Each section is clustered
    by itself: a cluster's name means nothing in another one.

    Raises
    ------
    KeyError
        There is no such layer.
    ValueError
        "kmeans" without `n_clusters`, or a section has fewer than two spots or two genes with expression.

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
