"""Features of a slide's tiles, computed elsewhere, to SpatialData."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sthisto._sdata.new_shapes import annotating_table
from sthisto._sdata.slots import FEATURES, KEY, UM_PER_UNIT
from sthisto._sdata.tiles import BARCODE, TILES, TILES_TABLE
from sthisto._utils.arguments import checked
from sthisto._utils.checks import choice
from sthisto._utils.validate import check_new_name
from sthisto.io._libraries import element_name
from sthisto.io._slide import stem_of
from sthisto.io._tiles import TileFormat, read_tiles

if TYPE_CHECKING:
    from spatialdata import SpatialData


@checked(format=choice("trident", "clam", "hest"))
def read_features(
    path: str | os.PathLike[str],
    *,
    format: TileFormat | None = None,  # noqa: A002
    name: str = "features",
) -> SpatialData:
    """Read the features of a slide's tiles that TRIDENT, CLAM or HEST computed.

    To bring them to the spots of a section, use `sthisto.pp.add_features`.

    Parameters
    ----------
    path
        HDF5 file with "features" (or "embeddings") and "coords", the upper left corners of the tiles.
    format
        "trident", "clam" or "hest", to have it checked. None: recognized by what the file holds.
    name
        What the features are called, for example "uni2".

    Returns
    -------
    A SpatialData with ``shapes["tiles"]``, squares in px of the slide's full resolution in a coordinate system named as
    the file, and ``tables["tiles_table"]`` that annotates them, without genes. Its ``obsm[f"X_{name}"]`` holds the
    features, (n_tiles, n_features) float32, and ``uns["sthisto_features"]`` the width of a tile.

    Raises
    ------
    FileNotFoundError
        There is no file.
    KeyError
        It holds no features, or no coordinates.
    ValueError
        It is no HDF5 file, not of that format, or features and coordinates differ in number.

    Notes
    -----
    CLAM's files of features do not state the width of a tile: it is the distance of neighbors, with a warning. HEST's
    do not state it in px either; their tiles are 112 µm wide, and belong to spots by name.

    Examples
    --------
    >>> import sthisto as sth
    >>> tiles = sth.io.read_features("slide.h5", name="uni2")  # doctest: +SKIP
    """
    import geopandas as gpd
    import shapely
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Identity

    check_new_name(name, name="name")
    source = Path(path).expanduser()
    tiles = read_tiles(source, format)
    system, half = element_name(stem_of(source)), tiles.width / 2
    squares = shapely.box(*(tiles.centers - half).T, *(tiles.centers + half).T)
    shapes = ShapesModel.parse(gpd.GeoDataFrame(geometry=squares), transformations={system: Identity()})
    columns = {} if tiles.barcodes is None else {BARCODE: tiles.barcodes}
    empty = np.empty((len(squares), 0), dtype=np.float32)
    table = annotating_table({TILES: tiles.centers}, empty, [], columns)
    table.obsm[f"X_{name}"] = tiles.values
    width_um = float("nan") if tiles.width_um is None else tiles.width_um
    width_px = tiles.width if tiles.is_stated or tiles.barcodes is None else float("nan")
    table.uns[FEATURES] = {f"X_{name}": {"width_px": width_px, "width_um": width_um}}
    sdata = SpatialData(shapes={TILES: shapes}, tables={TILES_TABLE: table})
    if tiles.width_um is not None and tiles.is_stated:
        sdata.attrs[KEY] = {UM_PER_UNIT: {system: tiles.width_um / tiles.width}}
    return sdata
