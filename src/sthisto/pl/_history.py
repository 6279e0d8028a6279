"""Training and validation loss over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.ticker import MaxNLocator

from sthisto._sdata.record import as_keys, has_record, method_labels, read_part
from sthisto._sdata.sections import read_tables
from sthisto._sdata.slots import KEY
from sthisto.pl._decorations import TICK_SIZE
from sthisto.pl._figures import closes_on_error
from sthisto.pl._style import METHOD_COLORS, cycle, single_axes, tidy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from spatialdata import SpatialData


@closes_on_error()
def history(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    key_added: str | Sequence[str] = KEY,
    table_key: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Show training and validation loss over the epochs, and the epoch that was kept.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them, of which the first with the key is read.
    key_added
        Key or keys that `sthisto.tl.fit` wrote to.
    table_key
        Table with the key. None: inferred if exactly one table annotates a region.
    ax
        Axes to draw into instead of new ones.

    Returns
    -------
    The axes: training loss dashed, validation loss solid, a dot at its minimum.

    Raises
    ------
    KeyError
        No method was fitted under a key.
    ValueError
        A method has no epochs, or the table is ambiguous.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> model = sth.tl.fit(sdata, image_encoder="efficientnet_lite0", max_epochs=5)  # doctest: +SKIP
    >>> ax = sth.pl.history(sdata)  # doctest: +SKIP
    """
    tables = read_tables(sdata, table_key)
    keys = as_keys(key_added)
    labels = method_labels(tables, keys)
    curves = {}
    for key in keys:
        table = next(table for table in tables if has_record(table, key))
        curves[labels[key]] = read_part(table, key, "history", call=f"sth.tl.fit(sdata, key_added={key!r})")
        if not len(curves[labels[key]]):
            msg = f"{labels[key]} under key_added={key!r} is fitted in one step: it has no epochs to show."
            raise ValueError(msg)
    ax = single_axes(ax)
    for (label, curve), color in zip(curves.items(), cycle(METHOD_COLORS, len(keys)), strict=True):
        _draw(ax, curve, "" if len(keys) == 1 else f"{label}, ", color)
    tidy(ax, x="Epoch", y="Loss", title=next(iter(curves)) if len(keys) == 1 else "")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=TICK_SIZE, frameon=False)
    return ax


def _draw(ax: Axes, curve: pd.DataFrame, prefix: str, color: str) -> None:
    epoch, train, validation = (curve[name].to_numpy(dtype=float) for name in ("epoch", "train_loss", "val_loss"))
    ax.plot(epoch, train, "--", color=color, linewidth=1.1, alpha=0.7, label=f"{prefix}training")
    ax.plot(epoch, validation, "-", color=color, linewidth=1.4, label=f"{prefix}validation")
    best = int(curve["val_loss"].to_numpy(dtype=float).argmin())
    ax.plot(epoch[best], validation[best], "o", color=color, markersize=4.5, label=f"{prefix}lowest")
