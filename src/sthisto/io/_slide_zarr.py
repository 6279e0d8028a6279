"""OME-Zarr images, and plain zarr arrays, as the levels of a slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sthisto.io._arrays import rgb_of_array
from sthisto.io._tiff_metadata import plausible_um

_ROOT_FILES: Final = ("zarr.json", ".zgroup", ".zarray")
_UM: Final = {"micrometer": 1.0, "um": 1.0, "µm": 1.0, "nanometer": 1e-3, "millimeter": 1e3}


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a zarr array or group of format 2 or 3."""
    return any((path / name).is_file() for name in _ROOT_FILES)


def read_zarr_levels(path: Path) -> tuple[list[Any], float | None]:
    """Return the levels of an image, lazy (3, height, width) in uint8, and its µm per px where these are stated.

    Raises
    ------
    ValueError
        The zarr holds no image.
    """
    import dask.array as da
    import zarr

    stored = zarr.open(path, mode="r")
    if isinstance(stored, zarr.Array):
        arrays, um = [stored], None
    else:
        arrays, um = _arrays_of_group(stored, path)
    levels = []
    for array in arrays:
        pixels = rgb_of_array(da.from_zarr(array))
        levels.append(pixels.transpose(2, 0, 1).rechunk({0: -1}))
    return levels, um


def _arrays_of_group(group: Any, path: Path) -> tuple[list[Any], float | None]:
    attrs = dict(group.attrs)
    multiscales = attrs.get("ome", attrs).get("multiscales")
    if multiscales:
        datasets = multiscales[0]["datasets"]
        return [group[one["path"]] for one in datasets], _um_per_px(multiscales[0])
    arrays = sorted((array for _, array in group.arrays()), key=lambda array: -array.size)
    if not arrays:
        msg = (
            f"{path} is a zarr group without an image: it has neither 'multiscales' nor arrays, but "
            f"{sorted(group.group_keys())}. A SpatialData store is read with sthisto.io.read."
        )
        raise ValueError(msg)
    return arrays, None


def _um_per_px(multiscale: dict[str, Any]) -> float | None:
    """Return µm per px by the unit of the axis x and the scale of the finest level."""
    axes = multiscale.get("axes", [])
    at = next((i for i, axis in enumerate(axes) if isinstance(axis, dict) and axis.get("name") == "x"), None)
    unit = None if at is None else _UM.get(axes[at].get("unit"))
    steps = multiscale["datasets"][0].get("coordinateTransformations", [])
    scale = next((step["scale"] for step in steps if step.get("type") == "scale"), None)
    return plausible_um(float(scale[at]) * unit) if unit and scale else None
