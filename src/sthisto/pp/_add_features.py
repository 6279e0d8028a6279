"""Features of tiles to the spots that lie in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import read_sections
from sthisto._sdata.tiles import tile_updates
from sthisto._sdata.write import apply
from sthisto._utils.arguments import checked
from sthisto._utils.checks import Check

if TYPE_CHECKING:
    from spatialdata import SpatialData


_FEATURES = Check(
    "the SpatialData that sth.io.read_features returned, or a mapping from region to one",
    lambda value: (
        all(hasattr(one, "tables") for one in value.values())
        if isinstance(value, Mapping)
        else hasattr(value, "tables")
    ),
)


@checked(features=_FEATURES)
def add_features(
    sdata: SpatialData,
    features: SpatialData | Mapping[str, SpatialData],
    *,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
) -> None:
    """Give each spot the features of the nearest tile, which were computed elsewhere.

    With them, ``sth.tl.fit(sdata, features="obsm:X_uni2")`` needs no image encoder.

    Parameters
    ----------
    sdata
        SpatialData with the spots and the image that the tiles were cut from.
    features
        What `sthisto.io.read_features` returned, or a mapping from region to it. Tiles are in px of the image's full
        resolution.
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

    Returns
    -------
    None. Writes ``obsm["X_{name}"]``, (n_obs, n_features) float32, for each kind of features, and their width to
    ``uns["sthisto_features"]``. Tiles with the name of a spot ("barcode"), with or without that of the sample before a
    "_", belong to it; else a spot has the features of the tile whose center is nearest, at most half a tile away in x
    and y. Spots without a tile are NaN, with a warning.

    Raises
    ------
    KeyError
        A region has no features in the mapping.
    ValueError
        An element is ambiguous, or no spot has a tile.

    Examples
    --------
    >>> import sthisto as sth
    >>> tiles = sth.io.read_features("slide.h5", name="uni2")  # doctest: +SKIP
    >>> sth.pp.add_features(sdata, tiles)  # doctest: +SKIP
    """
    keys = ElementKeys(image_key, shapes_key, table_key, coordinate_system, um_per_px)
    apply(tile_updates(read_sections(sdata, keys), features))
