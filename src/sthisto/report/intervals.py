"""The part of a report on intervals: whose tissue they hold for, and how many measured values lie within."""

from __future__ import annotations

from typing import Any, Final

from sthisto import pl
from sthisto._sdata.slots import INTERVAL, INTERVAL_HOLDS_FOR
from sthisto.models.conformal import HOLDS_FOR
from sthisto.pl._decorations import figure_of
from sthisto.pl._intervals import coverage
from sthisto.pl._read import TRAINED_ON
from sthisto.report.page import Block, Table
from sthisto.report.pictures import encode
from sthisto.report.subject import Subject

_SAME: Final = HOLDS_FOR["block"]


def intervals_block(subject: Subject, most_bytes: int) -> Block | None:
    """Return whom the intervals hold for and, where expression was measured, what they cover; None without any."""
    more = subject.record.more
    if INTERVAL not in more:
        return None
    level, holds_for = float(more[INTERVAL]), str(more[INTERVAL_HOLDS_FOR])
    whom = f"the {holds_for}" if holds_for == _SAME else holds_for
    text = [f"Intervals at {level:.0%}, from the errors on spots that were not trained on. They hold for {whom}."]
    if holds_for == _SAME:
        text[0] += (
            " There were too few calibration patients: on a new patient, fewer of the values may lie within, and how "
            "many is not known."
        )
    if not subject.is_measured():
        return Block("Intervals: how far off", text)
    found = coverage(subject.sections, subject.key)
    if found["remark"].eq(TRAINED_ON).any():
        text.append("No spot is held out, and some were trained on: the coverage is too high.")
    rows = found.groupby("section", sort=False)[["coverage", "width"]].mean().reset_index()
    rows["coverage"] = [f"{share:.1%}" for share in rows["coverage"]]
    rows = rows.rename(columns={"coverage": "measured values within", "width": "mean width"})
    ax = pl.intervals(subject.sdata, key_added=subject.key, **_keys(subject))
    alt = f"Histogram of the {subject.what} by the share of the measured values within their intervals, {subject.label}"
    caption = f"{subject.what.capitalize()} by the share of their measured values within. Dashed: {level:.0%}."
    picture = encode(figure_of(ax), alt=alt, caption=caption, most_bytes=most_bytes)
    return Block("Intervals: how far off", text, tables=[Table.of(rows, "Coverage by section")], pictures=[picture])


def _keys(subject: Subject) -> dict[str, Any]:
    return {name: value for name, value in subject.keys.arguments().items() if name != "um_per_px"}
