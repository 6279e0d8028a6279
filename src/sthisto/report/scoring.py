"""The part of a report on scores, beside references and what else was predicted for the same spots."""

from __future__ import annotations

import shlex

import pandas as pd

from sthisto import get, pl
from sthisto._sdata.slots import ALL_GENES, KEY
from sthisto.report.page import MINUS, Block, Picture, Table, with_interval
from sthisto.report.pictures import encode
from sthisto.report.subject import GENES, Subject

_N_SHOWN = 10
_SHOWN = {
    "depth_pcc_residual": "depth alone",
    "sibling": "sibling genes",
    "reproducibility": "reproducibility",
    "pcc": "PCC",
    "depth_pcc": "PCC of depth alone",
    "rmse": "RMSE",
}
_MEANING = (
    "Residual PCC is Pearson's correlation with the measured Pearson residuals, gene by gene over the spots of a "
    "section: depth alone scores about 0. PCC is the correlation on the scale of the prediction, which depth alone "
    "raises.",
    "Sibling genes: what the other genes of the same spots predict of a gene, a fair reference. Reproducibility: what "
    "a second sequencing of the same spots would reach, no target for an image. Intervals at 95 % hold for further "
    "tissue like this, not for new patients.",
)
_MEANING_OF_TARGETS = (
    "PCC is Pearson's correlation over the spots of a section with what was measured: the mean Pearson residual of a "
    "set or the proportion of a cell type. Residual PCC is the same number.",
    "Intervals at 95 % hold for further tissue like this, not for new patients.",
)
_UNSCORED = (
    "There are no scores. Where expression was measured, either line computes them, the first in Python and the second "
    "in a shell, where --out scores.csv writes the scores alone:"
)


def headline(subject: Subject) -> str:
    """Return the score in one sentence."""
    if subject.summary is None:
        return "It was not scored: nothing was measured, or neither sth.tl.evaluate nor sthisto evaluate was run."
    row = subject.summary[(subject.summary["section"] == "all") & (subject.summary["genes"] == ALL_GENES)].iloc[0]
    score = with_interval(row["pcc_residual"], row["pcc_residual_low"], row["pcc_residual_high"])
    n_sections = subject.summary["section"].nunique() - 1
    siblings = "" if pd.isna(row["sibling"]) else f" Sibling genes reach {row['sibling']:.3f}."
    of_depth = row["depth_pcc_residual"]
    depth = "" if pd.isna(of_depth) else f" Depth alone scores {of_depth:.3f}.".replace("-", MINUS)
    over = f"{row['n_genes']:,} {subject.what} and {row['n_spots']:,} spots"
    sections = f"{n_sections} section{'s' if n_sections != 1 else ''}"
    return f"Mean residual PCC {score} over {over} of {sections}.{siblings}{depth}"


def scores_block(subject: Subject, most_bytes: int) -> Block:
    """Return scores by section and gene, and those of the other predictions in the data."""
    if subject.summary is None or subject.scores is None:
        return Block("Scores", [_UNSCORED], code=_evaluations(subject.key))
    summary = subject.summary
    if summary["section"].nunique() == 2:  # one section, which is its own mean
        summary = summary[summary["section"] != "all"]
    tables = [_sections_table(summary, f"{subject.label} by section")]
    if others := subject.scored_keys():
        tables.append(_methods_table(subject, others))
    tables += _genes_tables(subject)
    pictures = [_figure(subject, most_bytes)] if subject.scores["pcc_residual"].notna().any() else []
    meaning = _MEANING if subject.what == GENES else _MEANING_OF_TARGETS
    return Block("Scores", meaning, tables=tables, pictures=pictures)


def _evaluations(key: str) -> str:
    """Return the call and the command that score a prediction."""
    command = ["sthisto", "evaluate", "predicted.zarr", "--out", "evaluated.zarr"]
    option = [] if key == KEY else ["--key-added", key]
    return f"sth.tl.evaluate(sdata, key_added={key!r})\n{shlex.join([*command, *option])}"


def _sections_table(summary: pd.DataFrame, caption: str, first: tuple[str, ...] = ("section",)) -> Table:
    columns = {name: summary[name] for name in first}
    columns |= {"genes": summary["genes"] + " (" + summary["n_genes"].astype(str) + ")", "spots": summary["n_spots"]}
    limits = zip(*(summary[f"pcc_residual{end}"] for end in ("", "_low", "_high")), strict=True)
    columns["residual PCC [95 %]"] = [with_interval(*row) for row in limits]
    columns |= {label: summary[name].astype(float) for name, label in _SHOWN.items() if name in summary}
    return Table.of(pd.DataFrame(columns), caption)


def _methods_table(subject: Subject, others: list[str]) -> Table:
    """Return the mean scores of every prediction of the same spots and genes, the best first."""
    keys = [subject.key, *others]
    summary = get.scores(subject.sdata, key_added=keys, by="section", table_key=subject.keys.table_key)
    overall = summary[(summary["section"] == "all") & (summary["genes"] == ALL_GENES)].copy()
    mine = overall[overall["key"] == subject.key].iloc[0]
    alike = (overall[["n_genes", "n_spots"]] == mine[["n_genes", "n_spots"]]).all(axis=1)
    overall = overall[alike].sort_values("pcc_residual", ascending=False)
    return _sections_table(overall, "Predictions of the same spots and as many genes, the best first", ("method",))


def _genes_tables(subject: Subject) -> list[Table]:
    """Return the best genes, and all of them folded, by their mean over sections."""
    assert subject.scores is not None
    names = ["pcc_residual", *(name for name in _SHOWN if name in subject.scores)]
    means = subject.scores.groupby("gene", sort=False)[names].mean().sort_values("pcc_residual", ascending=False)
    frame = means.rename(columns={"pcc_residual": "residual PCC", **_SHOWN}).reset_index()
    if subject.record.passport is not None:
        verdicts = subject.record.passport.set_index("gene")["verdict"].astype(str)
        frame.insert(1, "verdict", verdicts.reindex(frame["gene"]).to_numpy())
    best = Table.of(frame.head(_N_SHOWN), f"The {min(_N_SHOWN, len(frame))} {subject.what} of the highest score")
    every = Table.of(frame, f"All {len(frame):,} {subject.what}", folded=True)
    return [best, every] if len(frame) > _N_SHOWN else [best]


def _figure(subject: Subject, most_bytes: int) -> Picture:
    figure = pl.scores(subject.sdata, key_added=subject.key, table_key=subject.keys.table_key)
    caption = (
        "Left: genes ranked by their score, beside sibling genes and depth alone. Right: the distribution over genes "
        "in each section; the box is the middle half, the diamond the mean."
    )
    alt = f"Residual PCC of every gene and its distribution per section, {subject.label}"
    return encode(figure, alt=alt, caption=caption, most_bytes=most_bytes)
