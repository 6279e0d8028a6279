"""The panels of `gene_compare`: their values, their color scales, and how a row of them is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.colors import Normalize

from sthisto._sdata.record import method_labels
from sthisto.pl._decorations import (
    color_bar,
    figure_of,
    robust_norm,
    scale_bar,
    set_title,
    side_label,
    symmetric_norm,
    wrap_title,
)
from sthisto.pl._layout import GridLayout, given_axes
from sthisto.pl._read import (
    correlations,
    is_measured,
    measured,
    predicted,
    read_layer,
    read_scale,
    scale_label,
    scored_spots,
    spread,
    verdicts,
)
from sthisto.pl._spots import View, view

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from sthisto._sdata.expression import Normalization
    from sthisto._sdata.sections import Section

_UNDER_DIFFERENCE = 0.4
"""Factor on the image's opacity under a difference, whose color map is white at 0."""

Kind = Literal["expression", "difference", "spread", "image"]


@dataclass(frozen=True)
class Style:
    """Color maps, color scales and opacity."""

    cmap: str | Colormap
    vmin: float | None
    vmax: float | None
    image_alpha: float

    def norm(self, kind: Kind, values: Sequence[np.ndarray]) -> Normalize:
        """Return the scale that all panels of a kind, (n_spots,) values each, share."""
        if kind == "difference":
            return symmetric_norm(*values)
        if kind == "spread":
            return robust_norm(*values, vmin=0)
        return robust_norm(*values, vmin=self.vmin, vmax=self.vmax)

    def colors(self, kind: Kind) -> str | Colormap:
        """Return the color map of a kind."""
        return {"difference": "RdBu_r", "spread": "cividis"}.get(kind, self.cmap)


@dataclass(frozen=True)
class Panel:
    """A title and (n_spots,) values; a panel of the H&E has no values."""

    kind: Kind
    title: str
    values: np.ndarray


@dataclass(frozen=True)
class GeneRow:
    """The panels of one gene in one section."""

    gene: str
    view: View
    panels: list[Panel]
    unit: str

    def values(self, kind: Kind) -> list[np.ndarray]:
        """Return the values of all panels of a kind, (n_spots,) each."""
        return [panel.values for panel in self.panels if panel.kind == kind]


def read_gene_rows(
    sections: Sequence[Section],
    genes: Sequence[str],
    *,
    keys: Sequence[str],
    layers: Mapping[str, str],
    gene_symbols: str | None,
    kinds: Mapping[str, bool],
) -> list[GeneRow]:
    """Read the panels of each gene in each section, gene by gene."""
    tables = [section.table for section in sections]
    scale, titles = read_scale(tables, keys), method_labels(tables, keys)
    by_section = [_section_rows(section, genes, titles, layers, scale, gene_symbols, kinds) for section in sections]
    return [rows[i] for i in range(len(genes)) for rows in by_section]


def _section_rows(
    section: Section,
    genes: Sequence[str],
    titles: Mapping[str, str],
    layers: Mapping[str, str],
    scale: Normalization,
    gene_symbols: str | None,
    kinds: Mapping[str, bool],
) -> list[GeneRow]:
    """Return the panels of every gene in one section; `titles` names the methods by their keys."""
    compared = kinds["measured"] or kinds["difference"] or is_measured(section, scale)
    truth = measured(section, scale, genes, gene_symbols) if compared else None
    predictions = {title: predicted(section, key, genes, gene_symbols) for key, title in titles.items()}
    spots = {title: scored_spots(section, [key]) for key, title in titles.items()}
    for layer, title in layers.items():
        predictions[title] = read_layer(section, layer, genes, gene_symbols)
        spots.setdefault(title, scored_spots(section))
    scores = {}
    if truth is not None:
        scores = {title: _scores(truth, values, *spots[title]) for title, values in predictions.items()}
    spreads = {}
    if kinds["spread"]:
        spreads = {title: spread(section, key, genes, gene_symbols) for key, title in titles.items()}
    told = {title: verdicts(section, key, genes, gene_symbols) for key, title in titles.items()}
    notes = {title: [_note(scores.get(title), told.get(title), i) for i in range(len(genes))] for title in predictions}
    shared, unit = view(section), scale_label(scale)
    return [
        GeneRow(gene, shared, list(_panels(i, truth, predictions, notes, spreads, kinds)), unit)
        for i, gene in enumerate(genes)
    ]


def _note(scores: Sequence[str] | None, told: Sequence[str] | None, i: int) -> str:
    """Return what stands behind the title of gene `i`: its score, and the passport's verdict where there is one."""
    return "".join(f", {texts[i]}" for texts in (scores, told) if texts and texts[i])


def _panels(
    i: int,
    truth: np.ndarray | None,
    predictions: Mapping[str, np.ndarray],
    notes: Mapping[str, Sequence[str]],
    spreads: Mapping[str, np.ndarray],
    kinds: Mapping[str, bool],
) -> Iterable[Panel]:
    """Yield the panels of gene `i` of (n_spots, n_genes) arrays; without `truth` nothing was measured."""
    if kinds["measured"] and truth is not None:
        yield Panel("expression", "Measured", truth[:, i])
    for title, values in predictions.items():
        yield Panel("expression", f"{title}{notes[title][i]}", values[:, i])
    if kinds["difference"] and truth is not None:
        for title, values in predictions.items():
            yield Panel("difference", f"{title} minus measured", values[:, i] - truth[:, i])
    for title, values in spreads.items():
        yield Panel("spread", f"{title}, spread", values[:, i])
    if kinds["image"]:
        yield Panel("image", "H&E", np.empty(0))


def _scores(truth: np.ndarray, prediction: np.ndarray, spots: np.ndarray, remark: str) -> list[str]:
    """Return the text of each gene's correlation over some spots, (n_spots,) bool, and the remark on these."""
    scores = correlations(truth, prediction, spots)
    texts = ["PCC undefined" if np.isnan(score) else f"PCC {score:.2f}" for score in scores]
    return [f"{text}{remark}" for text in texts]


def draw_gene_rows(
    rows: Sequence[GeneRow],
    style: Style,
    *,
    figsize: tuple[float, float] | None,
    dpi: float | None,
    ax: Axes | Sequence[Axes] | None,
) -> Figure:
    """Draw the rows into a new figure or into the given axes."""
    if not rows[0].panels:
        msg = "Nothing is left to draw: without layers, keep show_measured, show_image or a key."
        raise ValueError(msg)
    if ax is None:
        figure, leads, axes = _new_axes(rows, figsize, dpi)
    else:
        leads, axes = [], given_axes(ax, len(rows), len(rows[0].panels))
        figure = figure_of(axes[0][0])
    views = {row.view.section.name: row.view for row in rows}
    for lead, shared in zip(leads, views.values(), strict=bool(leads)):
        _draw_image(lead, shared, "H&E" + f", {shared.section.name}" * (len(views) > 1))
    norms = {gene: _norms([row for row in rows if row.gene == gene], style) for gene in {row.gene for row in rows}}
    for row, panels in zip(rows, axes, strict=True):
        _draw_row(row, panels, style, norms[row.gene])
        side_label(panels[0], row.gene, line=int(len(views) > 1), fontstyle="italic", fontweight="bold")
        if len(views) > 1:
            side_label(panels[0], row.view.section.name)
    return figure


def _new_axes(
    rows: Sequence[GeneRow], figsize: tuple[float, float] | None, dpi: float | None
) -> tuple[Figure, list[Axes], list[list[Axes]]]:
    """Return a figure, the axes of the H&E where it is drawn once per section, and those of each row."""
    views = {row.view.section.name: row.view for row in rows}
    has_image = any(panel.kind == "image" for panel in rows[0].panels)
    across = _layout(rows, with_image=False).across(len(views)) if len(rows[0].panels) > has_image else 1
    apart = across > 1 and has_image
    layout = _layout(rows, with_image=not apart, across=across)
    leads = [shared.aspect for shared in views.values()] if apart else []
    return layout.draw(across=across, leads=leads, figsize=figsize, dpi=dpi)


def _layout(rows: Sequence[GeneRow], *, with_image: bool, across: int = 1) -> GridLayout:
    panels = [panel for panel in rows[0].panels if with_image or panel.kind != "image"]
    names = {row.view.section.name for row in rows}
    layout = GridLayout(
        aspects=[row.view.aspect for row in rows],
        n_panels=len(panels),
        bars=_last_of_kind(panels),
        label_lines=1 + (len(names) > 1),
    )
    titles = [wrap_title(panel.title, layout.panel_width(across)) for row in rows for panel in row.panels]
    return replace(layout, title_lines=1 + max(title.count("\n") for title in titles))


def _last_of_kind(panels: Sequence[Panel]) -> list[int]:
    kinds = [panel.kind for panel in panels]
    return [i for i, kind in enumerate(kinds) if kind != "image" and kind not in kinds[i + 1 :]]


def _norms(rows: Sequence[GeneRow], style: Style) -> dict[Kind, Normalize]:
    kinds = {panel.kind for panel in rows[0].panels} - {"image"}
    return {kind: style.norm(kind, [values for row in rows for values in row.values(kind)]) for kind in kinds}


def _draw_row(row: GeneRow, axes: Sequence[Axes], style: Style, norms: Mapping[Kind, Normalize]) -> None:
    bars = _last_of_kind(row.panels)
    for i, (panel, ax) in enumerate(zip(row.panels, axes, strict=False)):
        if panel.kind == "image":
            _draw_image(ax, row.view, panel.title)
            continue
        row.view.draw_image(ax, style.image_alpha * (_UNDER_DIFFERENCE if panel.kind == "difference" else 1))
        spots = row.view.draw_spots(ax, panel.values, cmap=style.colors(panel.kind), norm=norms[panel.kind])
        set_title(ax, panel.title)
        if i in bars:
            color_bar(ax, spots, row.unit)
        if i == 0:
            scale_bar(ax, row.view)


def _draw_image(ax: Axes, shared: View, title: str) -> None:
    shared.draw_image(ax)
    set_title(ax, title)
    scale_bar(ax, shared)
