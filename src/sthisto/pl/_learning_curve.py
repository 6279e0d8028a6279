"""Scores of held-out groups by the size of the training set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from sthisto._utils.validate import listed
from sthisto.pl._decorations import TICK_SIZE
from sthisto.pl._figures import closes_on_error
from sthisto.pl._style import METHOD_COLORS, cycle, single_axes, tidy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_X_LABELS: Final = {
    "spots": "Share of the training spots",
    "depth": "Share of the training counts",
    "sections": "Training sections",
    "patients": "Training patients",
}
_NEEDED: Final = ("by", "size", "pcc_residual", "low", "high", "fitted", "extrapolated")


@closes_on_error()
def learning_curve(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Show how the residual score of held-out groups rises with the size of the training set.

    Parameters
    ----------
    table
        What `tl.learning_curve` returned.
    ax
        Axes to draw into instead of new ones.

    Returns
    -------
    The axes: mean scores with their intervals at 95 %, on a logarithmic axis; the power law as a dashed line where it
    holds, ending in a hollow dot at the size beyond those that were measured.

    Raises
    ------
    ValueError
        The table has not the columns of `tl.learning_curve`.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=3, n_patients=3)
    >>> table = sth.tl.learning_curve(sdata, method="color", sizes=[0.25, 1], repeats=1)
    >>> ax = sth.pl.learning_curve(table)
    """
    missing = [name for name in _NEEDED if name not in table]
    if missing:
        msg = f"`table` has no column {listed(missing)}. Pass the table that sth.tl.learning_curve returned."
        raise ValueError(msg)
    ax = single_axes(ax)
    (color,) = cycle(METHOD_COLORS, 1)
    measured, beyond = table[~table["extrapolated"]], table[table["extrapolated"]]
    value = measured["pcc_residual"].to_numpy(dtype=float)
    spread = np.abs(measured[["low", "high"]].to_numpy(dtype=float).T - value)
    ax.errorbar(measured["size"], value, yerr=spread, fmt="o", color=color, markersize=4.5, capsize=2, linewidth=1)
    if table["fitted"].notna().any():
        ax.plot(table["size"], table["fitted"], "--", color=color, linewidth=1.1, label="power law")
        ax.plot(
            beyond["size"], beyond["fitted"], "o", color=color, markersize=5, fillstyle="none", label="extrapolated"
        )
        ax.legend(fontsize=TICK_SIZE, frameon=False)
    by = str(table["by"].iloc[0])
    ax.set_xscale("log", base=2)
    ticks = table["size"].to_numpy(dtype=float)
    ax.set_xticks(ticks, [f"{size:g}" if size >= 1 else f"1/{1 / size:g}" for size in ticks])
    tidy(ax, x=_X_LABELS.get(by, by), y="PCC with Pearson residuals")
    return ax
