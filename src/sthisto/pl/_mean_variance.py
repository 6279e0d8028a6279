"""Each gene's mean and standard deviation, measured and predicted: figure 2 of the DANet paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.record import as_keys
from sthisto._sdata.slots import KEY
from sthisto.metrics import mean_proportions, sd_proportions
from sthisto.pl._arguments import checked_plot
from sthisto.pl._decorations import TICK_SIZE, figure_of, ink
from sthisto.pl._figures import closes_on_error
from sthisto.pl._inset import draw_zoom
from sthisto.pl._read import choose_sections, predicted_sections, read_scored, within_sections
from sthisto.pl._style import METHOD_COLORS, cycle, grid_of_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

_MANY = 2000
_FEW = 20


@closes_on_error()
@checked_plot()
def mean_variance(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    key_added: str | Sequence[str] = KEY,
    genes: Sequence[str] | None = None,
    sections: str | Sequence[str] | None = None,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    gene_symbols: str | None = None,
    figsize: tuple[float, float] | None = None,
    dpi: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Show each gene's share of the mean and of the standard deviation, measured and predicted.

    The first row shows every gene's mean as a share of the sum of all means, the second its standard deviation within
    sections as a share of the sum of all standard deviations, with genes ranked by the measured value. A method that
    predicts the mean for every spot reproduces the first and misses the second. The legend gives slope and R² of the
    line through predicted against measured shares; an inset enlarges the middle tenth of the genes.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    key_added
        Key or keys that `sthisto.tl.predict` wrote to, one column each.
    genes
        Genes to draw, three or more. None: all that every method predicts.
    sections
        Names of the sections whose spots are used. None: all that have a prediction.
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
        Axes to draw into instead of a new figure: two per key, first those of all means, then those of all standard
        deviations.

    Returns
    -------
    The figure. If any spots are scored by `sthisto.tl.evaluate`, only these are used.

    Raises
    ------
    KeyError
        There is no prediction under a key, or a gene or an element is missing.
    ValueError
        The predictions are on different scales or on one with negative values (Pearson residuals), where shares are
        undefined; there are fewer than three genes; or an element is ambiguous.

    Notes
    -----
    Wu et al., Briefings in Bioinformatics 2025, doi:10.1093/bib/bbaf422 (DANet); Xie et al., NeurIPS 2023 (BLEEP).

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> sth.tl.predict(sdata, sth.tl.fit(sdata, method="color"))
    >>> figure = sth.pl.mean_variance(sdata)
    """
    keys = as_keys(key_added)
    candidates = choose_sections(sdata, sections, ElementKeys(image_key, shapes_key, table_key, coordinate_system))
    scored = read_scored(predicted_sections(candidates, keys, named=sections is not None), keys, genes, gene_symbols)
    if len(scored.genes) < 3:
        msg = f"`genes` must name at least three genes to fit a line through, found {len(scored.genes)}."
        raise ValueError(msg)
    if scored.truth.min() < 0:
        msg = "The predictions are on a scale with negative values, where shares of a sum are undefined.."
        raise ValueError(msg)
    n = len(keys)
    axes = grid_of_axes(ax, 2, n, figsize or (max(3.6, 2.9 * n), 4.6), dpi)
    colors = dict(zip(scored.predictions, cycle(METHOD_COLORS, n), strict=True))
    statistics = {
        "Share of the mean (%)": mean_proportions,
        "Share of the s.d. (%)": lambda values: sd_proportions(within_sections(values, scored.section)),
    }
    for row, (label, statistic) in zip(axes, statistics.items(), strict=True):
        measured = 100 * statistic(scored.truth)
        for panel, (title, values) in zip(row, scored.predictions.items(), strict=True):
            name = f"{title}{scored.remark}"
            _draw(panel, measured, 100 * np.nan_to_num(statistic(values)), name, colors[title])
            tidy(panel, x="Genes, ranked by measurement", y=label)
    return figure_of(axes[0, 0])


def _draw(ax: Axes, measured: np.ndarray, predicted: np.ndarray, name: str, color: str) -> None:
    """Draw (n_genes,) shares in percent, ranked by the measured ones, and an inset that enlarges the middle tenth."""
    order = np.argsort(-measured, kind="stable")
    rank, line, points = np.arange(1, len(order) + 1), measured[order], predicted[order]
    slope, r2 = _fit(measured, predicted)
    label = f"{name}: slope {slope:.2f}, R² {r2:.2f}"
    ax.scatter(rank, points, s=5, color=color, linewidths=0, alpha=0.7, label=label, rasterized=len(rank) > _MANY)
    ax.plot(rank, line, color=ink(), linewidth=1.1, label="Measured")
    ax.set(xlim=(0, len(rank) + 1), ylim=(0, 1.08 * max(line.max(), points.max())))
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1),
        ncols=2,
        columnspacing=1,
        fontsize=TICK_SIZE,
        frameon=False,
        handlelength=1,
        handletextpad=0.4,
    )
    if len(rank) >= _FEW:
        draw_zoom(ax, rank, np.stack([points, line]), window=(0.45, 0.55), color=color)


def _fit(measured: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Return slope and R² of the least-squares line of predicted on measured, (n_genes,) each."""
    slope = np.polyfit(measured, predicted, 1)[0]
    correlation = np.corrcoef(measured, predicted)[0, 1] if np.ptp(predicted) > 0 else np.nan
    return float(slope), float(correlation**2)
