"""The parts of a report that are maps: genes, confidence, and the quality of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import Normalize

from sthisto import pl
from sthisto._scoring.selective import RISK_COVERAGE
from sthisto._sdata.sections import Section
from sthisto._sdata.slots import BLUR, FOLD, PEN, QUALITY, TISSUE, confidence
from sthisto._utils.validate import check_key
from sthisto.pl._decorations import color_bar, figure_of, scale_bar, set_title
from sthisto.pl._read import is_measured
from sthisto.pl._spots import view
from sthisto.report.page import MISSING, Block, Picture, Table
from sthisto.report.pictures import encode
from sthisto.report.subject import Subject

MOST_SECTIONS = 20
"""Sections that are drawn; the others are named."""
_PER_ROW = 4
_PANEL = 2.1
_NAMES = {BLUR: "blur", PEN: "marker", FOLD: "fold", TISSUE: "tissue", QUALITY: "quality"}
_HALF = 0.5


def choose_genes(subject: Subject, genes: Sequence[str] | None) -> list[str]:
    """Return the genes to draw: those given, or those of the highest, a middle and the lowest score.

    Raises
    ------
    KeyError
        A gene was not predicted.
    """
    for gene in genes or ():
        check_key(gene, subject.genes, name="genes", where=f"the predicted {subject.what}")
    if genes is not None:
        return list(dict.fromkeys(genes))
    if subject.scores is not None:
        means = subject.scores.groupby("gene", sort=False)["pcc_residual"].mean().dropna().sort_values()
        if len(means):
            at = dict.fromkeys((len(means) - 1, len(means) // 2, 0))
            return [str(means.index[i]) for i in at]
    section = subject.sections[0]
    spread = np.nanvar(subject.values(section), axis=0)
    return [subject.genes[i] for i in np.argsort(-spread, kind="stable")[:3]]


def n_pictures(subject: Subject) -> int:
    """Return how many pictures a report may have: maps, scores, confidence with its curve, and intervals."""
    return min(len(subject.sections), MOST_SECTIONS) + 4


def genes_block(subject: Subject, genes: Sequence[str], *, chosen: bool, most_bytes: int) -> Block:
    """Return the maps of some genes in every section, measured beside predicted."""
    how = "the most variable" if subject.scores is None else "those of the highest, a middle and the lowest score"
    text = [f"Drawn are {', '.join(genes)}" + ("." if chosen else f", {how}.")]
    text[0] += " Panels of a gene share one color scale within a section."
    order = sorted(subject.sections, key=lambda section: bool(subject.seen_spots(section).any()))
    if left_out := order[MOST_SECTIONS:]:
        text.append(f"Not drawn: {', '.join(section.name for section in left_out)}.")
    pictures = [_gene_map(subject, section, genes, most_bytes) for section in order[:MOST_SECTIONS]]
    return Block("Maps", text, pictures=pictures)


def _gene_map(subject: Subject, section: Section, genes: Sequence[str], most_bytes: int) -> Picture:
    scale = subject.record.normalization
    measured = scale is not None and is_measured(section, scale)
    keys: dict[str, Any] = subject.keys.arguments()
    keys.pop("um_per_px")
    figure = pl.gene_compare(
        subject.sdata, genes, key_added=subject.key, sections=section.name, show_measured=measured, **keys
    )
    shown = "Measured and predicted expression" if measured else "Predicted expression"
    alt = f"{shown} of {', '.join(genes)} in section {section.name}, beside the H&E"
    caption = f"{section.name}. The number in a title is Pearson's correlation over the scored spots."
    return encode(figure, alt=alt, caption=caption if measured else f"{section.name}.", most_bytes=most_bytes)


def _with_confidence(subject: Subject) -> list[Section]:
    column = confidence(subject.key)
    return [one for one in subject.sections if column in one.table.obs][:MOST_SECTIONS]


def confidence_block(subject: Subject, most_bytes: int) -> Block | None:
    """Return maps of the confidence, None for a method without one."""
    sections = _with_confidence(subject)
    if not sections:
        return None
    values = [section.table.obs[confidence(subject.key)].to_numpy(dtype=float)[section.rows] for section in sections]
    rows = [
        {
            "section": section.name,
            "median": float(np.nanmedian(one)) if np.isfinite(one).any() else float("nan"),
            "spots below 0.5": f"{np.mean(one[np.isfinite(one)] < _HALF):.0%}" if np.isfinite(one).any() else MISSING,
        }
        for section, one in zip(sections, values, strict=True)
    ]
    text = [
        "How like the training spots a spot looks, 0 to 1. It is no probability; a low value says that the model has "
        "seen little like it."
    ]
    alt = "Maps of the confidence: " + ", ".join(f"{row['section']} median {row['median']:.2f}" for row in rows)
    picture = encode(
        _confidence_map(sections, values), alt=alt, caption="Confidence of every spot.", most_bytes=most_bytes
    )
    table = Table.of(pd.DataFrame(rows), "Confidence by section")
    pictures = [picture]
    if RISK_COVERAGE in subject.record.more:
        text.append(
            "Where it orders the spots, leaving out those of least confidence raises the score, and the curve below "
            "rises to the left."
        )
        pictures.append(_curve(subject, most_bytes))
    return Block("Confidence: which spots", text, tables=[table], pictures=pictures)


def _curve(subject: Subject, most_bytes: int) -> Picture:
    ax = pl.risk_coverage(subject.sdata, key_added=subject.key, table_key=subject.keys.table_key)
    alt = f"Mean residual PCC of the most confident spots, by the share that is kept, {subject.label}"
    caption = "Score of the spots that are kept: of all at the right, of the most confident third at the left."
    return encode(figure_of(ax), alt=alt, caption=caption, most_bytes=most_bytes)


def _confidence_map(sections: Sequence[Section], values: Sequence[np.ndarray]) -> plt.Figure:
    views = [view(section) for section in sections]
    n_columns = min(len(views), _PER_ROW)
    n_rows = -(-len(views) // n_columns)
    tallest = max(one.aspect for one in views)
    size = (n_columns * _PANEL + 0.8, n_rows * (_PANEL * tallest + 0.4))
    figure, axes = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.ravel()[len(views) :]:
        ax.set_axis_off()
    for ax, shared, spots in zip(axes.ravel(), views, values, strict=False):
        shared.draw_image(ax, 0.4)
        drawn = shared.draw_spots(ax, spots, cmap="viridis", norm=Normalize(0, 1))
        set_title(ax, shared.section.name)
        scale_bar(ax, shared)
    color_bar(axes[0, n_columns - 1], drawn, "Confidence")
    return figure


def quality_block(subject: Subject) -> Block | None:
    """Return the quality of the image under the spots, None where `pp.quality` was not called."""
    rows = []
    for section in subject.sections:
        found = {
            label: subject.column(section, name)
            for name, label in _NAMES.items()
            if name in section.table.obs and section.table.obs[name].dtype.kind in "fiub"
        }
        if found:
            rows.append({"section": section.name} | {label: _spread(column) for label, column in found.items()})
    if not rows:
        return None
    text = ["Measured from pixels alone, per spot: median and 5 % to 95 % quantiles of each section."]
    return Block("Quality of the image", text, tables=[Table.of(pd.DataFrame(rows), "Quality by section")])


def _spread(column: pd.Series | None) -> str:
    values = np.asarray(column, dtype=float)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return MISSING
    low, middle, high = np.quantile(finite, (0.05, 0.5, 0.95))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"
