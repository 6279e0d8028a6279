"""The score of the most confident spots, by how many are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from sthisto._scoring.selective import RISK_COVERAGE
from sthisto._sdata.record import as_keys, method_labels, read_record
from sthisto._sdata.sections import read_tables
from sthisto._sdata.slots import KEY
from sthisto.pl._arguments import ONE_AXES, checked_plot
from sthisto.pl._decorations import TICK_SIZE
from sthisto.pl._figures import closes_on_error
from sthisto.pl._style import METHOD_COLORS, cycle, single_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData


@closes_on_error()
@checked_plot(ax=ONE_AXES)
def risk_coverage(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    key_added: str | Sequence[str] = KEY,
    table_key: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Show whether leaving out the least confident spots raises the score.

    Where the confidence is informative, the curve rises from right to left: fewer spots, the most confident ones, score
    higher. A flat curve says that it does not order the spots of these sections, which may all be alike.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them, scored by `sthisto.tl.evaluate`.
    key_added
        Key or keys that were scored.
    table_key
        Table with the scores. None: inferred if there is exactly one.
    ax
        Axes to draw into instead of new ones.

    Returns
    -------
    The axes: the mean residual score over the sections against the share of the spots that are kept, with a thin line
    for each section, and in the legend the gain: the mean of the curve below 1, less the score of all spots.

    Raises
    ------
    KeyError
        A key was not scored, or its method gives no confidence.

    References
    ----------
    El-Yaniv and Wiener, On the foundations of noise-free selective classification, JMLR 11:1605 (2010).

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=3, n_patients=3)
    >>> sth.pp.split(sdata, by="patient", patient_key="patient")
    >>> model = sth.tl.fit(sdata, method="color")
    >>> sth.tl.predict(sdata, model)
    >>> sth.tl.evaluate(sdata)
    >>> ax = sth.pl.risk_coverage(sdata)
    """
    keys, tables = as_keys(key_added), read_tables(sdata, table_key)
    curves = {key: _curve(read_record(tables[0], key).more.get(RISK_COVERAGE), key) for key in keys}
    labels = method_labels(tables, keys)
    ax = single_axes(ax)
    for (key, curve), color in zip(curves.items(), cycle(METHOD_COLORS, len(keys)), strict=True):
        mean = curve.groupby("share")["pcc_residual"].mean()
        gain = mean[mean.index < 1].mean() - mean[1.0]
        for _, part in curve.groupby("section", sort=False):
            ax.plot(part["share"], part["pcc_residual"], color=color, linewidth=0.6, alpha=0.45)
        label = f"{labels[key]}: gain {gain:+.3f}"
        ax.plot(mean.index, mean, "o-", color=color, markersize=3.5, linewidth=1.3, label=label)
    ax.legend(fontsize=TICK_SIZE, frameon=False)
    tidy(ax, x="Share of the spots, most confident first", y="PCC with Pearson residuals")
    return ax


def _curve(found: pd.DataFrame | None, key: str) -> pd.DataFrame:
    if found is None:
        msg = (
            f"uns[{key!r}] holds no {RISK_COVERAGE!r}. Call sth.tl.evaluate(sdata, key_added={key!r}) first, for a "
            "method with confidence and at least 20 scored spots of a section."
        )
        raise KeyError(msg)
    return found
