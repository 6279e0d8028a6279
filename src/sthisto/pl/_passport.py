"""The passport of a model: every gene's score on held-out groups, its interval and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from sthisto import get
from sthisto._sdata.slots import KEY
from sthisto._utils.checks import text
from sthisto._utils.verdicts import DO_NOT_USE, PATTERN_ONLY, USE, VERDICTS
from sthisto.pl._arguments import checked_plot
from sthisto.pl._decorations import TICK_SIZE, figure_of, ink
from sthisto.pl._figures import closes_on_error
from sthisto.pl._style import GRAY, grid_of_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

    from sthisto.models import ExpressionModel

_COLORS: Final = {USE: "#0072B2", PATTERN_ONLY: "#E69F00", DO_NOT_USE: "0.7"}
_MANY: Final = 2000
_NAMED: Final = 60
"""Genes up to which each is named at the axis."""
_SAME_TISSUE: Final = ("section", "block")


@closes_on_error()
@checked_plot(key_added=text)
def passport(
    sdata: SpatialData | Sequence[SpatialData] | ExpressionModel | str | PathLike[str],
    *,
    key_added: str = KEY,
    table_key: str | None = None,
    figsize: tuple[float, float] | None = None,
    dpi: float | None = None,
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Show which genes of a model can be used.

    Left: the genes by their residual score on held-out groups, colored by verdict, with the interval of a further group
    and the score of color (ticks). Right: the score against that of color or depth, whichever is more. The farther
    above the diagonal a gene is, the more the model knows beyond these.

    Parameters
    ----------
    sdata
        A model, the path of a saved one, or the SpatialData (one, or a list) that a model with a passport predicted.
    key_added
        The key that `sthisto.tl.predict` wrote under.
    table_key
        Table with the prediction. None: inferred if exactly one table annotates a region.
    figsize
        Width and height of the figure in inches. None: computed from the number of genes.
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
        The model was not assessed, or there is no prediction under the key.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=3, n_patients=3)
    >>> model = sth.tl.fit(sdata, method="color", n_top_genes=10)
    >>> sth.tl.assess(sdata, model)
    >>> figure = sth.pl.passport(model)
    """
    table = get.passport(sdata, key_added=key_added, table_key=table_key)
    named = len(table) <= _NAMED
    width = max(4.2, 0.16 * len(table)) if named else 5.2
    axes = grid_of_axes(ax, 1, 2, figsize or (width + 3.2, 3.2), dpi)[0]
    if ax is None:
        axes[0].get_gridspec().set_width_ratios([width, 3.0])
    _ranked(axes[0], table, named=named)
    _against_baseline(axes[1], table)
    return figure_of(axes[0])


def _ranked(ax: Axes, table: pd.DataFrame, *, named: bool) -> None:
    ranked = table.sort_values("pcc_residual", ascending=False, na_position="last", kind="stable")
    rank = np.arange(1, len(ranked) + 1)
    colors = ranked["verdict"].map(_COLORS).to_numpy()
    fast = len(ranked) > _MANY
    ax.vlines(
        rank,
        ranked["pcc_residual_low"],
        ranked["pcc_residual_high"],
        colors=colors,
        linewidth=1.5 if named else 0.6,
        alpha=0.45,
        rasterized=fast,
    )
    ax.scatter(
        rank, ranked["pcc_residual"], c=list(colors), s=9 if named else 4, linewidths=0, rasterized=fast, zorder=3
    )
    ax.scatter(
        rank, ranked["color"], color=ink(), marker="_", s=18 if named else 4, linewidth=0.8, rasterized=fast, zorder=4
    )
    ax.axhline(0, color=ink(), linewidth=0.5)
    groups, n_groups = str(table["groups"].iloc[0]), int(table["n_groups"].max())
    same = "; same patients" if groups in _SAME_TISSUE else ""
    tidy(ax, x="" if named else "Genes, ranked", y="PCC with Pearson residuals")
    ax.set_title(f"{n_groups} held-out groups, by {groups}{same}", fontsize=TICK_SIZE, loc="left", pad=24)
    ax.set_xlim(0, len(rank) + 1)
    ax.set_ylim(max(-1, np.nanmin([-0.3, ranked["pcc_residual_low"].min()])), 1)
    if named:
        ax.set_xticks(rank, ranked["gene"], rotation=90, fontstyle="italic", fontsize=TICK_SIZE)
    _legend(ax, table)


def _legend(ax: Axes, table: pd.DataFrame) -> None:
    counts = table["verdict"].value_counts()
    dot: dict[str, Any] = {"linestyle": "none", "markersize": 4}
    handles = [
        Line2D([], [], marker="o", color=_COLORS[name], label=f"{name} ({counts.get(name, 0)})", **dot)
        for name in VERDICTS
    ]
    handles.append(Line2D([], [], marker="_", color=ink(), label="Color", **dot))
    ax.legend(
        handles=handles,
        fontsize=TICK_SIZE,
        frameon=False,
        ncols=len(handles),
        loc="lower left",
        bbox_to_anchor=(-0.02, 1),
        handletextpad=0.1,
        columnspacing=1,
    )


def _against_baseline(ax: Axes, table: pd.DataFrame) -> None:
    baseline = np.fmax(table["color"], table["depth"].abs())
    for verdict in VERDICTS[::-1]:
        rows = (table["verdict"] == verdict).to_numpy()
        ax.scatter(
            baseline[rows],
            table.loc[rows, "pcc_residual"],
            color=_COLORS[verdict],
            s=6,
            linewidths=0,
            rasterized=len(table) > _MANY,
        )
    drawn = np.concatenate([baseline, table["pcc_residual"]])
    low, high = np.nanmin([0.0, np.nanmin(drawn)]) - 0.03, np.nanmax([0.3, np.nanmax(drawn)]) + 0.03
    ax.plot([low, high], [low, high], color=GRAY, linewidth=0.6, linestyle="--")
    tidy(ax, x="Color or depth", y="Model")
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
