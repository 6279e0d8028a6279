"""Clusters and annotated regions over the H&E, in matched colors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.lines import Line2D
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score

from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.slots import CLUSTER
from sthisto._utils.checks import list_of, text
from sthisto._utils.validate import listed
from sthisto.pl._arguments import NAMES, checked_plot
from sthisto.pl._decorations import TICK_SIZE, figure_of, scale_bar, set_title, side_label, wrap_title
from sthisto.pl._figures import closes_on_error
from sthisto.pl._layout import GridLayout, given_axes
from sthisto.pl._read import choose_sections
from sthisto.pl._spots import View, view
from sthisto.pl._style import CLASS_COLORS

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

    from sthisto._sdata.sections import Section

_EXCLUDED_COLOR = "#d0d0d0"
_LEGEND_CHARACTER = 0.062


@closes_on_error()
@checked_plot(columns=NAMES, exclude=list_of(text, "a list of names", least=0) | text, reference=text)
def clusters(
    sdata: SpatialData | Sequence[SpatialData],
    columns: str | Sequence[str] | Mapping[str, str] = CLUSTER,
    *,
    reference: str | None = None,
    exclude: str | Sequence[str] = "undetermined",
    sections: str | Sequence[str] | None = None,
    show_image: bool = True,
    image_alpha: float = 0.4,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    figsize: tuple[float, float] | None = None,
    dpi: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Show clusters of the measurement and of predictions, and annotated regions, in matched colors.

    The clusters of each further column take the colors of the reference labels that they overlap with most, one to one
    (Hungarian assignment), separately in each section, since cluster numbers are not comparable between sections.
    Titles give the adjusted Rand index with the reference.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    columns
        Column or columns of ``obs``, one panel each, or a mapping from column to title. Cluster the measurement with
        ``sth.tl.cluster(sdata, key_added="measured_cluster")``, a prediction with
        ``sth.tl.cluster(sdata, layer="sthisto_pred")``.
    reference
        Column that colors and scores refer to. None: the first of `columns`. Its colors are those in
        ``uns[f"{reference}_colors"]``, if present.
    exclude
        Labels of the reference to leave out of the score; their spots are gray.
    sections
        Names of the sections to draw. None: all.
    show_image
        Whether to draw the H&E.
    image_alpha
        Opacity of the H&E under the spots, 0 to 1.
    image_key
        H&E image, or a mapping from region to image. None: inferred if there is exactly one candidate; of several RGB
        images of one place, the finest.
    shapes_key
        Region or regions to use, shapes or labels. None: all regions that the table annotates.
    table_key
        Table that annotates the regions. None: inferred if there is exactly one.
    coordinate_system
        Coordinate system in which images and regions are aligned. None: inferred from those that both share.
    figsize
        Width and height of the figure in inches. None: computed from the number and shape of the panels.
    dpi
        Resolution of the figure in dots per inch. None: matplotlib's setting.
    ax
        Axes to draw into instead of a new figure: one per panel, section by section.

    Returns
    -------
    The figure.

    Raises
    ------
    KeyError
        A column or an element is missing.
    ValueError
        A section has no labeled spot, an element is ambiguous, or the number of axes differs from the number of panels.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=1, n_patients=1)
    >>> sth.tl.cluster(sdata, method="kmeans", n_clusters=4)
    >>> figure = sth.pl.clusters(sdata)
    """
    titles = _titles(columns)
    reference = next(iter(titles)) if reference is None else reference
    chosen = choose_sections(sdata, sections, ElementKeys(image_key, shapes_key, table_key, coordinate_system))
    left_out = {exclude} if isinstance(exclude, str) else set(exclude)
    labels = [{name: _labels(section, name) for name in {*titles, reference}} for section in chosen]
    palette = _palette([section.table for section in chosen], reference, labels, left_out)
    views = [view(section) for section in chosen]
    layout = GridLayout(
        aspects=[shared.aspect for shared in views],
        n_panels=show_image + len(titles),
        label_lines=int(len(chosen) > 1),
        right=0.3 + _LEGEND_CHARACTER * max(len(str(label)) for label in palette),
    )
    lines = max(wrap_title(f"{title}, ARI 0.00", layout.panel_width()).count("\n") for title in titles.values())
    if ax is None:
        figure, _, axes = replace(layout, title_lines=1 + lines).draw(figsize=figsize, dpi=dpi)
    else:
        axes = given_axes(ax, len(chosen), layout.n_panels)
        figure = figure_of(axes[0][0])
    for shared, by_column, panels in zip(views, labels, axes, strict=True):
        if show_image:
            shared.draw_image(panels[0])
            set_title(panels[0], "H&E")
        for panel, (name, title) in zip(panels[int(show_image) :], titles.items(), strict=True):
            score = "" if name == reference else f", {_agreement(by_column[reference], by_column[name], left_out)}"
            colors = (
                palette if name == reference else _matched(by_column[reference], by_column[name], palette, left_out)
            )
            _draw(panel, shared, by_column[name], colors, image_alpha)
            set_title(panel, title + score)
        scale_bar(panels[0], shared)
        if len(chosen) > 1:
            side_label(panels[0], shared.section.name)
    _legend(axes[0][-1], palette, titles.get(reference, reference))
    return figure


def _titles(columns: str | Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    if isinstance(columns, Mapping):
        titles = dict(columns)
    else:
        titles = {name: name for name in ([columns] if isinstance(columns, str) else columns)}
    if not titles:
        msg = "`columns` is empty; name at least one column of obs."
        raise ValueError(msg)
    return titles


def _labels(section: Section, column: str) -> pd.Series:
    """Return the label of each spot as str, (n_spots,), missing where it has none."""
    obs = section.table.obs
    if column not in obs:
        candidates = [name for name in obs if isinstance(obs[name].dtype, pd.CategoricalDtype)]
        msg = (
            f"obs has no column {column!r}; its categorical columns: {listed(candidates)}. "
            f"Call sth.tl.cluster(sdata, key_added={column!r}, …) first."
        )
        raise KeyError(msg)
    values = obs[column].iloc[section.rows].astype(object)
    labels = pd.Series([None if pd.isna(value) else str(value) for value in values], dtype=object)
    if labels.isna().all():
        msg = f"No spot of section {section.name!r} has a label in obs[{column!r}]. Pass sections=… that have."
        raise ValueError(msg)
    return labels


def _palette(
    tables: Sequence[AnnData], reference: str, labels: Sequence[Mapping[str, pd.Series]], left_out: set[str]
) -> dict[str, str]:
    """Return label -> color of the reference: the user's colors, or ours in the order of the categories."""
    found = {label for by_column in labels for label in by_column[reference].dropna()}
    colors: dict[str, str] = {}
    for table in tables:
        categories = [str(name) for name in table.obs[reference].astype("category").cat.categories]
        given = table.uns.get(f"{reference}_colors")
        if given is not None and len(given) >= len(categories):
            ours = [str(color) for color in given]
        else:
            counted = [name for name in categories if name not in left_out]
            by_name = dict(zip(counted, _endless(len(counted)), strict=True))
            ours = [by_name.get(name, _EXCLUDED_COLOR) for name in categories]
        colors = dict(zip(categories, ours, strict=False)) | colors
    return {label: color for label, color in colors.items() if label in found}


def _endless(n: int) -> list[str]:
    return [CLASS_COLORS[i % len(CLASS_COLORS)] for i in range(n)]


def _matched(reference: pd.Series, other: pd.Series, palette: Mapping[str, str], left_out: set[str]) -> dict[str, str]:
    """Return label -> color of other clusters, matched to the reference by overlap.

    Parameters
    ----------
    reference, other
        (n_spots,) labels, missing where a spot has none.
    palette
        Label -> color of the reference.
    left_out
        Labels of the reference that do not count. Clusters without a match get colors that are not in use.
    """
    counted = ~reference.isin(left_out)
    overlap = pd.crosstab(other[counted], reference[counted])
    rows, columns = linear_sum_assignment(overlap.to_numpy(), maximize=True)
    colors = {overlap.index[i]: palette[overlap.columns[j]] for i, j in zip(rows, columns, strict=True)}
    free = [color for color in CLASS_COLORS if color not in palette.values()] or list(CLASS_COLORS)
    rest = [label for label in sorted(other.dropna().unique()) if label not in colors]
    return colors | {label: free[i % len(free)] for i, label in enumerate(rest)}


def _agreement(reference: pd.Series, other: pd.Series, left_out: set[str]) -> str:
    both = reference.notna() & other.notna() & ~reference.isin(left_out)
    return f"ARI {adjusted_rand_score(reference[both], other[both]):.2f}" if both.any() else "ARI undefined"


def _draw(ax: Axes, shared: View, labels: pd.Series, colors: Mapping[str, str], alpha: float) -> None:
    names = list(colors)
    shared.draw_image(ax, alpha)
    shared.draw_classes(ax, pd.Categorical(labels, categories=names).codes, list(colors.values()))


def _legend(ax: Axes, palette: Mapping[str, str], title: str) -> None:
    dots = [
        Line2D([], [], marker="o", linestyle="", color=color, markersize=4.5, markeredgewidth=0, label=label)
        for label, color in palette.items()
    ]
    ax.legend(
        handles=dots,
        title=title,
        title_fontsize=TICK_SIZE,
        fontsize=TICK_SIZE,
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.02),
        borderaxespad=0.3,
        handletextpad=0.1,
        alignment="left",
    )
