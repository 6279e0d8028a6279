"""A grid of spots over the tissue of a slide that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sthisto._images.quality import WIDTH_UM, Quality, check_square, measure_quality
from sthisto._images.tissue import hexagonal_grid, tissue_share
from sthisto._sdata.image_scale import known_um_per_px, remember_um_per_px, stated_um_per_px, um_per_px_of_arrays
from sthisto._sdata.new_shapes import annotating_table, check_no_element, circles, read_image, resolve_image
from sthisto._sdata.quality import quality_columns
from sthisto._sdata.slots import TISSUE_GRID, table_of_shapes
from sthisto._sdata.write import Update, apply
from sthisto._utils.arguments import checked
from sthisto._utils.checks import number, text
from sthisto._utils.logging import logger

if TYPE_CHECKING:
    from spatialdata import SpatialData


@checked(image_key=text, um_per_px=number(above=0))
def tissue_grid(
    sdata: SpatialData,
    *,
    image_key: str | None = None,
    pitch_um: float = 100.0,
    diameter_um: float = 55.0,
    um_per_px: float | None = None,
    least_tissue: float = 0.5,
    min_quality: float | None = None,
    key_added: str = TISSUE_GRID,
) -> None:
    """Lay spots over the tissue of an H&E image, so that a slide without spots can be predicted.

    Parameters
    ----------
    sdata
        SpatialData with the image.
    image_key
        H&E image. None: inferred if there is exactly one image.
    pitch_um, diameter_um
        Distance between neighboring spots and diameter of a spot, in µm. The defaults are Visium's.
    um_per_px
        µm per px of the image's full resolution. None: taken from the coordinate system if its unit is known, or from
        the array of Visium spots or Visium HD bins aligned with the image.
    least_tissue
        Share of a spot's area, 0 to 1, that must be tissue. Fat resembles background: lower the share to keep more of
        it.
    min_quality
        Least quality of the image in the 100 µm around a spot, 0 to 1, as `pp.quality` measures it: spots on marker,
        folds and blurred tissue are left out. 0.5 is a good start. None: quality is not measured.
    key_added
        Name of the new shapes; the table is named ``f"{key_added}_table"``.

    Returns
    -------
    None. Writes ``sdata.shapes[key_added]``, circles in the coordinate systems of the image, and
    ``sdata.tables[f"{key_added}_table"]``, a table without genes that annotates them; with `min_quality`, its ``obs``
    has the columns of `pp.quality`. Predict with
    ``sth.tl.predict(sdata, model, table_key="tissue_grid_table", new_table_key="predicted")``. An `um_per_px` that is
    new to the data is stored in ``sdata.attrs["sthisto"]``, where later calls find it.

    Raises
    ------
    KeyError
        The image is missing.
    ValueError
        The µm per px are unknown, the image is ambiguous, has no tissue or none of that quality, or an element has one
        of the new names.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=1, n_patients=1)
    >>> sth.pp.tissue_grid(sdata, pitch_um=200)
    >>> sdata.shapes["tissue_grid"].shape[1]
    2
    """
    image_key = resolve_image(sdata, image_key)
    table_key = table_of_shapes(key_added)
    check_no_element(sdata, (key_added, table_key), argument="key_added")
    of_system = known_um_per_px(sdata, image_key)
    known = of_system or um_per_px_of_arrays(sdata, image_key)
    um_per_px = known if um_per_px is None else stated_um_per_px(um_per_px, known, image_key)
    if um_per_px is None:
        msg = (
            f"The µm per px of image {image_key!r} are unknown. Pass um_per_px=…, from the scanner, or for Visium the "
            "100 µm between neighboring spots over their distance in px."
        )
        raise ValueError(msg)
    image, diameter = read_image(sdata, image_key), diameter_um / um_per_px
    if min_quality is not None:
        check_square(image, um_per_px, WIDTH_UM, name=image_key)
    centers = hexagonal_grid(image.width, image.height, pitch_um / um_per_px)
    if not len(centers):
        msg = (
            f"`pitch_um`={pitch_um:g} is {pitch_um / um_per_px:.4g} px at {um_per_px:g} µm per px, and no spot fits "
            f"into image {image_key!r} of {image.width} x {image.height} px. Correct um_per_px=… or pitch_um=…"
        )
        raise ValueError(msg)
    centers = centers[tissue_share(image, centers, diameter) >= least_tissue]
    if not len(centers):
        msg = f"No tissue was found in image {image_key!r}. Lower least_tissue, or look at the image."
        raise ValueError(msg)
    columns: dict[str, np.ndarray] = {}
    if min_quality is not None:
        centers, columns = _good(centers, measure_quality(image, centers, um_per_px), min_quality, image_key)
    table = annotating_table({key_added: centers}, np.empty((len(centers), 0), dtype=np.float32), [], columns)
    apply(
        [
            Update(sdata, "shapes", key_added, circles(sdata, image_key, centers, diameter)),
            Update(sdata, "tables", table_key, table),
        ]
    )
    if of_system is None:
        remember_um_per_px(sdata, image_key, um_per_px)


def _good(
    centers: np.ndarray, found: Quality, min_quality: float, image_key: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the centers, (n, 2), whose image is good enough, and their columns of ``obs``, (n,) each."""
    good = found.worst >= min_quality
    if not good.any():
        msg = (
            f"No spot of image {image_key!r} has a quality of {min_quality:g}; the best has {found.worst.max():.2f}. "
            "Lower min_quality, or look at the image."
        )
        raise ValueError(msg)
    logger.info("%d of %d spots of image %r are left out for their quality.", (~good).sum(), len(good), image_key)
    return centers[good], {name: values[good] for name, values in quality_columns(found).items()}
