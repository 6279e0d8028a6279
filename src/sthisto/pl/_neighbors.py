"""The patch of a spot beside the training patches that its prediction was retrieved from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sthisto._images.fingerprints import fingerprints
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import Section, read_sections
from sthisto._utils.deprecate import renamed_arguments
from sthisto._utils.validate import listed
from sthisto.get._neighbors import of_section
from sthisto.pl._arguments import checked_plot
from sthisto.pl._decorations import figure_of, ink, set_title, wrap_title
from sthisto.pl._figures import closes_on_error
from sthisto.pl._layout import GridLayout, given_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

    from sthisto.models import ExpressionModel
    from sthisto.models.data import Exclude

_COLUMNS = 5


@renamed_arguments(n_neighbours="n_neighbors")
@closes_on_error()
@checked_plot()
def neighbors(
    sdata: SpatialData | Sequence[SpatialData],
    model: ExpressionModel | str | Path,
    spot: str,
    *,
    reference: SpatialData | Sequence[SpatialData] | None = None,
    n_neighbors: int = 9,
    exclude: Exclude | None = None,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
    figsize: tuple[float, float] | None = None,
    dpi: float | None = None,
    ax: Sequence[Axes] | None = None,
) -> Figure:
    """Show a spot's patch and the training patches that its prediction averages, with their cosine similarities.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them, with the spot.
    model
        Fitted model of a method that retrieves training spots, such as "danet" or "knn", or the path of a saved one.
    spot
        Name of the spot in the table.
    reference
        SpatialData, or list of them, that the model was fitted on. None: `sdata`.
    n_neighbors
        Number of nearest training spots to draw.
    exclude
        Training spots that a spot may not retrieve, as for `sthisto.tl.predict`.
    image_key
        H&E image, or a mapping from region to image. None: inferred if there is exactly one candidate; of several RGB
        images of one place, the finest.
    shapes_key
        Region or regions to use, shapes or labels. None: all regions that the table annotates.
    table_key
        Table that annotates the regions. None: inferred if there is exactly one.
    coordinate_system
        Coordinate system in which images and regions are aligned. None: inferred from those that both share.
    um_per_px
        µm per px of the images' full resolution, or a mapping from region to it. None: taken from the data where it is
        known.
    figsize
        Width and height of the figure in inches. None: computed from the number and shape of the panels.
    dpi
        Resolution of the figure in dots per inch. None: matplotlib's setting.
    ax
        Axes to draw into instead of a new figure: one for the spot and one per neighbor.

    Returns
    -------
    The figure: the spot first, then its neighbors from the nearest on, with section and cosine. Patches are drawn as
    the model receives them; of several context widths, the narrowest. The keys of elements apply to `sdata` and
    `reference`.

    Raises
    ------
    KeyError
        There is no such spot, an element is missing, or `reference` lacks a training section.
    ValueError
        A section has the name of a training section but other pixels, or an element is ambiguous.
    TypeError
        The method does not retrieve training spots.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> model = sth.tl.fit(sdata, method="knn", image_encoder="efficientnet_lite0")  # doctest: +SKIP
    >>> figure = sth.pl.neighbors(sdata, model, sdata["table"].obs_names[0])  # doctest: +SKIP
    """
    from sthisto.models.given import given_model

    fitted = given_model(model)
    keys = ElementKeys(image_key, shapes_key, table_key, coordinate_system, um_per_px)
    section, position = _find(read_sections(sdata, keys), spot)
    bank = {one.name: one for one in read_sections(sdata if reference is None else reference, keys)}
    found = of_section(section, fitted, exclude)
    nearest = found[found["spot"] == spot].nsmallest(n_neighbors, "rank")
    missing = sorted(set(nearest["training_section"]) - set(bank))
    if missing:
        msg = (
            f"The model was fitted on {listed(missing)}, which the data lack; their sections: {listed(bank)}. "
            "Pass reference=… with the data that it was fitted on."
        )
        raise KeyError(msg)
    patches = [(f"Spot {spot}", _patch(section, position, fitted))]
    for name, row, cosine in nearest[["training_section", "training_spot", "cosine"]].itertuples(index=False):
        patches.append((f"{name}, cos {cosine:.2f}", _training_patch(bank[name], int(row), fitted)))
    return _draw(patches, figsize, dpi, ax)


def _find(sections: Sequence[Section], spot: str) -> tuple[Section, int]:
    for section in sections:
        names = section.table.obs_names[section.rows]
        if spot in names:
            return section, int(names.get_loc(spot))
    names = [name for section in sections for name in section.table.obs_names[section.rows[:3]]]
    msg = f"No spot on tissue is called {spot!r}; spots are called {listed(names, 6)}."
    raise KeyError(msg)


def _training_patch(section: Section, position: int, model: Any) -> np.ndarray:
    """Return a training spot's patch, (size, size, 3); raise ValueError where the data hold another under its name."""
    patch = _patch(section, position, model) if position < len(section) else np.zeros((1, 1, 3), dtype=np.uint8)
    expected = model.fingerprint(section.name, position)
    is_first = min(model.patch.context) == model.patch.context[0]  # which the model recognizes its spots by
    if expected and is_first and int(fingerprints(patch[None])[0]) != expected:
        msg = (
            f"Section {section.name!r} of these data is not the one of that name that the model was fitted on: its "
            f"spot {position} looks otherwise. Pass reference=… with the data that it was fitted on."
        )
        raise ValueError(msg)
    return patch


def _patch(section: Section, position: int, model: ExpressionModel) -> np.ndarray:
    """Return (size, size, 3) px of the narrowest context."""
    alone = replace(section, rows=section.rows[[position]], centers=section.centers[[position]])
    narrowest = replace(model.patch, context=(min(model.patch.context),))
    patch: np.ndarray = alone.patches(narrowest)[0].read()[0]
    return patch


def _draw(
    patches: Sequence[tuple[str, np.ndarray]],
    figsize: tuple[float, float] | None,
    dpi: float | None,
    ax: Sequence[Axes] | None,
) -> Figure:
    columns = min(_COLUMNS, len(patches))
    n_rows = -(-len(patches) // columns)
    if ax is None:
        layout = GridLayout(aspects=[1.0] * n_rows, n_panels=columns, label_lines=0, foot=0.08)
        lines = max(wrap_title(title, layout.panel_width()).count("\n") for title, _ in patches)
        layout = replace(layout, title_lines=1 + lines)
        figure, _, rows = layout.draw(figsize=figsize, dpi=dpi)
        axes = [panel for row in rows for panel in row]
    else:
        axes = given_axes(ax, 1, len(patches))[0]
        figure = figure_of(axes[0])
    for panel, (title, patch) in zip(axes, patches, strict=False):
        panel.imshow(patch)
        set_title(panel, title)
    for i, panel in enumerate(axes):
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set(linewidth=1.6 if i == 0 else 0.4, color=ink() if i == 0 else "0.6")
        panel.set_visible(i < len(patches))
    return figure
