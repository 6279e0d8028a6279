"""Slides that LazySlide worked on (wsidata), brought to the layout of sthisto."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely

from sthisto._sdata.new_shapes import annotating_table
from sthisto._sdata.slots import FEATURES, KEY, UM_PER_UNIT
from sthisto._sdata.tiles import TILES, TILES_TABLE
from sthisto._utils.arguments import checked
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key, listed
from sthisto.io._libraries import element_name
from sthisto.io._slide import stem_of

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

_PROPERTIES: Final = "slide_properties"
_TILE_ID: Final = "tile_id"


@checked()
def from_wsidata(
    wsi: SpatialData | str | os.PathLike[str],
    *,
    slide: str | os.PathLike[str] | None = None,
    tile_key: str = "tiles",
) -> SpatialData:
    """Bring tiles and features of LazySlide to the layout of `sthisto.io.read_features`, with the slide's image.

    Parameters
    ----------
    wsi
        WSIData of LazySlide, a SpatialData that was read from its store, or the path of the store.
    slide
        Path of the slide. None: the one that a WSIData has open; without any, the result has no image.
    tile_key
        Shapes with the tiles.

    Returns
    -------
    A SpatialData with ``shapes["tiles"]``, squares in px of the slide's full resolution, and
    ``tables["tiles_table"]`` that annotates them: ``obsm["X_NAME"]`` holds the features of each table
    ``"NAME_tiles"``, NaN for tiles without any. `sthisto.pp.add_features` brings them to spots; with the image,
    ``sth.tl.predict(…, table_key="tiles_table", new_table_key="predicted")`` predicts the tiles themselves. The µm per
    px are those of LazySlide.

    Raises
    ------
    KeyError
        There are no such tiles.
    FileNotFoundError
        There is no slide at the path.

    Examples
    --------
    >>> import sthisto as sth
    >>> tiles = sth.io.from_wsidata("slide.zarr", slide="slide.svs")  # doctest: +SKIP
    """
    import geopandas as gpd
    import spatialdata as sd
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Identity

    given = sd.read_zarr(wsi) if isinstance(wsi, str | os.PathLike) else wsi
    check_key(tile_key, given.shapes, name="tile_key", where="the shapes of the WSIData")
    path = _slide_of(given, slide)
    system = element_name("slide" if path is None else stem_of(path))
    tiles = given.shapes[tile_key]
    squares = gpd.GeoDataFrame(geometry=tiles.geometry.to_numpy())
    shapes = ShapesModel.parse(squares, transformations={system: Identity()})
    centers = shapely.get_coordinates(shapely.centroid(tiles.geometry.to_numpy()))
    left, _, right, _ = tiles.geometry.iloc[0].bounds
    properties: Mapping[str, Any] = given.attrs.get(_PROPERTIES, {})
    um = float(properties["mpp"]) if properties.get("mpp") else None
    table = annotating_table({TILES: centers}, np.empty((len(centers), 0), dtype=np.float32), [])
    ids = tiles[_TILE_ID].to_numpy() if _TILE_ID in tiles else np.arange(len(tiles))
    record = {"width_px": right - left, "width_um": float("nan") if um is None else (right - left) * um}
    for name, features in _features_of(given, tile_key).items():
        table.obsm[f"X_{name}"] = _in_order(features, ids)
        table.uns[FEATURES] = {**table.uns.get(FEATURES, {}), f"X_{name}": dict(record)}
    sdata = sd.SpatialData(images=_image(path, system), shapes={TILES: shapes}, tables={TILES_TABLE: table})
    if um is not None:
        sdata.attrs[KEY] = {UM_PER_UNIT: {system: um}}
    logger.info("%d tiles of %s have the features %s.", len(tiles), system, listed(table.uns.get(FEATURES, {})))
    return sdata


def _slide_of(wsi: Any, slide: str | os.PathLike[str] | None) -> Path | None:
    """Return the path of the slide: the given one, or that of the reader of a WSIData."""
    if slide is not None:
        path = Path(slide).expanduser()
        if not path.exists():
            msg = f"There is no slide at {path}."
            raise FileNotFoundError(msg)
        return path
    file = getattr(getattr(wsi, "reader", None), "file", None)
    return Path(file) if file is not None and Path(file).exists() else None


def _image(path: Path | None, system: str) -> dict[str, Any]:
    from sthisto.io._read_slide import read_slide

    if path is None:
        return {}
    return dict(read_slide(path, name=system).images)


def _features_of(wsi: SpatialData, tile_key: str) -> dict[str, AnnData]:
    """Return the tables that annotate the tiles, by the name of their features."""
    from spatialdata.models import TableModel

    found = {}
    for name, table in wsi.tables.items():
        region = table.uns.get(TableModel.ATTRS_KEY, {}).get(TableModel.REGION_KEY)
        if region == tile_key or region == [tile_key]:
            found[element_name(name.removesuffix(f"_{tile_key}"))] = table
    return found


def _in_order(table: AnnData, ids: np.ndarray) -> np.ndarray:
    """Return (n_tiles, n_features) float32 in the order of the tiles, NaN for those without features."""
    position = {one: i for i, one in enumerate(table.obs[_TILE_ID].to_numpy().tolist())}
    rows = np.array([position.get(one, -1) for one in ids.tolist()])
    values = table.X.toarray() if hasattr(table.X, "toarray") else np.asarray(table.X)
    padded = np.vstack([values, np.full((1, values.shape[1]), np.nan)]).astype(np.float32)
    return padded[rows]
