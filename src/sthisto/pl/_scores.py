"""Scores per gene and per section, beside the scores of sibling genes and of depth alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sthisto import get
from sthisto._sdata.record import as_keys
from sthisto._sdata.slots import ALL_GENES, KEY
from sthisto._utils.validate import check_choice, listed
from sthisto.pl._decorations import TICK_SIZE, figure_of, ink
from sthisto.pl._figures import closes_on_error
from sthisto.pl._style import GRAY, METHOD_COLORS, cycle, grid_of_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

_NAMES = {"pcc": "PCC", "pcc_residual": "PCC with Pearson residuals"}
_BOX = 0.7
_MANY = 2000
_LEGEND: dict[str, Any] = {"fontsize": TICK_SIZE, "frameon": False, "loc": "lower left", "bbox_to_anchor": (-0.02, 1)}


@closes_on_error()
def scores(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    key_added: str | Sequence[str] = KEY,
    metric: Literal["pcc_residual", "pcc"] = "pcc_residual",
    table_key: str | None = None,
    figsize: tuple[float, float] | None = None,
    dpi: float | None = None,
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Show the scores of one or several methods, gene by gene and as distributions per section.

    Left: the genes ranked by the first method's score (mean over sections), with the score of each method, of the depth
    alone and, for the residual score, of the genes' siblings (`metrics.sibling_score`). Right: the distribution over
    genes for each section and method, as a box from the first to the third quartile with whiskers from 5 % to 95 %, a
    line at the median and a diamond at the mean; the mean of the depth is dashed, that of the siblings dotted.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    key_added
        Key or keys that `sthisto.tl.evaluate` scored. Baselines are methods like any other.
    metric
        "pcc_residual", the primary score, or "pcc", on the scale of the prediction, which has no sibling reference.
    table_key
        Table with the scores. None: inferred if exactly one table annotates a region.
    figsize
        Width and height of the figure in inches. None: computed from the number and shape of the panels.
    dpi
        Resolution of the figure in dots per inch. None: matplotlib's setting.
    ax
        Two axes to draw into instead of a new figure.

    Returns
    -------
    The figure.

    Raises
    ------
    KeyError
        There are no scores under a key.
    ValueError
        The methods were not scored on the same genes and sections, or the table is ambiguous.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> sth.pp.split(sdata, by="patient", patient_key="patient")
    >>> sth.tl.predict(sdata, sth.tl.fit(sdata, method="color"))
    >>> sth.tl.evaluate(sdata)
    >>> figure = sth.pl.scores(sdata)
    """
    check_choice(metric, _NAMES, name="metric")
    keys = as_keys(key_added)
    table = get.scores(sdata, key_added=keys, table_key=table_key)
    columns = ["method", "section", "gene"]
    table = table.groupby(columns, sort=False, as_index=False).mean(
        numeric_only=True
    )  # of seeds, where there are several
    _check_alike(table)
    summary = get.scores(sdata, key_added=keys, by="section", table_key=table_key)
    n_sections = table["section"].nunique()
    varying = table.loc[table[metric].notna(), "method"]  # a constant prediction has no correlation to draw
    methods = list((varying if len(varying) else table["method"]).unique())
    width = 3.4 + max(2.6, 0.6 + 0.34 * n_sections * len(methods))
    axes = grid_of_axes(ax, 1, 2, figsize or (width, 2.9), dpi)[0]
    colors = dict(zip(methods, cycle(METHOD_COLORS, len(methods)), strict=True))
    _ranked(axes[0], table, metric, colors)
    _distributions(axes[1], table, summary, metric, colors)
    return figure_of(axes[0])


def _check_alike(table: pd.DataFrame) -> None:
    spots = {
        name: part.set_index(["section", "gene"])["n_spots"].sort_index()
        for name, part in table.groupby("method", sort=False)
    }
    (name, first), *others = spots.items()
    unlike = [other for other, spots_of in others if not spots_of.equals(first)]
    if unlike:
        msg = (
            f"{listed(unlike)} were not scored on the same sections, genes and spots as {name!r}, so their scores "
            "can't be compared. Fit them with the same genes and split, and call sth.tl.evaluate for each."
        )
        raise ValueError(msg)


def _ranked(ax: Axes, table: pd.DataFrame, metric: str, colors: dict[str, str]) -> None:
    columns = [metric, f"depth_{metric}", *(["sibling"] if _has_siblings(table, metric) else [])]
    by_gene = table.groupby(["method", "gene"], sort=False)[columns].mean()
    first = by_gene.loc[next(iter(colors))]
    genes = first[metric].sort_values(ascending=False, na_position="last").index
    rank = np.arange(1, len(genes) + 1)
    style: dict[str, Any] = {"s": 4, "linewidths": 0, "rasterized": len(rank) > _MANY}
    if "sibling" in by_gene:
        ax.scatter(rank, first.loc[genes, "sibling"], color="0.75", label="Sibling genes", **style)
    ax.scatter(
        rank, first.loc[genes, f"depth_{metric}"], color=GRAY, marker="x", s=5, linewidth=0.5, label="Depth alone"
    )
    for method, color in list(colors.items())[::-1]:
        ax.scatter(rank, by_gene.loc[method].loc[genes, metric], color=color, label=method, **style)
    ax.axhline(0, color=ink(), linewidth=0.5)
    tidy(ax, x=f"Genes, ranked by {next(iter(colors))}", y=_NAMES[metric])
    ax.set_xlim(0, len(rank) + 1)
    ax.legend(**_LEGEND, ncols=3, markerscale=1.8, handletextpad=0.1, columnspacing=1, reverse=True)


def _has_siblings(table: pd.DataFrame, metric: str) -> bool:
    """Return whether the score of sibling genes is known; models of 0.1 do not keep what it needs."""
    return metric == "pcc_residual" and "sibling" in table and bool(table["sibling"].notna().any())


def _distributions(ax: Axes, table: pd.DataFrame, summary: pd.DataFrame, metric: str, colors: dict[str, str]) -> None:
    sections = list(table["section"].unique())
    step = _BOX / len(colors)
    for i, section in enumerate(sections):
        rows = table[table["section"] == section]
        for j, (method, color) in enumerate(colors.items()):
            at = i + (j - (len(colors) - 1) / 2) * step
            values = rows.loc[rows["method"] == method, metric].dropna().to_numpy()
            drawn = _box(ax, values, at, 0.8 * step, color)
            if (i, j) == (0, 0):
                drawn["medians"][0].set_label("Median gene")
                drawn["means"][0].set_label("Mean")
        whole = summary[(summary["section"] == section) & (summary["genes"] == ALL_GENES)].iloc[0]
        _level(ax, i, whole[f"depth_{metric}"], "Depth alone", color=GRAY, linestyle="--")
        if _has_siblings(summary, metric):
            _level(ax, i, whole["sibling"], "Sibling genes", color=ink(), linestyle=":")
    ax.axhline(0, color=ink(), linewidth=0.5, zorder=0)
    tidy(ax, y=_NAMES[metric])
    ax.set_xticks(range(len(sections)), sections, rotation=0 if len(sections) < 5 else 45)
    ax.set_xlim(-0.6, len(sections) - 0.4)
    ax.legend(**_LEGEND, ncols=2)


def _level(ax: Axes, section: int, value: float, label: str, **style: Any) -> None:
    """Draw a line over all boxes of a section; the first is named in the legend."""
    ax.hlines(value, section - 0.45, section + 0.45, linewidth=1.1, label=label if section == 0 else "_", **style)


def _box(ax: Axes, values: np.ndarray, at: float, width: float, color: str) -> dict[str, Any]:
    return ax.boxplot(
        [values],
        positions=[at],
        widths=width,
        whis=(5, 95),
        showfliers=False,
        showmeans=True,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": color, "edgecolor": color, "alpha": 0.55, "linewidth": 0.8},
        medianprops={"color": ink(), "linewidth": 1},
        meanprops={
            "marker": "D",
            "markersize": 3,
            "markerfacecolor": "white",
            "markeredgecolor": ink(),
            "markeredgewidth": 0.5,
        },
        whiskerprops={"color": color, "linewidth": 0.8},
        capprops={"color": color, "linewidth": 0.8},
    )
