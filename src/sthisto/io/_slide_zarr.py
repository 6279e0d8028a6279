"""OME-Zarr images, and plain zarr arrays, as the levels of a slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from sthisto.io._arrays import flat_rgb, stored_colors, white_value
from sthisto.io._reading import reading
from sthisto.io._tiff_metadata import is_square, plausible_um

_ROOT_FILES: Final = ("zarr.json", ".zgroup", ".zarray")
_SERIES: Final = "bioformats2raw.layout"
_FIRST_SERIES: Final = "0"
_OLD_AXES: Final = "tczyx"
"""Axes of OME-Zarr before version 0.3."""
_STEPS: Final = "coordinateTransformations"
_UM: Final[dict[str | None, float]] = {"micrometer": 1.0, "um": 1.0, "µm": 1.0, "nanometer": 1e-3, "millimeter": 1e3}


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a zarr array or group of format 2 or 3."""
    return any((path / name).is_file() for name in _ROOT_FILES)


def read_zarr_levels(path: Path) -> tuple[list[Any], float | None]:
    """Return the levels of an image, lazy (3, height, width) in uint8, and its µm per px where these are stated.

    Which stored value is white is known by the coarsest level, for all of them.

    Raises
    ------
    ValueError
        The zarr holds no image.
    """
    import dask.array as da
    import zarr

    with reading(path):
        stored = zarr.open(path, mode="r")
    if isinstance(stored, zarr.Array):
        arrays, um = [da.from_zarr(stored)], None
    else:
        arrays, um = _arrays_of_group(stored, path)
    try:
        stored_levels = [stored_colors(array) for array in arrays]
        white = white_value(min(stored_levels, key=lambda level: level.size), "Its coarsest level")
        levels = [flat_rgb(one, "`image`", white=white).transpose(2, 0, 1).rechunk({0: -1}) for one in stored_levels]
    except ValueError as error:
        msg = f"{path} can't be read as a slide: {error}"
        raise ValueError(msg) from error
    return levels, um


def _arrays_of_group(group: Any, path: Path) -> tuple[list[Any], float | None]:
    """Return the levels, dask arrays or, where their axes have names, xarrays; and the µm per px."""
    import dask.array as da

    if _SERIES in group.attrs and _FIRST_SERIES in group:
        group = group[_FIRST_SERIES]
    attrs = dict(group.attrs)
    attrs = attrs.get("ome", attrs)
    if multiscales := attrs.get("multiscales"):
        levels = [da.from_zarr(group[one["path"]]) for one in multiscales[0]["datasets"]]
        return [_with_names(level, multiscales[0], attrs) for level in levels], _um_per_px(multiscales[0])
    arrays = [da.from_zarr(one) for one in sorted((one for _, one in group.arrays()), key=lambda one: -one.size)]
    if not arrays:
        msg = (
            f"{path} is a zarr group without an image: it has neither 'multiscales' nor arrays, but "
            f"{sorted(group.group_keys())}. A SpatialData store is read with sthisto.io.read."
        )
        raise ValueError(msg)
    return arrays, None


def _with_names(level: Any, multiscale: dict[str, Any], attrs: dict[str, Any]) -> Any:
    """Return a level with the names of its axes and channels."""
    from xarray import DataArray

    axes = multiscale.get("axes", [*_OLD_AXES])
    names = [axis["name"] if isinstance(axis, dict) else axis for axis in axes]
    labels = [one.get("label") for one in attrs.get("omero", {}).get("channels", [])]
    size = dict(zip(names, level.shape, strict=True))
    has_labels = all(labels) and len(labels) == size.get("c")
    return DataArray(level, dims=names, coords={"c": labels} if has_labels else {})


def _um_per_px(multiscale: dict[str, Any]) -> float | None:
    """Return µm per px by the units of x and y and the scale of the finest level; None where they differ."""
    axes = multiscale.get("axes", [])
    steps = [step for one in (multiscale["datasets"][0], multiscale) for step in one.get(_STEPS, [])]
    scales = [step["scale"] for step in steps if step.get("type") == "scale"]
    units = {axis["name"]: (i, _UM.get(axis.get("unit"))) for i, axis in enumerate(axes) if isinstance(axis, dict)}
    sides = [units.get(name, (0, None)) for name in "xy"]
    x, y = (float(np.prod([scale[i] for scale in scales])) * unit if scales and unit else None for i, unit in sides)
    return plausible_um(x) if x and y and is_square(x, y) else None
