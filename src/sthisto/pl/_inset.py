"""An inset that enlarges a part of a chart, placed where it covers the fewest points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sthisto.pl._decorations import TICK_SIZE, ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (0.46, 0.34)
_TICKS = (0.13, 0.1)
_HEADROOM = 1.55


def draw_zoom(ax: Axes, x: np.ndarray, y: np.ndarray, *, window: tuple[float, float], color: str) -> Axes:
    """Enlarge the part of a chart between two quantiles of x, where it covers no point.

    Where there is no such place, the y axis is extended to make room at the top.

    Parameters
    ----------
    ax
        Axes with their limits set.
    x
        (n,) ascending positions.
    y
        (2, n) values that are drawn as points and as a line.
    window
        Quantiles of x where the part begins and ends.
    color
        Color of the points.
    """
    place, covered = emptiest_place(ax, x, y)
    if covered:
        ax.set_ylim(top=_HEADROOM * ax.get_ylim()[1])
        place, _ = emptiest_place(ax, x, y)
    inset = ax.inset_axes((*place, *_SIZE))
    low, high = np.quantile(x, window)
    inside = (x >= low) & (x <= high)
    points, line = y[:, inside]
    inset.scatter(x[inside], points, s=5, color=color, linewidths=0, alpha=0.7)
    inset.plot(x[inside], line, color=ink(), linewidth=1)
    pad = 0.08 * np.ptp(y[:, inside]) or 1e-3
    inset.set(xlim=(low, high), ylim=(y[:, inside].min() - pad, y[:, inside].max() + pad))
    inset.tick_params(labelsize=TICK_SIZE - 1, width=0.4, length=1.5, pad=1)
    inset.locator_params(nbins=3)
    inset.spines[:].set(linewidth=0.5, color="0.4")
    inset.grid(visible=False)
    ax.indicate_inset_zoom(inset, edgecolor="0.4", linewidth=0.5, alpha=1)
    return inset


def emptiest_place(ax: Axes, x: np.ndarray, y: np.ndarray) -> tuple[tuple[float, float], int]:
    """Return where an inset covers the fewest points, as its lower left corner in fractions of the axes, and how many.

    Parameters
    ----------
    ax
        Axes with their limits set.
    x
        (n,) positions.
    y
        (2, n) values.
    """
    points = np.stack([np.broadcast_to(x, y.shape), y], axis=-1).reshape(-1, 2)
    low = np.array([ax.get_xlim()[0], ax.get_ylim()[0]])
    high = np.array([ax.get_xlim()[1], ax.get_ylim()[1]])
    fraction = (points - low) / (high - low)
    places = [
        (float(left), float(bottom))
        for bottom in np.linspace(0.98 - _SIZE[1], _TICKS[1], 10)
        for left in np.linspace(0.99 - _SIZE[0], _TICKS[0], 10)
    ]
    covered = [
        int(np.all((fraction > np.subtract(place, _TICKS)) & (fraction < np.add(place, _SIZE)), axis=1).sum())
        for place in places
    ]
    best = int(np.argmin(covered))
    return places[best], covered[best]
