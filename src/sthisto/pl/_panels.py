"""The panels of `gene_compare`: what each one shows, on which color scale, and how a strip of them is drawn."""

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
)
from sthisto.pl._spots import View, view

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from sthisto._sdata.sections import Section

_UNDER_DIFFERENCE = 0.4
"""How much of the image's opacity is left under a difference, whose middle is white."""

Kind = Literal["expression", "difference", "spread", "image"]


@dataclass(frozen=True)
class Style:
    """How values become colors."""

    cmap: str | Colormap
    vmin: float | None
    vmax: float | None
    image_alpha: float

    def norm(self, kind: Kind, values: Sequence[np.ndarray]) -> Normalize:
        """Return the scale that all panels of a kind share."""
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
    """A title and the (n_spots,) values below it, which the H&E alone doesn't show."""

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
        """Return the values of all panels of a kind."""
        return [panel.values for panel in self.panels if panel.kind == kind]


def read_strips(
    sections: Sequence[Section],
    genes: Sequence[str],
    *,
    keys: Sequence[str],
    layers: Mapping[str, str],
    gene_symbols: str | None,
    kinds: Mapping[str, bool],
) -> list[GeneRow]:
    """Read what is drawn of each gene in each section, gene by gene."""
    tables = [section.table for section in sections]
    scale = read_scale(tables, keys)
    titles = method_labels(tables, keys)
    by_section = []
    for section in sections:
        compared = kinds["measured"] or kinds["difference"] or is_measured(section, scale)
        truth = measured(section, scale, genes, gene_symbols) if compared else None
        guesses = {titles[key]: predicted(section, key, genes, gene_symbols) for key in keys}
        guesses |= {title: read_layer(section, layer, genes, gene_symbols) for layer, title in layers.items()}
        spots = dict.fromkeys(guesses, scored_spots(section)) | {titles[k]: scored_spots(section, [k]) for k in keys}
        scores = (
            {} if truth is None else {title: _scores(truth, values, *spots[title]) for title, values in guesses.items()}
        )
        spreads = {titles[key]: spread(section, key, genes, gene_symbols) for key in keys} if kinds["spread"] else {}
        seen = view(section)
        by_section.append(
            [
                GeneRow(gene, seen, list(_panels(i, truth, guesses, scores, spreads, kinds)), scale_label(scale))
                for i, gene in enumerate(genes)
            ]
        )
    return [strips[i] for i in range(len(genes)) for strips in by_section]


def _panels(
    i: int,
    truth: np.ndarray | None,
    guesses: Mapping[str, np.ndarray],
    scores: Mapping[str, Sequence[str]],
    spreads: Mapping[str, np.ndarray],
    kinds: Mapping[str, bool],
) -> Iterable[Panel]:
    """Yield the panels of gene `i`; without `truth` nothing was measured."""
    if kinds["measured"] and truth is not None:
        yield Panel("expression", "Measured", truth[:, i])
    for title, values in guesses.items():
        yield Panel("expression", f"{title}, {scores[title][i]}" if scores else title, values[:, i])
    if kinds["difference"] and truth is not None:
        for title, values in guesses.items():
            yield Panel("difference", f"{title} minus measured", values[:, i] - truth[:, i])
    for title, values in spreads.items():
        yield Panel("spread", f"{title}, spread", values[:, i])
    if kinds["image"]:
        yield Panel("image", "H&E", np.empty(0))


def _scores(truth: np.ndarray, guess: np.ndarray, spots: np.ndarray, honest: bool) -> list[str]:
    """Say the correlation of each gene."""
    scores = correlations(truth, guess, spots)
    said = ["PCC undefined" if np.isnan(score) else f"PCC {score:.2f}" for score in scores]
    return said if honest else [f"{text} (trained on)" for text in said]


def draw_strips(
    strips: Sequence[GeneRow],
    look: Style,
    *,
    figsize: tuple[float, float] | None,
    dpi: float | None,
    ax: Axes | Sequence[Axes] | None,
) -> Figure:
    """Draw the strips into a new figure, or into the given axes."""
    if not strips[0].panels:
        msg = "Nothing is left to draw: without layers, keep show_measured, show_image or a key."
        raise ValueError(msg)
    if ax is None:
        figure, leads, axes = _new_axes(strips, figsize, dpi)
    else:
        leads, axes = [], given_axes(ax, len(strips), len(strips[0].panels))
        figure = figure_of(axes[0][0])
    views = {strip.view.section.name: strip.view for strip in strips}
    for lead, shared in zip(leads, views.values(), strict=bool(leads)):
        _draw_image(lead, shared, "H&E" + f", {shared.section.name}" * (len(views) > 1))
    norms = {gene: _norms([strip for strip in strips if strip.gene == gene], look) for gene in {s.gene for s in strips}}
    for strip, panels in zip(strips, axes, strict=True):
        _draw_strip(strip, panels, look, norms[strip.gene])
        side_label(panels[0], strip.gene, line=int(len(views) > 1), fontstyle="italic", fontweight="bold")
        if len(views) > 1:
            side_label(panels[0], strip.view.section.name)
    return figure


def _new_axes(
    strips: Sequence[GeneRow], figsize: tuple[float, float] | None, dpi: float | None
) -> tuple[Figure, list[Axes], list[list[Axes]]]:
    """Return a figure, the axes of the H&E where it stands apart, and those of each strip."""
    views = {strip.view.section.name: strip.view for strip in strips}
    has_image = any(panel.kind == "image" for panel in strips[0].panels)
    across = _strips(strips, with_image=False).across(len(views)) if len(strips[0].panels) > has_image else 1
    apart = across > 1 and has_image
    layout = _strips(strips, with_image=not apart, across=across)
    leads = [shared.aspect for shared in views.values()] if apart else []
    return layout.draw(across=across, leads=leads, figsize=figsize, dpi=dpi)


def _strips(strips: Sequence[GeneRow], *, with_image: bool, across: int = 1) -> GridLayout:
    panels = [panel for panel in strips[0].panels if with_image or panel.kind != "image"]
    names = {strip.view.section.name for strip in strips}
    layout = GridLayout(
        aspects=[strip.view.aspect for strip in strips],
        n_panels=len(panels),
        bars=_last_of_kind(panels),
        label_lines=1 + (len(names) > 1),
    )
    titles = [wrap_title(panel.title, layout.panel_width(across)) for strip in strips for panel in strip.panels]
    return replace(layout, title_lines=1 + max(title.count("\n") for title in titles))


def _last_of_kind(panels: Sequence[Panel]) -> list[int]:
    kinds = [panel.kind for panel in panels]
    return [i for i, kind in enumerate(kinds) if kind != "image" and kind not in kinds[i + 1 :]]


def _norms(strips: Sequence[GeneRow], look: Style) -> dict[Kind, Normalize]:
    kinds = {panel.kind for panel in strips[0].panels} - {"image"}
    return {kind: look.norm(kind, [values for strip in strips for values in strip.values(kind)]) for kind in kinds}


def _draw_strip(strip: GeneRow, axes: Sequence[Axes], look: Style, norms: Mapping[Kind, Normalize]) -> None:
    bars = _last_of_kind(strip.panels)
    for i, (panel, ax) in enumerate(zip(strip.panels, axes, strict=False)):
        if panel.kind == "image":
            _draw_image(ax, strip.view, panel.title)
            continue
        strip.view.draw_image(ax, look.image_alpha * (_UNDER_DIFFERENCE if panel.kind == "difference" else 1))
        spots = strip.view.draw_spots(ax, panel.values, cmap=look.colors(panel.kind), norm=norms[panel.kind])
        set_title(ax, panel.title)
        if i in bars:
            color_bar(ax, spots, strip.unit)
        if i == 0:
            scale_bar(ax, strip.view)


def _draw_image(ax: Axes, shared: View, title: str) -> None:
    shared.draw_image(ax)
    set_title(ax, title)
    scale_bar(ax, shared)
