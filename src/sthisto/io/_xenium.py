"""What Xenium writes: cells as polygons, their counts, and the aligned H&E image."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from sthisto._sdata.slots import INSTANCE, KEY, REGION, UM_PER_UNIT
from sthisto._utils.logging import logger
from sthisto._utils.validate import listed
from sthisto.io._libraries import element_name
from sthisto.io._reading import reading
from sthisto.io._scan import Scan, open_scan

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

SPECS: Final = "experiment.xenium"
_ALIGNMENT: Final = (
    *("{}_imagealignment.csv", "{}_alignment.csv", "{}alignment.csv", "{}_alignment_matrix.csv", "{}_matrix.csv"),
    "matrix.csv",
)
"""Names that 10x and Xenium Explorer give the alignment of an image."""
_OTHER_PIXELS: Final = 0.02
"""Difference of µm per px above which an image does not lie on the morphology image px by px."""
_AREA: Final = "cell_area"
_PART: Final = "label_id"
"""Column that tells the parts of a cell with several outlines apart."""
_FEWEST_VERTICES: Final = 4
"""Of a polygon, the first one again at the end."""
_HE: Final = ("*he_image*.ome.tif*", "*HE*.ome.tif*", "*h&e*.ome.tif*", "*H&E*.ome.tif*")


def read_xenium(folder: Path, *, image: Path | None, name: str | None) -> SpatialData:
    """Read cells of a Xenium run in µm, and its H&E image with the alignment that stands beside it.

    Parameters
    ----------
    folder
        Of the run, with "experiment.xenium".
    image
        The H&E image; None looks for "…he_image.ome.tif" in the folder.
    name
        Of the elements; None takes that of the run.

    Raises
    ------
    FileNotFoundError
        Counts or cells are missing, or there is no H&E image.
    ValueError
        A file is damaged.
    """
    from spatialdata import SpatialData

    with reading(folder / SPECS):
        specs: dict[str, Any] = json.loads((folder / SPECS).read_text(encoding="utf-8"))
        pixel_um = float(specs["pixel_size"]) if isinstance(specs, dict) else float("nan")
    if not 0 < pixel_um < np.inf:
        msg = f"{folder / SPECS} must state 'pixel_size', the µm per px of the morphology image, as a positive number."
        raise ValueError(msg)
    name = element_name(name or str(specs.get("region_name") or folder.resolve().name))
    path = image or _he_image(folder)
    scan = open_scan(path)
    table, cells = _cells(folder, name)
    to_um = _to_um(path, scan, pixel_um)
    sdata = SpatialData(images={f"{name}_image": scan.element(name, to_um)}, shapes={f"{name}_cells": cells})
    sdata.tables["table"] = table
    sdata.attrs[KEY] = {UM_PER_UNIT: {name: 1.0}}
    return sdata


def _he_image(folder: Path) -> Path:
    """Return the H&E image of a run.

    Raises
    ------
    FileNotFoundError
        There is none, or more than one.
    """
    found = sorted({path for pattern in _HE for path in folder.glob(pattern)})
    if len(found) == 1:
        logger.info("The H&E image is %s.", found[0])
        return found[0]
    images = found or sorted(folder.glob("*.tif*"))
    msg = (
        f"{folder} has {len(found)} H&E images ('…he_image.ome.tif'). Pass image=…, the path of the H&E image, with "
        f"'…_imagealignment.csv' beside it. Images there: {listed(one.name for one in images)}."
    )
    raise FileNotFoundError(msg)


def _to_um(path: Path, scan: Scan, pixel_um: float) -> Any:
    """Return the transformation from px of the H&E image to µm of the run.

    Raises
    ------
    ValueError
        The alignment is no affine, or there is none and the image has other pixels than the morphology image.
    """
    from spatialdata.transformations import Affine

    stem = path.name.split(".ome")[0].removesuffix(path.suffix)
    stems = (stem, stem.removesuffix("_image"), stem.removesuffix("image"))
    files = [path.parent / pattern.format(one) for pattern in _ALIGNMENT for one in stems]
    alignment = next((file for file in files if file.is_file()), None)
    matrix = np.eye(3)
    if alignment is not None:
        logger.info("The H&E image is aligned by %s.", alignment)
        with reading(alignment):
            matrix = pd.read_csv(alignment, header=None).to_numpy(dtype=float)
    elif scan.um_per_px is not None and abs(scan.um_per_px / pixel_um - 1) > _OTHER_PIXELS:
        msg = (
            f"{path} has no '…_imagealignment.csv' or '…_matrix.csv' beside it, which says where it lies on the cells, "
            f"and its pixels are {scan.um_per_px:.3g} µm wide, those of the morphology image {pixel_um:.3g} µm. Put "
            "the alignment of Xenium Explorer beside it."
        )
        raise ValueError(msg)
    else:
        logger.warning(
            "%s has no '…_imagealignment.csv' or '…_matrix.csv' beside it: it is taken to lie on the morphology image, "
            "px by px.",
            path,
        )
    if matrix.shape != (3, 3) or not np.allclose(matrix[2], [0, 0, 1], atol=1e-9) or not abs(np.linalg.det(matrix)) > 0:
        msg = f"{alignment} holds {matrix.tolist()}; expected is the 3 by 3 affine of Xenium Explorer."
        raise ValueError(msg)
    return Affine(np.diag([pixel_um, pixel_um, 1.0]) @ matrix, input_axes=("x", "y"), output_axes=("x", "y"))


def _cells(folder: Path, name: str) -> tuple[AnnData, Any]:
    """Return the counts of the cells, and the cells: polygons, or circles of their area where these are missing."""
    import scanpy as sc
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity

    counts = folder / "cell_feature_matrix.h5"
    if not counts.is_file():
        msg = f"{folder} lacks {counts.name}: the counts of the cells."
        raise FileNotFoundError(msg)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        with reading(counts):
            adata = sc.read_10x_h5(counts, gex_only=False)
    adata.var_names_make_unique()
    about = _about_cells(folder)
    _check_cells(about.index, adata.obs_names, "the table of cells", folder)
    if (repeated := about.index[about.index.duplicated()]).size:
        msg = f"The table of cells in {folder} has several rows for {listed(repeated, 3)}. Keep one of each."
        raise ValueError(msg)
    about = about.reindex(adata.obs_names)
    xy = about[["x_centroid", "y_centroid"]].to_numpy(dtype=float)
    adata.obs = about.drop(columns=["x_centroid", "y_centroid"])
    adata.obsm["spatial"] = xy
    region = f"{name}_cells"
    polygons = _polygons(folder, adata.obs_names)
    if polygons is not None:
        cells = ShapesModel.parse(polygons, transformations={name: Identity()})
    else:
        missing = _lacks(folder, "cell_boundaries", "the outlines of cells")
        if _AREA not in about:
            msg = f"{missing}. {_AREA!r} is missing too, so that their sizes are unknown. Copy the file from the run."
            raise FileNotFoundError(msg)
        logger.warning("%s. Cells are circles of their area.", missing)
        radius = np.sqrt(about[_AREA].to_numpy(dtype=float) / np.pi)
        index = pd.Index(adata.obs_names, name=INSTANCE)
        cells = ShapesModel.parse(xy, geometry=0, radius=radius, index=index, transformations={name: Identity()})
    adata.obs[REGION] = pd.Categorical([region] * adata.n_obs)
    adata.obs[INSTANCE] = adata.obs_names.to_numpy()
    return TableModel.parse(adata, region=region, region_key=REGION, instance_key=INSTANCE), cells


def _about_cells(folder: Path) -> pd.DataFrame:
    """Return what is known of each cell, by its id."""
    table = _read_table(folder, "cells", ["cell_id", "x_centroid", "y_centroid"])
    if table is None:
        msg = f"{_lacks(folder, 'cells', 'where the cells lie')}. Copy the file from the run."
        raise FileNotFoundError(msg)
    return table.set_index(_as_text(table.pop("cell_id")))


def _lacks(folder: Path, name: str, what: str) -> str:
    """Return that a table of a run is missing, also where Xenium Explorer's file holds the same."""
    packed = folder / "cells.zarr.zip"
    instead = f"; {packed.name}, which may hold the same, is not read" if packed.is_file() else ""
    return f"{folder} lacks {name}.parquet, or {name}.csv.gz: {what}{instead}"


def _read_table(folder: Path, name: str, columns: list[str]) -> pd.DataFrame | None:
    """Return a table of a run, in whichever format it is there, None without.

    Raises
    ------
    ValueError
        It is damaged, or lacks a column.
    """
    packed, text = folder / f"{name}.parquet", folder / f"{name}.csv.gz"
    path = next((one for one in (packed, text) if one.is_file()), None)
    if path is None:
        return None
    with reading(path):
        table = pd.read_parquet(path) if path == packed else pd.read_csv(path)
        return table[[*columns, *table.columns.difference(columns, sort=False)]]


def _polygons(folder: Path, cells: pd.Index) -> Any:
    """Return the boundaries of the cells that have one, by their ids; None without the file."""
    import geopandas as gpd
    import shapely

    vertices = _read_table(folder, "cell_boundaries", ["cell_id", "vertex_x", "vertex_y"])
    if vertices is None:
        return None
    vertices["cell_id"] = _as_text(vertices["cell_id"])
    xy = vertices[["vertex_x", "vertex_y"]].to_numpy(dtype=float)
    parts = vertices.groupby(["cell_id", _PART] if _PART in vertices else "cell_id", sort=False)
    part = parts.ngroup().to_numpy()
    has_place = np.bincount(part, ~np.isfinite(xy).all(axis=1)) == 0
    drawn = (has_place & (np.bincount(part) >= _FEWEST_VERTICES))[part]
    if not drawn.any():
        msg = f"{folder} holds no boundary of a cell: every one has fewer than three points, or points without a place."
        raise ValueError(msg)
    order = np.flatnonzero(drawn)[np.argsort(part[drawn], kind="stable")]
    _, first, ring = np.unique(part[order], return_index=True, return_inverse=True)
    outlines = shapely.polygons(shapely.linearrings(xy[order], indices=ring))
    cell, ids = pd.factorize(vertices["cell_id"].to_numpy()[order][first])
    _check_cells(pd.Index(ids), cells, "the boundaries of cells", folder)
    several = np.bincount(cell) > 1
    shapes = np.empty(len(ids), dtype=object)
    shapes[cell] = outlines
    if several.any():
        grouped = np.argsort(cell, kind="stable")
        shapes[several] = shapely.multipolygons(outlines[grouped], indices=cell[grouped])[several]
    index = pd.Index(ids, name=INSTANCE)
    return gpd.GeoDataFrame(geometry=shapes, index=index).loc[index.isin(cells)]


def _check_cells(found: pd.Index, counted: pd.Index, what: str, folder: Path) -> None:
    """Raise ValueError where a file names none of the cells that have counts: it is of another run."""
    if not found.isin(counted).any():
        msg = (
            f"In {folder}, {what} names none of the cells that have counts: it begins with {listed(found[:2])}, the "
            f"counts with {listed(counted[:2])}. Are all files of one run?"
        )
        raise ValueError(msg)


def _as_text(ids: pd.Series) -> pd.Index:
    values = [one.decode() if isinstance(one, bytes) else str(one) for one in ids]
    return pd.Index(values)
