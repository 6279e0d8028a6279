"""SpatialData's elements as arrays: pixels, transformations, centers. With `_sections`, all that reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from spatialdata.transformations import get_transformation
from xarray import DataArray, DataTree

from sthisto._images.colors import Channels, brightest_value, find_channels, over_white, to_uint8
from sthisto._images.pyramid import Level, Pyramid, reading
from sthisto._sdata.columns import read_numbers
from sthisto._sdata.labels import label_moments
from sthisto._utils.logging import logger

_ISOTROPY_TOLERANCE: Final = 0.01
_PROBE_SIZE: Final = 256
_SINGULAR: Final = 1e-9


def affine(element: Any, system: str, name: str = "an element") -> np.ndarray:
    """Return the (3, 3) matrix that takes x, y of an element to the coordinate system.

    Raises
    ------
    ValueError
        It is not finite, or maps the plane to a line or a point, so that it has no inverse.
    """
    finest = _levels(element)[0] if isinstance(element, DataTree) else element
    transformation = get_transformation(finest, to_coordinate_system=system)
    matrix = np.asarray(transformation.to_affine_matrix(("x", "y"), ("x", "y")), dtype=np.float64)
    linear = matrix[:2, :2]
    if not np.isfinite(matrix).all() or abs(np.linalg.det(linear)) <= _SINGULAR * np.square(linear).sum():
        msg = (
            f"The transformation of {name} to {system!r} is {matrix[:2].tolist()}: it must be finite and have an "
            "inverse. Write it anew with spatialdata.transformations.set_transformation."
        )
        raise ValueError(msg)
    return matrix


def apply_affine(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Take (n, 2) points through a (3, 3) affine."""
    moved: np.ndarray = xy @ matrix[:2, :2].T + matrix[:2, 2]
    return moved


def scale(matrix: np.ndarray) -> float:
    """Return by how much an affine map, (3, 3), enlarges."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def corners(image: Any) -> np.ndarray:
    """Return (4, 2) x, y of the corners of an image's full resolution, in px."""
    height, width = (_levels(image)[0].sizes[axis] for axis in ("y", "x"))
    return np.array([[0.0, 0.0], [width, 0.0], [0.0, height], [width, height]])


def read_pyramid(image: Any, image_key: str, system: str) -> tuple[Pyramid, np.ndarray]:
    """Return the levels of an image and the (3, 3) affine from its full resolution to the coordinate system.

    Coarse levels that rounding to whole pixels has stretched by more than a percent are left out: finer ones serve in
    their place.
    """
    arrays = _levels(image)
    to_system = affine(arrays[0], system, f"image {image_key!r}")
    if not _is_square(to_system):
        msg = (
            f"Image {image_key!r} is stretched or sheared by its transformation to {system!r}: its pixels are not "
            f"square. Its linear part is {to_system[:2, :2].tolist()}. Resample it first, for example with "
            "spatialdata.transform."
        )
        raise ValueError(msg)
    channels = _channels(arrays[0], image_key)
    brightness = _brightness(arrays[-1], image_key)
    has_alpha = channels.alpha is not None and _is_alpha(arrays[-1], channels, 255 / brightness, image_key)
    from_full = [_from_full(arrays[0], array, np.linalg.inv(affine(array, system)) @ to_system) for array in arrays]
    levels = [
        _level(
            array.data,
            channels,
            matrix,
            brightness if array.dtype == arrays[-1].dtype else _brightness(array, image_key),
            f"Image {image_key!r}",
            has_alpha=has_alpha,
        )
        for array, matrix in zip(arrays, from_full, strict=True)
        if _is_square(matrix)
    ]
    return Pyramid(tuple(sorted(levels, key=lambda level: level.downsample))), to_system


def _from_full(full: DataArray, level: DataArray, declared: np.ndarray) -> np.ndarray:
    """Return the (3, 3) affine from px of the full resolution to px of a level.

    SpatialData declares the ratio of both shapes, but the levels it makes are means over blocks of whole pixels, and
    where the blocks don't fill the image its first rows and columns are dropped: of 901 px, level 8 has 112 px of 8
    each that begin at 5, not of 8.04 that begin at 0. Where the shapes fit such blocks, these are taken. Pyramids of
    other makers that round otherwise are then off by less than a pixel of the level.
    """
    full_shape, level_shape = (np.array([one.sizes["x"], one.sizes["y"]]) for one in (full, level))
    block = int((full_shape / level_shape).min())
    is_ratio = np.allclose(declared, np.diag([*(level_shape / full_shape), 1]), atol=1e-6)
    if not is_ratio or (full_shape // block != level_shape).any():
        return declared
    from_full = np.diag([1 / block, 1 / block, 1.0])
    from_full[:2, 2] = -(full_shape - block * level_shape) / block
    return from_full


def _levels(image: Any) -> list[DataArray]:
    """Return the arrays of a multiscale element from the finest to the coarsest, in whatever order; or the only one."""
    scales: list[Any] = list(image.values()) if isinstance(image, DataTree) else []
    arrays = [next(iter(one.values())) for one in scales] or [image]
    return sorted(arrays, key=lambda one: -one.sizes["y"] * one.sizes["x"]) if len(arrays) > 1 else arrays


def _is_square(matrix: np.ndarray) -> bool:
    gram = matrix[:2, :2].T @ matrix[:2, :2]
    return np.allclose(gram / (np.trace(gram) / 2), np.eye(2), rtol=0, atol=2 * _ISOTROPY_TOLERANCE)


def is_rgb(image: Any, image_key: str) -> bool:
    """Return whether the channels of an image are those of an RGB image."""
    try:
        _channels(_levels(image)[0], image_key)
    except ValueError:
        return False
    return True


def _channels(image: DataArray, image_key: str) -> Channels:
    """Return the positions of red, green, blue and alpha.

    Raises
    ------
    ValueError
        The image is no RGB image.
    """
    if image.dims != ("c", "y", "x"):
        msg = f"Image {image_key!r} has the dimensions {image.dims}; expected ('c', 'y', 'x')."
        raise ValueError(msg)
    labels = list(image.coords["c"].values) if "c" in image.coords else list(range(image.sizes["c"]))
    return find_channels(labels, f"Image {image_key!r}", remedy="Pass image_key=… to use another one.")


def _level(
    values: Any, channels: Channels, from_full: np.ndarray, brightness: float, name: str, *, has_alpha: bool
) -> Level:
    """Return (c, height, width) values as a level in RGB; transparency is laid over white when the level is read."""
    colors = values[list(channels.rgb)]
    if not has_alpha:
        return Level(colors, from_full, brightness, name)
    stacked = values[[*channels.rgb, channels.alpha]]
    if isinstance(stacked, da.Array):
        whole = stacked.rechunk({0: -1})
        flat = whole.map_blocks(_flat, 255 / brightness, dtype=np.uint8, chunks=((3,), *whole.chunks[1:]))
    else:
        flat = _flat(stacked, 255 / brightness)
    return Level(flat, from_full, name=name)


def _flat(values: np.ndarray, white: float) -> np.ndarray:
    """Lay stored RGBA values (4, rows, columns) over white: (3, rows, columns), uint8."""
    scaled = np.moveaxis(to_uint8(values, white), 0, -1)
    return np.moveaxis(over_white(scaled[..., :3], scaled[..., 3]), -1, 0)


def _brightness(image: DataArray, image_key: str) -> float:
    """Return what takes stored values to 0..255, from nine places of the level."""
    if image.dtype == np.uint8:
        return 1.0
    what = f"Image {image_key!r}"
    colors = np.concatenate([probe[:3].ravel() for probe in _probes(image, image_key)])
    known = colors[~np.isnan(colors)] if colors.dtype.kind == "f" else colors
    if not known.size:
        msg = f"{what} holds nothing but NaN in nine places of its coarsest level. Pass image_key=… of another one."
        raise ValueError(msg)
    return 255 / brightest_value(image.dtype, float(known.min()), float(known.max()), what)


def _is_alpha(image: DataArray, channels: Channels, white: float, image_key: str) -> bool:
    """Return whether a fourth channel is transparency: by its name, or because some of it is opaque."""
    if channels.is_named or max(float(probe[channels.alpha].max()) for probe in _probes(image, image_key)) >= white:
        return True
    logger.warning("Image %r has four channels: the one beside RGB is opaque nowhere and left out.", image_key)
    return False


def _probes(image: DataArray, image_key: str) -> list[np.ndarray]:
    """Return the pixels of nine places of a level, of all of it where these are of one color: (channels, n, m)."""
    starts = [
        sorted(
            {
                int((image.sizes[axis] - _PROBE_SIZE) * at) if image.sizes[axis] > _PROBE_SIZE else 0
                for at in (0, 0.5, 1)
            }
        )
        for axis in ("y", "x")
    ]
    with reading(f"Image {image_key!r}"):
        return _read_probes(image, starts)


def _read_probes(image: DataArray, starts: list[list[int]]) -> list[np.ndarray]:
    probes = [np.asarray(image.data[:, y : y + _PROBE_SIZE, x : x + _PROBE_SIZE]) for y in starts[0] for x in starts[1]]
    if all(probe[:3].min() == probe[:3].max() for probe in probes):  # nine places off the tissue
        step = max(1, min(image.sizes["y"], image.sizes["x"]) // _PROBE_SIZE)
        probes.append(np.asarray(image.data[:, ::step, ::step]))
    return probes


@dataclass(frozen=True)
class Spots:
    """Spots, cells or bins of one element in a coordinate system.

    Attributes
    ----------
    instances
        (n,) what the table's instance key refers to.
    xy
        (n, 2) centers, NaN where an instance has no place: an empty or missing geometry, or coordinates that are not
        finite.
    diameters
        (n,) width of each; of a polygon or a label, that of the circle of the same area. NaN where it is unknown.
    areas
        (n,) area of each, NaN where it is unknown.
    """

    instances: pd.Index
    xy: np.ndarray
    diameters: np.ndarray
    areas: np.ndarray


def read_spots(element: Any, region: str, system: str) -> Spots:
    """Return the spots of a shapes or labels element.

    Raises
    ------
    TypeError
        The element is neither.
    """
    if isinstance(element, DataArray | DataTree) and "c" not in _levels(element)[0].dims:
        instances, xy, areas = label_moments(element, _levels(element)[0])
    elif isinstance(element, gpd.GeoDataFrame):
        instances, xy, areas = _shape_moments(element)
    else:
        msg = f"Region {region!r} is a {type(element).__name__}; expected shapes or labels, whose instances are spots."
        raise TypeError(msg)
    to_system = affine(element, system, f"region {region!r}")
    areas = areas * scale(to_system) ** 2
    return Spots(instances, apply_affine(to_system, xy), 2 * np.sqrt(areas / np.pi), areas)


def _shape_moments(element: gpd.GeoDataFrame) -> tuple[pd.Index, np.ndarray, np.ndarray]:
    """Return ids, centers (n, 2) and areas (n,) of shapes, in their order; NaN where a shape has no place or area."""
    geometry = np.asarray(element.geometry.to_numpy(), dtype=object)
    has_place = ~(shapely.is_missing(geometry) | shapely.is_empty(geometry))
    xy = np.full((len(geometry), 2), np.nan)
    xy[has_place] = shapely.get_coordinates(shapely.centroid(geometry[has_place]))
    xy[~np.isfinite(xy).all(axis=1)] = np.nan
    if "radius" in element:
        areas = np.pi * read_numbers(element["radius"]) ** 2
    else:
        areas = shapely.area(geometry)
    return element.index, xy, np.where(areas > 0, areas, np.nan)
