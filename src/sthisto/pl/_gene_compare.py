"""Measured and predicted expression of genes side by side, over the H&E."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.record import as_keys, symbols_of
from sthisto._sdata.slots import KEY
from sthisto.pl._arguments import NAMES, checked_plot
from sthisto.pl._figures import closes_on_error
from sthisto.pl._panels import Style, draw_gene_rows, read_gene_rows
from sthisto.pl._read import choose_sections, predicted_sections

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from spatialdata import SpatialData


@closes_on_error()
@checked_plot(layers=NAMES)
def gene_compare(
    sdata: SpatialData | Sequence[SpatialData],
    genes: str | Sequence[str],
    *,
    key_added: str | Sequence[str] = KEY,
    layers: str | Sequence[str] | Mapping[str, str] = (),
    sections: str | Sequence[str] | None = None,
    show_measured: bool = True,
    show_image: bool = True,
    difference: bool = False,
    uncertainty: bool = False,
    cmap: str | Colormap = "viridis",
    vmin: float | None = None,
    vmax: float | None = None,
    image_alpha: float = 0.4,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    gene_symbols: str | None = None,
    figsize: tuple[float, float] | None = None,
    dpi: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Show measured and predicted expression of genes over the tissue, beside the H&E.

    Each gene of each section is a row of panels: measured, every prediction, then the H&E. With many genes, rows stand
    side by side, and the H&E of each section comes first, once. All panels of a gene, over all sections, share one
    color scale, from the 1 % to the 99 % quantile of the drawn values. Spots have their true size over the faded image;
    spots without a value are left out. Titles give the Pearson correlation with the measurement over the spots that
    `sthisto.tl.evaluate` scores; in sections without any, over all spots, marked "(trained on)" or "(no test spots)".
    The verdict of the model's passport stands behind it, where there is one (`sthisto.tl.assess`).

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    genes
        Gene or genes, by ``var_names`` or by the column `gene_symbols` of ``var``.
    key_added
        Key or keys that `sthisto.tl.predict` wrote to, one panel each.
    layers
        Further layers of the table, drawn as predictions on the same scale, or a mapping from layer to title.
    sections
        Names of the sections to draw. None: all that have a prediction.
    show_measured, show_image
        Whether to draw the measurement and the H&E. A table with predictions only, such as that of a slide without
        spots, has no measurement: pass ``show_measured=False``.
    difference
        Whether to draw prediction minus measurement, for each prediction.
    uncertainty
        Whether to draw the standard deviation that each method gives for its prediction.
    cmap
        Color map of the expression.
    vmin, vmax
        Ends of every gene's color scale. None: the quantiles.
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
    gene_symbols
        Column of ``var`` with the gene names. None: the one that `sthisto.tl.predict` used.
    figsize
        Width and height of the figure in inches. None: computed from the number and shape of the panels.
    dpi
        Resolution of the figure in dots per inch. None: matplotlib's setting.
    ax
        Axes to draw into instead of a new figure: one per panel, row by row.

    Returns
    -------
    The figure. In a notebook, end the line with a semicolon to show it once.

    Raises
    ------
    KeyError
        There is no prediction under a key, or a gene or an element is missing.
    ValueError
        The predictions are on different scales, a section has none, an element is ambiguous, or the number of axes
        differs from the number of panels.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> sth.tl.predict(sdata, sth.tl.fit(sdata, method="color"))
    >>> figure = sth.pl.gene_compare(sdata, "COL1A1")
    """
    genes = [genes] if isinstance(genes, str) else list(dict.fromkeys(genes))
    if not genes:
        msg = "`genes` is empty; name at least one gene."
        raise ValueError(msg)
    keys = as_keys(key_added)
    candidates = choose_sections(sdata, sections, ElementKeys(image_key, shapes_key, table_key, coordinate_system))
    chosen = predicted_sections(candidates, keys, named=sections is not None)
    rows = read_gene_rows(
        chosen,
        genes,
        keys=keys,
        layers=_titles(layers),
        gene_symbols=gene_symbols or symbols_of(chosen[0].table, keys[0]),
        kinds={"measured": show_measured, "difference": difference, "spread": uncertainty, "image": show_image},
    )
    style = Style(cmap=cmap, vmin=vmin, vmax=vmax, image_alpha=image_alpha)
    return draw_gene_rows(rows, style, figsize=figsize, dpi=dpi, ax=ax)


def _titles(layers: str | Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    if isinstance(layers, Mapping):
        return dict(layers)
    return {layer: layer for layer in ([layers] if isinstance(layers, str) else layers)}
