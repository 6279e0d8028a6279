"""How many of the measured values lie within the intervals of a prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.predictions import predicted_values
from sthisto._sdata.record import as_keys, method_labels, read_record, symbols_of
from sthisto._sdata.slots import INTERVAL, INTERVAL_HOLDS_FOR, KEY, high, low
from sthisto.pl._arguments import ONE_AXES, checked_plot
from sthisto.pl._decorations import TICK_SIZE
from sthisto.pl._figures import closes_on_error
from sthisto.pl._read import (
    choose_sections,
    joint_remark,
    measured,
    predicted_sections,
    read_scale,
    scored_spots,
    shared_genes,
)
from sthisto.pl._style import METHOD_COLORS, cycle, single_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from sthisto._sdata.sections import Section

_BINS = np.linspace(0, 1, 26)


@closes_on_error()
@checked_plot(ax=ONE_AXES)
def intervals(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    key_added: str | Sequence[str] = KEY,
    sections: str | Sequence[str] | None = None,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Show how many of the measured values lie within the prediction intervals, gene by gene.

    Intervals at 90 % are to hold 90 % of the values, on average over genes and over the patients that they hold for.
    The legend says which these are: intervals for the "same patients" may hold fewer values of new ones.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    key_added
        Key or keys that `sthisto.tl.predict` wrote to with ``interval=…``.
    sections
        Names of the sections. None: all that have a prediction.
    image_key
        H&E image, or a mapping from region to image. None: inferred if there is exactly one candidate; of several RGB
        images of one place, the finest.
    shapes_key
        Region or regions to use, shapes or labels. None: all regions that the table annotates.
    table_key
        Table that annotates the regions. None: inferred if there is exactly one.
    coordinate_system
        Coordinate system in which images and regions are aligned. None: inferred from those that both share.
    ax
        Axes to draw into instead of new ones.

    Returns
    -------
    The axes: a histogram of the genes by the share of the measured values within their intervals, a line for the mean
    and a dashed one for the level. If any spots are scored by `sthisto.tl.evaluate`, these are counted; else all spots,
    marked "(trained on)" or "(no test spots)".

    Raises
    ------
    KeyError
        There is no prediction under a key, it has no intervals, or an element is missing.
    ValueError
        Nothing was measured, or an element is ambiguous.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=3, n_patients=3)
    >>> sth.pp.split(sdata, by="patient", patient_key="patient", calibration=0.2)
    >>> model = sth.tl.fit(sdata, method="color")
    >>> sth.tl.predict(sdata, model, interval=0.8)
    >>> ax = sth.pl.intervals(sdata)
    """
    keys = as_keys(key_added)
    candidates = choose_sections(sdata, sections, ElementKeys(image_key, shapes_key, table_key, coordinate_system))
    chosen = predicted_sections(candidates, keys, named=sections is not None)
    tables = [section.table for section in chosen]
    labels = method_labels(tables, keys)
    stated = {key: _stated(chosen[0], key) for key in keys}
    found = {key: coverage(chosen, key) for key in keys}
    ax = single_axes(ax)
    for key, color in zip(keys, cycle(METHOD_COLORS, len(keys)), strict=True):
        level, holds_for = stated[key]
        of_genes = found[key].groupby("gene", sort=False)["coverage"].mean()
        remark = found[key]["remark"].iloc[0]
        label = f"{labels[key]}{remark}: {of_genes.mean():.0%} within {level:.0%}, {holds_for}"
        ax.hist(of_genes, bins=_BINS.tolist(), histtype="step", color=color, linewidth=1.2)
        ax.axvline(float(of_genes.mean()), color=color, linewidth=1, label=label)
        ax.axvline(level, color="0.5", linewidth=0.8, linestyle="--")
    ax.set_xlim(0, 1)
    ax.legend(fontsize=TICK_SIZE, frameon=False, loc="upper left")
    tidy(ax, x="Share of the measured values within the interval", y="Genes")
    return ax


def coverage(sections: Sequence[Section], key: str) -> pd.DataFrame:
    """Return the share of the measured values that lie within the intervals, a row for each section and gene.

    Columns section, gene, coverage, width (the mean of the intervals), remark (on the spots, "" where
    they are held out).
    """
    tables = [section.table for section in sections]
    symbols, scale = symbols_of(tables[0], key), read_scale(tables, [key])
    genes = shared_genes(tables, [key], symbols)
    scored = [scored_spots(section, [key]) for section in sections]
    remark = joint_remark([one for _, one in scored])
    parts = []
    for section, (spots, one) in zip(sections, scored, strict=True):
        if one and not remark:
            continue
        truth = measured(section, scale, genes, symbols)[spots]
        bottom, top = (
            predicted_values(section.table, key, slot(key), genes, rows=section.rows, gene_symbols=symbols)[spots]
            for slot in (low, high)
        )
        known = np.isfinite(truth) & np.isfinite(bottom) & np.isfinite(top)
        within = (known & (bottom <= truth) & (truth <= top)).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        columns: dict[str, Any] = {
            "section": section.name,
            "gene": genes,
            "coverage": np.where(known.any(axis=0), within, np.nan),
            "width": np.where(known, top - bottom, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1),
            "remark": remark,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _stated(section: Section, key: str) -> tuple[float, str]:
    """Return the level of the intervals under a key, and whose tissue they hold for; raise KeyError without any."""
    more = read_record(section.table, key).more
    if INTERVAL not in more:
        msg = (
            f"There are no intervals under key_added={key!r}. Call sth.tl.predict(sdata, model, interval=0.9) with a "
            "model that was fitted with calibration spots (sth.pp.split(…, calibration=…))."
        )
        raise KeyError(msg)
    return float(more[INTERVAL]), str(more[INTERVAL_HOLDS_FOR])
