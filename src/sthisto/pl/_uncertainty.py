"""Predicted standard deviation and confidence against the errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import Normalize

from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.record import as_keys, method_labels, symbols_of
from sthisto._sdata.slots import KEY, confidence
from sthisto.pl._arguments import checked_plot
from sthisto.pl._decorations import TICK_SIZE, color_bar, figure_of, place, scale_bar, set_title
from sthisto.pl._figures import closes_on_error, new_figure
from sthisto.pl._layout import given_axes
from sthisto.pl._read import (
    choose_sections,
    is_measured,
    joint_remark,
    measured,
    predicted,
    predicted_sections,
    read_scale,
    scored_spots,
    shared_genes,
    spread,
)
from sthisto.pl._spots import View, view
from sthisto.pl._style import METHOD_COLORS, cycle, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

    from sthisto._sdata.sections import Section

_BINS = 10
_CHART, _MAP = 1.9, 1.9
_N_CHARTS = 2


@closes_on_error()
@checked_plot()
def uncertainty(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    key_added: str | Sequence[str] = KEY,
    genes: Sequence[str] | None = None,
    sections: str | Sequence[str] | None = None,
    image_alpha: float = 0.4,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    gene_symbols: str | None = None,
    figsize: tuple[float, float] | None = None,
    dpi: float | None = None,
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Show whether predicted uncertainty matches the errors, and where confidence is low.

    One row per key. The first chart shows the error against the predicted standard deviation, in ten bins with equally
    many pairs of spot and gene: on the dashed line, both are equal. The second shows the error against the confidence,
    which measures how similar a spot is to the training spots and is not a probability: if the error does not fall from
    left to right, confidence is not informative on these data. A map of the confidence follows for each section. If
    nothing was measured, as on a slide without spots, only the maps are drawn.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    key_added
        Key or keys that `sthisto.tl.predict` wrote to, by methods that give a standard deviation and a confidence.
    genes
        Genes whose errors are used. None: all that every method predicts.
    sections
        Names of the sections. None: all that have a prediction.
    image_alpha
        Opacity of the H&E under the spots, 0 to 1.
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
        Axes to draw into instead of a new figure: for each key two charts, if anything was measured, and one map per
        section.

    Returns
    -------
    The figure. If any spots are scored by `sthisto.tl.evaluate`, errors are those of these spots; else of all spots,
    marked "(trained on)" or "(no test spots)".

    Raises
    ------
    KeyError
        There is no prediction under a key, its method gives no standard deviation or confidence, or an element is
        missing.
    ValueError
        The number of axes differs from the number of panels, or an element is ambiguous.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> model = sth.tl.fit(sdata, method="knn", image_encoder="efficientnet_lite0")  # doctest: +SKIP
    >>> sth.tl.predict(sdata, model)  # doctest: +SKIP
    >>> figure = sth.pl.uncertainty(sdata)  # doctest: +SKIP
    """
    keys = as_keys(key_added)
    candidates = choose_sections(sdata, sections, ElementKeys(image_key, shapes_key, table_key, coordinate_system))
    chosen = predicted_sections(candidates, keys, named=sections is not None)
    tables = [section.table for section in chosen]
    symbols = gene_symbols or symbols_of(tables[0], keys[0])
    scale, labels = read_scale(tables, keys), method_labels(tables, keys)
    trust = {key: [_confidence(section, key) for section in chosen] for key in keys}
    views = [view(section) for section in chosen]
    n_charts = _N_CHARTS if any(is_measured(section, scale) for section in chosen) else 0
    figure, rows = _axes(views, len(keys), n_charts, figsize, dpi, ax)
    if n_charts:
        genes = list(genes) if genes is not None else shared_genes(tables, keys, symbols)
        truth = [measured(section, scale, genes, symbols) for section in chosen]
        for key, panels, color in zip(keys, rows, cycle(METHOD_COLORS, len(keys)), strict=True):
            errors = [predicted(one, key, genes, symbols) - t for one, t in zip(chosen, truth, strict=True)]
            spreads = [spread(one, key, genes, symbols) for one in chosen]
            scored = [scored_spots(one, [key]) for one in chosen]
            _draw_charts(panels[:n_charts], labels[key], color, scored, errors, spreads, trust[key])
    for key, panels in zip(keys, rows, strict=True):
        method = "" if n_charts or len(keys) == 1 else f"{labels[key]}, "
        for panel, shared, values in zip(panels[n_charts:], views, trust[key], strict=True):
            shared.draw_image(panel, image_alpha)
            spots_drawn = shared.draw_spots(panel, values, cmap="viridis", norm=Normalize(0, 1))
            set_title(panel, f"{method}{shared.section.name}, confidence")
            scale_bar(panel, shared)
        color_bar(panels[-1], spots_drawn, "Confidence")
    return figure


def _confidence(section: Section, key: str) -> np.ndarray:
    column = confidence(key)
    if column not in section.table.obs:
        msg = (
            f"obs has no {column!r}. Call sth.tl.predict(sdata, model, key_added={key!r}) with a method that looks at "
            "the image."
        )
        raise KeyError(msg)
    return section.table.obs[column].iloc[section.rows].to_numpy(dtype=np.float32)


def _draw_charts(
    charts: Sequence[Axes],
    label: str,
    color: str,
    scored: Sequence[tuple[np.ndarray, str]],
    *by_section: Sequence[np.ndarray],
) -> None:
    """Draw the error by standard deviation and by confidence.

    Parameters
    ----------
    scored
        For each section, the spots to use, (n_spots,) bool, and the remark on them.
    *by_section
        Errors (n_spots, n_genes), standard deviations (n_spots, n_genes) and confidence (n_spots,) of each section.
    """
    remark = joint_remark([one for _, one in scored])
    spots = [rows & bool(remark or not one) for rows, one in scored]
    error, sd, likeness = (
        np.concatenate([values[rows] for values, rows in zip(parts, spots, strict=True)]) for parts in by_section
    )
    title = f"{label}{remark}"
    _calibration(charts[0], sd, error, color)
    tidy(charts[0], x="Predicted spread", y="Error (RMSE)", title=title)
    _by_confidence(charts[1], likeness, error, color)
    tidy(charts[1], x="Confidence: likeness to training", y="Error (RMSE)", title=title)


def _calibration(ax: Axes, sd: np.ndarray, error: np.ndarray, color: str) -> None:
    """Draw the RMS of the error over that of the spread, (n_spots, n_genes) each, in bins of equally many values."""
    finite = np.isfinite(sd) & np.isfinite(error)
    x, y = _binned(sd[finite], np.square(sd[finite]), np.square(error[finite]))
    x, y = np.sqrt(x), np.sqrt(y)
    limit = 1.08 * max(x.max(), y.max())
    ax.plot([0, limit], [0, limit], "--", color="0.5", linewidth=0.8, label="Spread = error")
    ax.plot(x, y, "o-", color=color, markersize=3.5, linewidth=1)
    ax.set(xlim=(0, limit), ylim=(0, limit))
    ax.legend(fontsize=TICK_SIZE, frameon=False, loc="lower right", handlelength=1.4)


def _by_confidence(ax: Axes, likeness: np.ndarray, error: np.ndarray, color: str) -> None:
    by_spot = np.nanmean(np.square(error), axis=1)
    finite = np.isfinite(likeness) & np.isfinite(by_spot)
    x, y = _binned(likeness[finite], likeness[finite], by_spot[finite])
    ax.scatter(
        likeness[finite], np.sqrt(by_spot[finite]), s=4, color="0.75", linewidths=0, rasterized=True, label="Spots"
    )
    ax.plot(x, np.sqrt(y), "o-", color=color, markersize=3.5, linewidth=1, label="Tenths of the spots")
    ax.set(xlim=(-0.02, 1.02), ylim=(0, None))
    ax.legend(fontsize=TICK_SIZE, frameon=False, loc="lower left", handlelength=1.4)


def _binned(by: np.ndarray, *values: np.ndarray) -> list[np.ndarray]:
    """Return the means of each (n,) array in bins of `by`, (n,), with equally many values each."""
    bins = np.array_split(np.argsort(by, kind="stable"), min(_BINS, len(by))) if len(by) else []
    return [np.array([array[one].mean() for one in bins]) for array in values]


def _axes(
    views: Sequence[View],
    n_rows: int,
    n_charts: int,
    figsize: tuple[float, float] | None,
    dpi: float | None,
    ax: Sequence[Axes] | None,
) -> tuple[Figure, list[list[Axes]]]:
    """Return the charts and a map for each section, in `n_rows` rows."""
    if ax is not None:
        given = given_axes(ax, n_rows, n_charts + len(views))
        return figure_of(given[0][0]), given
    left, between, gap, top, bottom, bar = 0.5, 0.6, 0.1, 0.3, 0.45, 0.55
    height = max(_CHART, _MAP * max(shared.aspect for shared in views))
    lefts = [left + i * (_CHART + between) for i in range(n_charts)]
    first_map = lefts[-1] + _CHART + 0.25 if lefts else gap
    natural = np.array([first_map + len(views) * (_MAP + gap) + bar, n_rows * (top + height + bottom)])
    size = natural if figsize is None else np.asarray(figsize)
    x, y = size / natural
    figure = new_figure(float(size[0]), float(size[1]), dpi, constrained=False)
    rows = []
    for i in range(n_rows):
        start = y * (i * (top + height + bottom) + top)
        charts = [place(figure, x * at, start, x * _CHART, y * _CHART) for at in lefts]
        at_maps = [first_map + j * (_MAP + gap) for j in range(len(views))]
        rows.append(charts + [place(figure, x * at, start, x * _MAP, y * height) for at in at_maps])
    return figure, rows
