"""Features of tiles to the spots that lie in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sthisto._sdata.slots import FEATURES, SPATIAL
from sthisto._sdata.write import Update, obsm_updates, uns_updates
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key, listed

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sthisto._sdata.sections import Section

TILES: Final = "tiles"
TILES_TABLE: Final = "tiles_table"
BARCODE: Final = "barcode"
"""``obs`` column with the name of the spot that a tile lies around."""
_COARSER: Final = (2, 4, 8, 16, 32)
_NEARLY_ALL: Final = 0.95
_FEW: Final = 0.03
"""Share of the spots that must lie in a tile in another reading of the places, and that may lie beyond all tiles."""


def tile_updates(sections: Sequence[Section], features: SpatialData | Mapping[str, SpatialData]) -> list[Update]:
    """Return the updates that give the spots of sections the features of their tiles.

    Parameters
    ----------
    sections
        Of one table or several.
    features
        Tiles as `io.read_features` returns them, or a mapping from region to them.

    Raises
    ------
    KeyError
        A region has no tiles.
    ValueError
        No spot of a section has a tile, or the places of tiles are in another unit or have x and y swapped.
    """
    found: dict[str, list[np.ndarray]] = {}
    records: dict[str, Any] = {}
    for section in sections:
        if isinstance(features, Mapping):
            check_key(section.region, features, name="features", where="the regions with features")
        own = features[section.region] if isinstance(features, Mapping) else features
        tiles = own.tables[TILES_TABLE]
        width = max(float(one["width_px"]) for one in tiles.uns[FEATURES].values())
        names = section.table.obs_names[section.rows].to_numpy().astype(str)
        barcodes = tiles.obs[BARCODE].to_numpy().astype(str) if BARCODE in tiles.obs else None
        places = np.asarray(tiles.obsm[SPATIAL], dtype=float)
        tile = _tile_of(section.centers, names, places, width, barcodes)
        if barcodes is None:
            _check_places(section, places, width)
        _report(tile, section.name)
        for key, record in tiles.uns[FEATURES].items():
            values = np.asarray(tiles.obsm[key], dtype=np.float32)
            padded = np.vstack([values, np.full((1, values.shape[1]), np.nan, dtype=np.float32)])
            found.setdefault(key, []).append(padded[tile])
            um = _width_um(record, section.um_per_px)
            records[key] = {"width_px": float(record["width_px"]), "width_um": um}
    known = {**dict(sections[0].table.uns.get(FEATURES, {})), **records}
    updates = [update for key, values in found.items() for update in obsm_updates(sections, key, values)]
    return [*updates, *uns_updates(sections, FEATURES, known)]


def _width_um(record: Mapping[str, Any], um_per_px: float | None) -> float:
    stated = float(record["width_um"])
    return float(record["width_px"]) * um_per_px if np.isnan(stated) and um_per_px is not None else stated


def _tile_of(
    centers: np.ndarray, names: np.ndarray, tiles: np.ndarray, width: float, barcodes: np.ndarray | None
) -> np.ndarray:
    """Return (n_spots,) the number of each spot's tile, -1 for none: by its name, else the nearest in half a tile."""
    if barcodes is not None:
        number = {name: i for i, name in enumerate(barcodes)}
        for own in _shortened(names.tolist()):
            by_name = np.array([number.get(name, -1) for name in own])
            if (by_name >= 0).any():
                return by_name
        if np.isnan(width):
            msg = (
                f"No spot has the name of a tile: these are {listed(names[:2])}, those {listed(barcodes[:2])}. By "
                "their places tiles can't be found, since their width in px is unknown."
            )
            raise ValueError(msg)
    return _nearest(centers, tiles, width)


def _nearest(centers: np.ndarray, tiles: np.ndarray, width: float) -> np.ndarray:
    """Return (n_spots,) the number of the tile that each spot lies in, the nearest one; -1 for none."""
    from scipy.spatial import KDTree

    away, nearest = KDTree(tiles).query(centers, p=np.inf)
    return np.where(away <= width / 2 + 1e-6, nearest, -1)


def _check_places(section: Section, tiles: np.ndarray, width: float) -> None:
    """Raise ValueError where spots lie beyond all tiles, and none does in another unit or with x and y swapped.

    Holes between the tiles prove nothing: these were laid on what was taken for tissue.

    Parameters
    ----------
    tiles
        (n_tiles, 2) centers.
    width
        Of a tile.
    """
    beyond = _share_beyond(section.centers, tiles, width)
    if beyond < _FEW:
        return
    scales = {} if section.um_per_px is None else {"they are in µm": 1 / section.um_per_px}
    scales |= {f"they are in px of a level {factor} times as coarse": float(factor) for factor in _COARSER}
    readings = [("x and y are swapped", tiles[:, ::-1], width)]
    readings += [(what, tiles * factor, width * factor) for what, factor in scales.items()]
    for what, moved, own in readings:
        covered = float((_nearest(section.centers, moved, own) >= 0).mean())
        if covered >= _NEARLY_ALL and _share_beyond(section.centers, moved, own) < _FEW:
            msg = (
                f"{beyond:.0%} of the spots of section {section.name!r} lie beyond all tiles, and {covered:.0%} lie in "
                f"one if {what}: spots would get the features of other places. Correct 'coords' of the file: x and y "
                "of the upper left corners in px of the full resolution."
            )
            raise ValueError(msg)


def _share_beyond(centers: np.ndarray, tiles: np.ndarray, width: float) -> float:
    """Return the share of spots outside the rectangle that all tiles lie in."""
    low, high = tiles.min(axis=0) - width / 2, tiles.max(axis=0) + width / 2
    return float(((centers < low) | (centers > high)).any(axis=1).mean())


def _shortened(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the names, and then without what all of them begin with up to a "_", such as that of their sample."""
    yield names
    while len({name.partition("_")[0] for name in names}) == 1 and all("_" in name for name in names):
        names = [name.partition("_")[2] for name in names]
        yield names


def _report(tile: np.ndarray, name: str) -> None:
    """Warn of spots without a tile, -1 in `tile`, (n_spots,); raise ValueError where none has one."""
    missing = int((tile < 0).sum())
    if missing == len(tile):
        msg = (
            f"No spot of section {name!r} lies in a tile. The tiles must be in px of the full resolution of the image "
            "of the section: were they computed from another file?"
        )
        raise ValueError(msg)
    if missing:
        logger.warning("%d of %d spots of section %r lie in no tile: their features are NaN.", missing, len(tile), name)
