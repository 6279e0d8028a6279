"""Colors and axes of the charts: color-blind safe, set on the axes and never globally."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sthisto.pl._decorations import LABEL_SIZE, TICK_SIZE, TITLE_SIZE
from sthisto.pl._figures import new_figure
from sthisto.pl._layout import given_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHOD_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#666666")
"""Okabe and Ito's palette, from the strongest to the weakest on white."""

CLASS_COLORS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"),
    *("#882255", "#44AA99", "#332288", "#999933", "#AA4499", "#117733", "#88CCEE", "#DDCC77"),
    *("#6699CC", "#661100", "#CC6677", "#888888"),
)
"""Okabe and Ito's palette, continued with Tol's muted colors."""

GRAY = "#5a5a5a"


def cycle(colors: Sequence[str], n: int) -> list[str]:
    """Return n colors, repeating them if there are fewer."""
    return [colors[i % len(colors)] for i in range(n)]


def single_axes(ax: Axes | None, width: float = 3.6, height: float = 2.8) -> Axes:
    """Return the given axes, or those of a new figure."""
    return new_figure(width, height, None).add_subplot() if ax is None else ax


def tidy(ax: Axes, *, x: str = "", y: str = "", title: str = "") -> None:
    """Set labels and sizes, and leave the frame open at the top and right."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_linewidth(0.6)
    ax.grid(visible=False)
    ax.tick_params(labelsize=TICK_SIZE, width=0.6, length=2.5)
    ax.set_xlabel(x, fontsize=LABEL_SIZE)
    ax.set_ylabel(y, fontsize=LABEL_SIZE)
    ax.set_title(title, fontsize=TITLE_SIZE)


def grid_of_axes(
    ax: Axes | Sequence[Axes] | None, n_rows: int, n_columns: int, size: tuple[float, float], dpi: float | None
) -> np.ndarray:
    """Return (n_rows, n_columns) axes: the given ones, or those of a new figure of `size` inches."""
    if ax is None:
        axes: np.ndarray = new_figure(*size, dpi).subplots(n_rows, n_columns, squeeze=False)
        return axes
    return np.array(given_axes(ax, n_rows, n_columns), dtype=object)
