"""Scale bars, color bars, titles, color scales, and axes placed in inches."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    from sthisto.pl._spots import View

SCALE_BAR = "scale bar"
TITLE_SIZE = 8
LABEL_SIZE = 7
TICK_SIZE = 6.5
_POINT = 1 / 72
_CHARACTER = 0.6 * TITLE_SIZE * _POINT
_ROBUST = (0.01, 0.99)


def ink() -> str:
    """Return the color of text in the user's style: black on white, white on a dark one."""
    color: str = mpl.rcParams["text.color"]
    return color


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at a place given in inches from the top left corner of the figure."""
    total_width, total_height = figure.get_size_inches()
    rectangle = (
        left / total_width,
        1 - (top + height) / total_height,
        width / total_width,
        height / total_height,
    )
    return figure.add_axes(rectangle)


def figure_of(ax: Axes) -> Figure:
    """Return the figure that axes stand in, also when they are part of a subfigure."""
    figure = ax.figure
    return figure.figure if isinstance(figure, SubFigure) else figure


def robust_norm(*values: np.ndarray, vmin: float | None = None, vmax: float | None = None) -> Normalize:
    """Return one color scale for arrays of any shape: from their 1 % to their 99 % quantile, unless it is given."""
    finite = np.concatenate([array[np.isfinite(array)] for array in values])
    low, high = np.quantile(finite, _ROBUST) if len(finite) else (0.0, 1.0)
    low, high = low if vmin is None else vmin, high if vmax is None else vmax
    if vmax is None and high <= low:
        high = max(float(finite.max(initial=low)), low + 1e-6)
    return Normalize(float(low), float(high))


def symmetric_norm(*values: np.ndarray) -> Normalize:
    """Return a color scale centered at 0 that holds 99 % of the values of arrays of any shape."""
    finite = np.concatenate([np.abs(array[np.isfinite(array)]) for array in values])
    limit = float(np.quantile(finite, _ROBUST[1])) if len(finite) else 1.0
    limit = limit or 1e-6
    return Normalize(-limit, limit)


def wrap_title(text: str, width: float) -> str:
    """Break a title into lines that fit over a panel of `width` inches."""
    return textwrap.fill(text, max(8, int(width / _CHARACTER)))


def set_title(ax: Axes, text: str) -> None:
    """Write a panel's title in lines as wide as the panel."""
    width = ax.get_position().width * figure_of(ax).get_figwidth()
    ax.set_title(wrap_title(text, width), fontsize=TITLE_SIZE, pad=3, color=ink())


def side_label(ax: Axes, text: str, *, line: int = 0, **style: Any) -> None:
    """Write a vertical label left of a panel; `line` 1 stands further out than 0."""
    ax.annotate(
        text,
        (0, 0.5),
        xytext=(-3 - line * (TITLE_SIZE + 3), 0),
        xycoords="axes fraction",
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="center",
        fontsize=TITLE_SIZE,
        annotation_clip=False,
        **style,
    )


def color_bar(ax: Axes, mappable: ScalarMappable, label: str) -> Axes:
    """Draw a slim color bar right of a panel, as high as the panel is."""
    bar = ax.inset_axes((1.04, 0.0, 0.05, 1.0))
    colors = figure_of(ax).colorbar(mappable, cax=bar)
    colors.outline.set_linewidth(0.4)
    colors.locator = MaxNLocator(4)
    colors.update_ticks()
    bar.tick_params(labelsize=TICK_SIZE, width=0.4, length=2, pad=1.5)
    bar.set_ylabel(label, fontsize=TICK_SIZE, labelpad=2)
    return bar


def scale_bar(ax: Axes, view: View) -> None:
    """Draw a bar of a round length under the left corner of a panel: in µm, or in px where µm are unknown."""
    left, _, right, _ = view.box
    figure = figure_of(ax)
    um_per_px = view.section.um_per_px
    length = _round_length((right - left) * (um_per_px or 1.0) / 3.5)
    fraction = length / (um_per_px or 1.0) / (right - left)
    below = offset_copy(ax.transAxes, figure, y=-5, units="points")
    bar = Line2D(
        [0, fraction], [0, 0], transform=below, color=ink(), linewidth=1.6, clip_on=False, solid_capstyle="butt"
    )
    bar.set_gid(SCALE_BAR)
    ax.add_artist(bar)
    text = _in_um(length) if um_per_px else f"{length:g} px"
    ax.text(
        0,
        0,
        text,
        transform=offset_copy(below, figure, y=-3, units="points"),
        ha="left",
        va="top",
        fontsize=TICK_SIZE,
        color=ink(),
        gid=SCALE_BAR,
    )


def _round_length(most: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten up to `most`."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step for step in (1, 2, 5) if step * power <= most * (1 + 1e-9)) * power)


def _in_um(length: float) -> str:
    return f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
