"""Correlations between genes, measured and predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.record import as_keys
from sthisto._sdata.slots import KEY
from sthisto.metrics import gene_correlation_agreement
from sthisto.pl._arguments import checked_plot
from sthisto.pl._decorations import TICK_SIZE, color_bar, figure_of, place, set_title
from sthisto.pl._figures import closes_on_error, new_figure
from sthisto.pl._layout import given_axes
from sthisto.pl._read import Scored, choose_sections, predicted_sections, read_scored, within_sections

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

_LABELED = 40
_OPTIMAL = 300
_PANEL = 2.2


@closes_on_error()
@checked_plot()
def gene_correlation(
    sdata: SpatialData | Sequence[SpatialData],
    genes: Sequence[str] | None = None,
    *,
    key_added: str | Sequence[str] = KEY,
    sections: str | Sequence[str] | None = None,
    cmap: str | Colormap = "RdBu_r",
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    gene_symbols: str | None = None,
    figsize: tuple[float, float] | None = None,
    dpi: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Show the correlations between genes, measured and predicted, in one order.

    Genes are ordered by average linkage of 1 - r in the measurement. Each section's mean is subtracted from every gene
    first, so that differences between sections do not count as correlation. Titles give the agreement of a prediction:
    the Pearson correlation of its gene-gene correlations with the measured ones. Counts are noisy and correlate weakly,
    predictions are smooth and correlate strongly; only the pattern should agree. Each heatmap therefore has its own
    scale, up to the 99 % quantile of its correlations.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    genes
        Genes to draw, three or more. None: all that every method predicts. Up to 40 are labeled.
    key_added
        Key or keys that `sthisto.tl.predict` wrote to, one heatmap each.
    sections
        Names of the sections whose spots are used. None: all that have a prediction.
    cmap
        Diverging color map, centered at 0.
    image_key
        H&E image, or a mapping from region to image. None: inferred if there is exactly one candidate; of several RGB
        images of one place, the finest.
    shapes_key
        Region or regions to use, shapes or labels. None: all regions that the table annotates.
    table_key
        Table that annotates the regions. None: inferred if there is exactly one.
    coordinate_system
        Coordinate system in which images and regions are aligned. None: inferred from those that both share.
    gene_symbols
        Column of ``var`` with the gene names. None: the one that `sthisto.tl.predict` used.
    figsize
        Width and height of the figure in inches. None: computed from the number and shape of the panels.
    dpi
        Resolution of the figure in dots per inch. None: matplotlib's setting.
    ax
        Axes to draw into instead of a new figure: one for the measurement and one per key.

    Returns
    -------
    The figure. If any spots are scored by `sthisto.tl.evaluate`, only these are used. A gene that is constant in a
    matrix is white there.

    Raises
    ------
    KeyError
        There is no prediction under a key, or a gene or an element is missing.
    ValueError
        There are fewer than three genes or spots, the predictions are on different scales, or an element is ambiguous.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> sth.tl.predict(sdata, sth.tl.fit(sdata, method="color"))
    >>> figure = sth.pl.gene_correlation(sdata)
    """
    keys = as_keys(key_added)
    candidates = choose_sections(sdata, sections, ElementKeys(image_key, shapes_key, table_key, coordinate_system))
    scored = read_scored(predicted_sections(candidates, keys, named=sections is not None), keys, genes, gene_symbols)
    if min(scored.truth.shape) < 3:
        msg = f"{scored.truth.shape[0]} spots and {scored.truth.shape[1]} genes: at least three of each are needed."
        raise ValueError(msg)
    centered = {title: within_sections(values, scored.section) for title, values in _matrices(scored).items()}
    matrices = {title: _correlations(values) for title, values in centered.items()}
    order = _hierarchical_order(matrices["Measured"])
    figure, axes = _axes(ax, len(matrices), scored.genes, figsize, dpi)
    for panel, (title, matrix) in zip(axes, matrices.items(), strict=True):
        limit = _limit(matrix)
        image = panel.imshow(matrix[np.ix_(order, order)], vmin=-limit, vmax=limit, cmap=cmap, interpolation="nearest")
        if title != "Measured":
            agreement = gene_correlation_agreement(centered["Measured"], centered[title])
            title = f"{title}, agreement {agreement:.2f}{scored.remark}"
        set_title(panel, title)
        _name_genes(panel, [scored.genes[i] for i in order], with_rows=panel is axes[0])
        color_bar(panel, image, "Pearson r" if panel is axes[-1] else "")
    return figure


def _matrices(scored: Scored) -> dict[str, np.ndarray]:
    return {"Measured": scored.truth, **scored.predictions}


def _correlations(values: np.ndarray) -> np.ndarray:
    """Return the (n_genes, n_genes) correlations of centered (n_spots, n_genes) values; NaN for constant genes."""
    length = np.linalg.norm(values, axis=0)
    unit = np.divide(values, length, out=np.full_like(values, np.nan), where=length > 1e-9)
    return np.asarray(unit.T @ unit)


def _limit(correlations: np.ndarray) -> float:
    """Return the end of the color scale: the 99 % quantile of |r| between different genes, of (n_genes, n_genes)."""
    off_diagonal = np.abs(correlations[~np.eye(len(correlations), dtype=bool)])
    finite = off_diagonal[np.isfinite(off_diagonal)]
    return float(np.quantile(finite, 0.99)) if len(finite) else 1.0


def _hierarchical_order(correlations: np.ndarray) -> np.ndarray:
    distance = np.clip(1 - np.nan_to_num(correlations), 0, 2)
    np.fill_diagonal(distance, 0)
    condensed = squareform(distance, checks=False)
    tree = linkage(condensed, "average")
    if len(correlations) <= _OPTIMAL:
        tree = optimal_leaf_ordering(tree, condensed)
    return np.asarray(leaves_list(tree))


def _axes(
    ax: Axes | Sequence[Axes] | None,
    n: int,
    genes: Sequence[str],
    figsize: tuple[float, float] | None,
    dpi: float | None,
) -> tuple[Figure, list[Axes]]:
    if ax is not None:
        (given,) = given_axes(ax, 1, n)
        return figure_of(given[0]), given
    names = 0.075 * max(map(len, genes)) + 0.1 if len(genes) <= _LABELED else 0.1
    gap, top, bar = 0.55, 0.26, 0.65
    natural = np.array([names + n * _PANEL + (n - 1) * gap + bar, top + _PANEL + names])
    size = np.asarray(figsize) if figsize else natural
    width = (size[0] - names - (n - 1) * gap - bar) / n
    figure = new_figure(float(size[0]), float(size[1]), dpi, constrained=False)
    return figure, [place(figure, names + i * (width + gap), top, width, size[1] - top - names) for i in range(n)]


def _name_genes(ax: Axes, genes: Sequence[str], *, with_rows: bool) -> None:
    ax.spines[:].set_linewidth(0.4)
    ax.grid(visible=False)
    ax.set(xticks=[], yticks=[])
    if len(genes) > _LABELED:
        return
    size = min(TICK_SIZE, 150 / len(genes))
    style: dict[str, Any] = {"fontsize": size, "fontstyle": "italic"}
    ax.set_xticks(range(len(genes)), genes, rotation=90, **style)
    if with_rows:
        ax.set_yticks(range(len(genes)), genes, **style)
    ax.tick_params(length=0, pad=2)
