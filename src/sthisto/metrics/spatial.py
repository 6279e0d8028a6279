"""What depends on where the spots lie: neighbors, blocks, autocorrelation and local similarity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from sklearn.neighbors import kneighbors_graph, radius_neighbors_graph

from sthisto._utils.arguments import checked
from sthisto._utils.validate import check_positive
from sthisto.metrics._arrays import as_array, check_groups, check_matrix, check_pair, gene_blocks, paired_blocks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from sthisto.metrics._arrays import Matrix


@checked()
def spatial_graph(
    coordinates: ArrayLike,
    *,
    n_neighbors: int = 6,
    radius: float | None = None,
    section: ArrayLike | None = None,
) -> sp.csr_array:
    """Link spots that are neighbors in the tissue.

    Parameters
    ----------
    coordinates
        (n_spots, 2) centers, in px or µm.
    n_neighbors
        Nearest spots that each spot is linked to: 6 on Visium's hexagonal grid, 4 or 8 on a square one. A link holds in
        both directions, so that a spot may have more.
    radius
        Links all spots within this distance, in the unit of the coordinates, instead of a number of neighbors.
    section
        (n_spots,) section of each spot; spots of different sections are never linked.

    Returns
    -------
    (n_spots, n_spots) symmetric graph of ones without loops.

    Raises
    ------
    ValueError
        The coordinates are not finite or not (n_spots, 2), or a size is not positive.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.spatial_graph([[0, 0], [0, 1], [0, 2]], radius=1).toarray().astype(int)
    array([[0, 1, 0],
           [1, 0, 1],
           [0, 1, 0]])
    """
    centers = _check_coordinates(coordinates)
    check_positive(n_neighbors if radius is None else radius, name="n_neighbors" if radius is None else "radius")
    rows, columns, weights = ([np.empty(0, dtype)] for dtype in (np.intp, np.intp, float))
    for spots in _spots_of_sections(section, len(centers)):
        if len(spots) < 2:
            continue
        if radius is None:
            links = kneighbors_graph(centers[spots], min(n_neighbors, len(spots) - 1))
        else:
            links = radius_neighbors_graph(centers[spots], radius)
        mutual = sp.coo_array(links.maximum(links.T))
        rows.append(spots[mutual.row])
        columns.append(spots[mutual.col])
        weights.append(mutual.data)
    places = np.concatenate(rows), np.concatenate(columns)
    return sp.csr_array((np.concatenate(weights), places), shape=(len(centers), len(centers)))


@checked()
def spatial_blocks(coordinates: ArrayLike, size: float, *, section: ArrayLike | None = None) -> NDArray[np.intp]:
    """Assign each spot to a square of a grid, the unit that `bootstrap_pearson` draws.

    Parameters
    ----------
    coordinates
        (n_spots, 2) centers, in px or µm.
    size
        Side of a square in the unit of the coordinates; at least the distance over which errors are similar.
    section
        (n_spots,) section of each spot; a block never spans two sections.

    Returns
    -------
    (n_spots,) block numbers from 0, without gaps. The grid of each section begins at its smallest coordinates.

    Raises
    ------
    ValueError
        The coordinates are not finite or not (n_spots, 2), or `size` is not positive.

    Examples
    --------
    >>> from sthisto import metrics
    >>> metrics.spatial_blocks([[0, 0], [0, 1], [5, 0], [9, 9]], 5)
    array([0, 0, 1, 2])
    """
    centers = _check_coordinates(coordinates)
    check_positive(size, name="size")
    blocks = np.empty(len(centers), dtype=np.intp)
    used = 0
    for spots in _spots_of_sections(section, len(centers)):
        squares = np.floor((centers[spots] - centers[spots].min(axis=0)) / size)
        found, numbers = np.unique(squares, axis=0, return_inverse=True)
        blocks[spots] = numbers.ravel() + used
        used += len(found)
    return blocks


def morans_i(values: Matrix, graph: Any) -> NDArray[np.float64]:
    """Measure how alike neighboring spots are in each gene.

    ``I = n / sum(w) * sum_ij(w_ij z_i z_j) / sum_i(z_i²)``, z the values less their mean.

    Parameters
    ----------
    values
        (n_spots, n_genes), measured or predicted, dense or sparse. NaN spots are left out for each gene, with
        their links.
    graph
        (n_spots, n_spots) weights, as `spatial_graph` returns; used as they are, without scaling of rows.

    Returns
    -------
    (n_genes,), -1 / (n_spots - 1) on average without spatial structure; NaN for a constant gene or without links.

    Raises
    ------
    ValueError
        The graph does not have a row and a column for each spot.

    References
    ----------
    Moran, Biometrika 1950, doi:10.1093/biomet/37.1-2.17.

    Examples
    --------
    >>> from sthisto import metrics
    >>> graph = metrics.spatial_graph([[0, 0], [0, 1], [0, 2], [0, 3]], radius=1)
    >>> metrics.morans_i([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], graph).round(2)
    array([ 0.33, -1.  ])
    """
    matrix = check_matrix(values, name="values")
    weights = _check_graph(graph, matrix.shape[0])
    result = np.full(matrix.shape[1], np.nan)
    if not matrix.shape[0]:
        return result
    for genes, x in gene_blocks(matrix):
        present = ~np.isnan(x)
        n = present.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            z = np.where(present, x - np.nansum(x, axis=0) / n, 0.0)
            squares = (z * z).sum(axis=0)
            varies = squares > 1e-26 * np.nansum(x**2, axis=0)
            links = (present * (weights @ present.astype(np.float64))).sum(axis=0)
            moran = n / links * (z * (weights @ z)).sum(axis=0) / squares
        result[genes] = np.where(varies & (links > 0), moran, np.nan)
    return result


@checked()
def ssim(truth: Matrix, prediction: Matrix, graph: Any, *, data_range: float | None = None) -> NDArray[np.float64]:
    """Compare the local level, contrast and structure of each gene's predicted and measured map.

    Structural similarity with graph neighborhoods as windows: the window of a spot is the spot and its neighbors,
    each with weight 1. With the windows' means m, variances v and covariance c (divided by the number of spots in the
    window), ``(2 m_t m_p + C1) (2 c + C2) / ((m_t² + m_p² + C1) (v_t + v_p + C2))``, C1 = (0.01 L)², C2 = (0.03 L)²,
    averaged over the spots.

    Parameters
    ----------
    truth, prediction
        (n_spots, n_genes) on one scale; NaN spots take no part in any window.
    graph
        (n_spots, n_spots) links, as `spatial_graph` returns; weights other than 0 count as links.
    data_range
        L, the width of the scale. None takes the range of each gene's measured values in these spots.

    Returns
    -------
    (n_genes,), 1 for equal maps, small for unrelated ones. Spots without a neighbor are left out; NaN for a gene whose
    measurement is constant, unless `data_range` is given, or without links.

    Raises
    ------
    ValueError
        The shapes differ, the graph does not fit them, or `data_range` is not positive.

    References
    ----------
    Wang et al., IEEE Transactions on Image Processing 2004, doi:10.1109/TIP.2003.819861.

    Examples
    --------
    >>> from sthisto import metrics
    >>> graph = metrics.spatial_graph([[0, 0], [0, 1], [0, 2]], radius=1)
    >>> metrics.ssim([[0.0], [1.0], [2.0]], [[0.0], [1.0], [2.0]], graph)
    array([1.])
    """
    truth, prediction = check_pair(truth, prediction)
    if data_range is not None:
        check_positive(data_range, name="data_range")
    links = _check_graph(graph, truth.shape[0]) != 0
    windows = sp.csr_array(links + sp.identity(truth.shape[0], dtype=bool)).astype(np.float64)
    result = np.full(truth.shape[1], np.nan)
    if truth.shape[0]:
        for genes, t, p in paired_blocks(truth, prediction):
            result[genes] = _ssim(t, p, windows, data_range)
    return result


def _ssim(
    t: NDArray[np.float64], p: NDArray[np.float64], windows: sp.csr_array, data_range: float | None
) -> NDArray[np.float64]:
    present = ~np.isnan(t)
    in_window = windows @ present.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        width = np.fmax.reduce(t, axis=0) - np.fmin.reduce(t, axis=0) if data_range is None else data_range
        width = np.where(np.greater(width, 0), width, np.nan)
        c1, c2 = (0.01 * width) ** 2, (0.03 * width) ** 2
        origin = np.nansum(t, axis=0) / present.sum(axis=0)
        t, p = np.where(present, t - origin, 0.0), np.where(present, p - origin, 0.0)
        mt, mp, tt, pp, tp = (windows @ x / in_window for x in (t, p, t * t, p * p, t * p))
        contrast = (2 * (tp - mt * mp) + c2) / (tt - mt**2 + pp - mp**2 + c2)
        mt, mp = mt + origin, mp + origin
        local = (2 * mt * mp + c1) / (mt**2 + mp**2 + c1) * contrast
        counted = present & (in_window > 1)
        return np.where(counted, local, 0.0).sum(axis=0) / counted.sum(axis=0)


def _check_coordinates(coordinates: ArrayLike) -> NDArray[np.float64]:
    centers = as_array(coordinates, name="coordinates")
    if centers.dtype.kind not in "fiub":
        msg = f"`coordinates` must hold real numbers, found the type {centers.dtype}."
        raise TypeError(msg)
    centers = centers.astype(np.float64)
    if centers.ndim != 2 or centers.shape[1] != 2 or not np.isfinite(centers).all():
        msg = f"`coordinates` must be finite and have the shape (n_spots, 2), found {centers.shape}."
        raise ValueError(msg)
    return centers


def _check_graph(graph: Any, n_spots: int) -> sp.csr_array:
    weights = sp.csr_array(check_matrix(graph, name="graph"))
    if weights.shape != (n_spots, n_spots):
        msg = f"`graph` must have the shape ({n_spots}, {n_spots}), found {weights.shape}."
        raise ValueError(msg)
    return weights


def _spots_of_sections(section: ArrayLike | None, n_spots: int) -> list[NDArray[np.intp]]:
    if section is None:
        return [np.arange(n_spots)] if n_spots else []
    labels = check_groups(section, n_spots, name="section")
    return [np.flatnonzero(labels == name) for name in np.unique(labels)]
