"""The summary of a cohort as one HTML page."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final

import pandas as pd

from sthisto._utils.atomic import atomic_file

PAGE: Final = "summary.html"
_STYLE: Final = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:2rem;color:#222}table{border-collapse:collapse}"
    "th,td{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}"
    "td.number{text-align:right;font-variant-numeric:tabular-nums}tr.failed td{background:#fdecea}"
    "tr.running td,tr.pending td{background:#fff8e1}"
)


def write_page(table: pd.DataFrame, out: Path) -> None:
    """Write the table of states as a page without links, scripts or pictures; every text in it is escaped.

    Parameters
    ----------
    table
        Columns slide, state, message, spots, seconds.
    out
        Folder of the results.
    """
    with atomic_file(out / PAGE) as staged:
        staged.write_text(_page(table), encoding="utf-8")


def _page(table: pd.DataFrame) -> str:
    counts = table["state"].value_counts()
    head = ", ".join(f"{count} {state}" for state, count in counts.items())
    seconds = float(table.loc[table["state"] == "done", "seconds"].mean()) if (table["state"] == "done").any() else 0.0
    order = table["state"].eq("done")
    rows = "".join(_row(row) for _, row in table.assign(order=order).sort_values("order", kind="stable").iterrows())
    titles = "".join(f"<th>{escape(name)}</th>" for name in ("slide", "state", "spots", "seconds", "message"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>sthisto: predicted slides</title>'
        f"<style>{_STYLE}</style></head><body><h1>Predicted slides</h1><p>{len(table)} slides: {escape(head)}. "
        f"{int(table['spots'].sum()):,} spots, {seconds:.1f} seconds a slide.</p>"
        f"<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table></body></html>\n"
    )


def _row(row: pd.Series) -> str:
    cells = f"<td>{escape(str(row['slide']))}</td><td>{escape(str(row['state']))}</td>"
    cells += f'<td class="number">{int(row["spots"]):,}</td><td class="number">{row["seconds"]:.1f}</td>'
    return f'<tr class="{escape(str(row["state"]))}">{cells}<td>{escape(str(row["message"]))}</td></tr>'
