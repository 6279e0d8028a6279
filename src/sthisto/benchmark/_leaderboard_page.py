"""A leaderboard to read: as Markdown, and as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from sthisto._scoring.only_section import without_only_section
from sthisto.benchmark._leaderboard import ALL
from sthisto.benchmark._markdown import as_markdown
from sthisto.report.contents import repeat_block
from sthisto.report.page import Block, Page, Table, as_cell, with_interval

_COLUMNS = ("rank", "prediction", "genes", "spots", "residual PCC [95 %]", "Δ from the reference [95 %]", "PCC", "RMSE")
_TEXT = (
    "Every number was computed from the predicted values, on the spots and genes that all predictions have. Residual "
    "PCC is Pearson's correlation with the measured Pearson residuals. Differences are paired over the same spots; "
    "intervals come from spatial blocks and hold for further tissue like this, not for new patients."
)


def as_text(scores: pd.DataFrame) -> str:
    """Return the leaderboard as Markdown."""
    parts = ["# Leaderboard", _TEXT]
    for title, rows in _tables(scores):
        parts += [f"## {title}", as_markdown(list(_COLUMNS), rows)]
    if notes := _notes(scores):
        parts += ["## Not compared", "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def page(scores: pd.DataFrame, command: str) -> Page:
    """Return the leaderboard as a page."""
    tables = [Table(title, list(_COLUMNS), rows, folded=i > 1) for i, (title, rows) in enumerate(_tables(scores))]
    blocks = [Block("Scores", [_TEXT], tables=tables)]
    if notes := _notes(scores):
        blocks.append(Block("Not compared", items=notes))
    ranked = scores[scores["rank"].notna() & (scores["section"] == ALL)]
    best = ranked.sort_values("rank").iloc[0]
    score = with_interval(best["pcc_residual"], best["pcc_residual_low"], best["pcc_residual_high"])
    lead = f"{ranked['method'].nunique()} predictions; {best['method']} has the highest mean residual PCC, {score}."
    return Page("Leaderboard", lead, [*blocks, repeat_block(command)])


def _tables(scores: pd.DataFrame) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield title and rows of each section and set of genes, the mean over sections first."""
    scored = scores[scores["note"].isna()]
    names = [name for name in scored["section"].unique() if name != ALL]
    of_all = names[0] if len(names) == 1 else "mean over sections"
    for (section, genes), part in without_only_section(scored).groupby(["section", "genes"], sort=False):
        where = of_all if section == ALL else section
        yield f"{where}, {genes}", [_row(row) for _, row in part.iterrows()]


def _row(row: pd.Series) -> list[str]:
    limits = [row[f"pcc_residual{end}"] for end in ("", "_low", "_high")]
    paired = [row[f"difference{end}"] for end in ("", "_low", "_high")]
    return [
        "" if pd.isna(row["rank"]) else str(int(row["rank"])),
        str(row["method"]).replace("|", "/"),
        f"{int(row['n_genes']):,}",
        f"{int(row['n_spots']):,}",
        with_interval(*limits),
        "" if pd.isna(paired[0]) else with_interval(*paired),
        as_cell(float(row["pcc"])),
        as_cell(float(row["rmse"])),
    ]


def _notes(scores: pd.DataFrame) -> list[str]:
    refused = scores[scores["note"].notna()]
    return [f"{row['method']}: {row['note']}" for _, row in refused.iterrows()]
