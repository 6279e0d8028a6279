"""A grid of spots over the tissue of a slide that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import get_transformation

from sthisto._images.tissue import hexagonal_grid, tissue_share
from sthisto._sdata.elements import affine, apply_affine, read_pyramid, read_spots
from sthisto._sdata.pairing import match_rows
from sthisto._sdata.resolution import um_per_px_of_visium
from sthisto._sdata.sections import known_um_per_px, remember_um_per_px, stated_um_per_px
from sthisto._utils.validate import check_positive, resolve_only

if TYPE_CHECKING:
    from spatialdata import SpatialData

_ALIKE = 1.1
"""Ratio up to which the µm per px by several arrays count as one."""


def tissue_grid(
    sdata: SpatialData,
    *,
    image_key: str | None = None,
    pitch_um: float = 100.0,
    diameter_um: float = 55.0,
    um_per_px: float | None = None,
    least_tissue: float = 0.5,
    key_added: str = "tissue_grid",
) -> None:
    """Lay spots over the tissue of an H&E image, so that a slide without spots can be predicted.

    Parameters
    ----------
    sdata
        Holds the image.
    image_key
        None is the only image.
    pitch_um, diameter_um
        Distance between neighboring spots, and their width, in µm; the defaults are Visium's.
    um_per_px
        µm per px of the image's full resolution; None takes it from the data where it is known: from the coordinate
        system, or from the array of Visium spots or Visium HD bins that lie in one with the image.
    least_tissue
        Share of a spot that must be tissue, 0 to 1. Fat looks much like background: lower it to keep more of that.
    key_added
        Name of the shapes that are written; the table's name is `key_added` with "_table" behind it.

    Returns
    -------
    None. Writes ``sdata.shapes[key_added]``, circles in the coordinate systems of the image, and
    ``sdata.tables[f"{key_added}_table"]``, a table without genes that annotates them: predict with
    ``sth.tl.predict(sdata, model, table_key="tissue_grid_table", new_table_key="predicted")``. An `um_per_px` that the
    data did not know is kept in ``sdata.attrs["sthisto"]``, where later calls find it.

    Raises
    ------
    KeyError
        There is no such image, or none.
    ValueError
        The µm per px are unknown, the image has no tissue, or `key_added` is there already.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=1, n_patients=1)
    >>> sth.pp.tissue_grid(sdata, pitch_um=200)
    >>> sdata.shapes["tissue_grid"].shape[1]
    2
    """
    check_positive(pitch_um, name="pitch_um")
    check_positive(diameter_um, name="diameter_um")
    image_key = resolve_only(image_key, sdata.images, name="image_key", where="the images of the SpatialData")
    table_key = f"{key_added}_table"
    for name in (key_added, table_key):
        if name in sdata:
            msg = f"There is an element {name!r} already. Delete it, or choose another key_added."
            raise ValueError(msg)
    systems = get_transformation(sdata.images[image_key], get_all=True)
    of_system = known_um_per_px(sdata, image_key)
    known = of_system or _um_per_px_of_arrays(sdata, image_key)
    um_per_px = known if um_per_px is None else stated_um_per_px(um_per_px, known, image_key)
    if um_per_px is None:
        msg = (
            f"The µm per px of image {image_key!r} are unknown. Pass um_per_px=…, from the scanner, or for Visium the "
            "100 µm between neighboring spots over their distance in px."
        )
        raise ValueError(msg)
    pyramid, _ = read_pyramid(sdata.images[image_key], image_key, next(iter(systems)))
    diameter = diameter_um / um_per_px
    centers = hexagonal_grid(pyramid.width, pyramid.height, pitch_um / um_per_px)
    centers = centers[tissue_share(pyramid, centers, diameter) >= least_tissue]
    if not len(centers):
        msg = f"No tissue was found in image {image_key!r}. Lower least_tissue, or look at the image."
        raise ValueError(msg)
    shapes = ShapesModel.parse(centers, geometry=0, radius=diameter / 2, transformations=systems)
    obs = pd.DataFrame(
        {"region": pd.Categorical([key_added] * len(centers)), "instance": np.asarray(shapes.index)},
        index=[f"{key_added}_{i}" for i in shapes.index],
    )
    table = AnnData(np.empty((len(centers), 0), dtype=np.float32), obs=obs)
    annotated = TableModel.parse(table, region=key_added, region_key="region", instance_key="instance")
    sdata.shapes[key_added] = shapes
    sdata.tables[table_key] = annotated
    if of_system is None:
        remember_um_per_px(sdata, image_key, um_per_px)


def _um_per_px_of_arrays(sdata: SpatialData, image_key: str) -> float | None:
    """Return µm per px by the arrays in the image's coordinate systems; None without any, or where they differ."""
    systems = get_transformation(sdata.images[image_key], get_all=True)
    found = []
    for table in sdata.tables.values():
        regions = table.uns.get(TableModel.ATTRS_KEY, {}).get(TableModel.REGION_KEY, [])
        for region in [regions] if isinstance(regions, str) else regions:
            own = get_transformation(sdata[region], get_all=True) if region in sdata else {}
            if system := next((name for name in systems if name in own), None):
                spots = read_spots(sdata[region], region, system)
                rows, position = match_rows(table, region, spots.instances)
                centers = apply_affine(np.linalg.inv(affine(sdata[image_key], system)), spots.xy[position])
                found.append(um_per_px_of_visium(table.obs.iloc[rows], centers, region))
    known = [um for um in found if um is not None]
    return known[0] if known and max(known) / min(known) < _ALIKE else None
