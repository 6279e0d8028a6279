"""The cells that Space Ranger 4 segments on the H&E image of a Visium HD run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from sthisto._sdata.slots import INSTANCE, REGION
from sthisto._utils.logging import logger
from sthisto._utils.validate import listed
from sthisto.io._libraries import element_name
from sthisto.io._reading import reading
from sthisto.io._space_ranger import SEGMENTED, name_of_run, outs_of, read_counts, read_scalefactors, with_images

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

COUNTS_OF_CELLS: Final = "filtered_feature_cell_matrix"
_OUTLINES: Final = ("cell_segmentations.geojson", "graphclust_annotated_cell_segmentations.geojson")
_BARCODE: Final = r"^cellid_(\d+)-\d+$"
_OF_BINS: Final = ("bin_size_um", "spot_diameter_fullres")
"""Scale factors that say nothing of cells."""
_FEWEST_VERTICES: Final = 4
"""Of a polygon, the first one again at the end."""


def find_cells(path: Path) -> Path | None:
    """Return the folder of the cells of a run, which may be in the given one; None where there is none."""
    for folder in (path, path / SEGMENTED, path / "outs" / SEGMENTED):
        if any((folder / name).is_file() for name in _OUTLINES) or any(folder.glob("*feature_cell_matrix*")):
            return folder
    return None


def read_cells(folder: Path, *, image: Path | None, name: str | None, counts: Path | None = None) -> SpatialData:
    """Read the cells of a run as polygons in px of the full resolution, with the finest image that is found.

    Parameters
    ----------
    folder
        "segmented_outputs" of Space Ranger.
    image
        The full-resolution image; None looks for it beside the other files.
    name
        Of the elements; None takes that of the run.
    counts
        File of the counts; None takes the filtered ones.

    Raises
    ------
    FileNotFoundError
        Counts, outlines, scale factors or every image are missing.
    ValueError
        A file is damaged or not of this run.
    """
    from anndata import AnnData
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity

    name = element_name(name or name_of_run(folder, counts, COUNTS_OF_CELLS))
    table = read_counts(folder, counts, COUNTS_OF_CELLS)
    outlines = _outlines(folder, table)
    xy = np.column_stack([outlines.centroid.x, outlines.centroid.y])
    factors = {key: value for key, value in read_scalefactors(folder).items() if key not in _OF_BINS}
    places = AnnData(obs=pd.DataFrame(index=outlines.index), obsm={"spatial": xy})
    sdata = with_images(places, name, [folder, outs_of(folder)], image, factors, spot_diameter=1.0)
    del sdata.tables["table"], sdata.shapes[f"{name}_spots"]
    region = f"{name}_cells"
    sdata.shapes[region] = ShapesModel.parse(outlines, transformations={name: Identity()})
    table.obsm["spatial"] = pd.DataFrame(xy, index=outlines.index).reindex(table.obs_names).to_numpy()
    table.obs[REGION] = pd.Categorical([region] * table.n_obs)
    table.obs[INSTANCE] = table.obs_names.to_numpy()
    sdata.tables["table"] = TableModel.parse(table, region=region, region_key=REGION, instance_key=INSTANCE)
    return sdata


def _outlines(folder: Path, table: AnnData) -> Any:
    """Return the outlines of the cells that have counts, a GeoDataFrame by their barcodes.

    Raises
    ------
    FileNotFoundError
        There is no file of outlines.
    ValueError
        It is damaged or of another run, or the counts are not those of cells.
    """
    import geopandas as gpd

    path = next((folder / name for name in _OUTLINES if (folder / name).is_file()), None)
    if path is None:
        msg = f"{folder} lacks {_OUTLINES[0]}: the outlines of the cells."
        raise FileNotFoundError(msg)
    numbers = table.obs_names.str.extract(_BARCODE, expand=False)
    if numbers.isna().any() or numbers.astype(int).has_duplicates:
        msg = (
            f"The counts in {folder} are of {listed(table.obs_names[:2])}; expected are cells of one run, such as "
            "'cellid_000000001-1'."
        )
        raise ValueError(msg)
    drawn = _read_outlines(path)
    found = drawn.reindex(numbers.astype(int)).set_axis(pd.Index(table.obs_names, name=INSTANCE)).dropna()
    if not len(found):
        msg = (
            f"{path} has the outline of none of the cells that have counts: it begins with the cells "
            f"{listed(drawn.index[:2])}, the counts with {listed(table.obs_names[:2])}."
        )
        raise ValueError(msg)
    if n_without := table.n_obs - len(found):
        logger.warning(
            "%d of %d cells have no outline in %s: they stay in the table, without a place.",
            n_without,
            table.n_obs,
            path,
        )
    if n_others := len(drawn) - len(found):
        logger.info("%d outlines in %s are of cells without counts: they are left out.", n_others, path)
    return gpd.GeoDataFrame(geometry=found.to_list(), index=found.index)


def _read_outlines(path: Path) -> pd.Series:
    """Return the polygon of each cell by its number, None where it has no area.

    Raises
    ------
    ValueError
        The file is damaged, is no GeoJSON of cells, or names a cell more than once.
    """
    with reading(path):
        content = json.loads(path.read_text(encoding="utf-8"), object_hook=_shortened)
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, list) or not all(isinstance(one, tuple) for one in features):
        msg = f"{path} holds no 'features'; expected is the GeoJSON of Space Ranger, a FeatureCollection of cells."
        raise ValueError(msg)
    cells = pd.to_numeric(pd.Series([cell for cell, _ in features], dtype=object), errors="coerce")
    if not len(cells) or not (cells.notna() & (cells % 1 == 0)).all():
        msg = (
            f"{path} holds {len(cells)} features, of which {int(cells.notna().sum())} have a number as their property "
            "'cell_id'; expected is the GeoJSON of Space Ranger, in which all have."
        )
        raise ValueError(msg)
    outlines = pd.Series([outline for _, outline in features], index=pd.Index(cells.astype(int)), dtype=object)
    if not outlines.index.is_unique:
        msg = f"{path} names {outlines.index.duplicated().sum()} cells more than once."
        raise ValueError(msg)
    return outlines


def _shortened(parsed: dict[str, Any]) -> Any:
    """Return what is needed of an object of GeoJSON as soon as it is read: lists of coordinates take much memory."""
    kind = parsed.get("type")
    if kind == "Feature":
        properties = parsed.get("properties")
        return properties.get("cell_id") if isinstance(properties, dict) else None, parsed.get("geometry")
    if kind in ("Polygon", "MultiPolygon"):
        return _polygon([parsed["coordinates"]] if kind == "Polygon" else parsed["coordinates"])
    return None if kind in ("Point", "LineString") else parsed


def _polygon(parts: list[Any]) -> Any:
    """Return the polygon of the parts of an outline, each a list of rings; None without an area.

    Raises
    ------
    ValueError
        A ring is no list of x and y.
    """
    import shapely

    polygons = []
    for part in parts:
        rings = [_ring(ring) for ring in part]
        if not rings or any(len(ring) < _FEWEST_VERTICES or not np.isfinite(ring).all() for ring in rings):
            return None
        polygons.append(shapely.Polygon(rings[0], rings[1:]))
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons) if polygons else None


def _ring(points: Any) -> np.ndarray:
    """Return the points of a ring, (n, 2)."""
    try:
        xy = np.asarray(points, dtype=float)
    except TypeError as error:
        msg = f"a ring holds what is no number: {error}"
        raise ValueError(msg) from error
    if xy.ndim != 2 or xy.shape[1] not in (2, 3):
        msg = f"a ring has the shape {xy.shape}, expected is (n, 2)"
        raise ValueError(msg)
    return xy[:, :2]
