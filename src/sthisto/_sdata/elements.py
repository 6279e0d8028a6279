"""SpatialData's elements as arrays: pixels, transformations, centers. With `_sections`, all that reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from spatialdata.transformations import get_transformation
from xarray import DataArray, DataTree

from sthisto._images.pyramid import Level, Pyramid
from sthisto._utils.logging import logger
from sthisto._utils.validate import listed

_ISOTROPY_TOLERANCE = 0.01
_PROBE_SIZE = 256
_BRIGHTEST_OF_UNIT_RANGE = 1.5


def affine(element: Any, system: str) -> np.ndarray:
    """Return the (3, 3) matrix that takes x, y of an element to the coordinate system."""
    transformation = get_transformation(element, to_coordinate_system=system)
    matrix: np.ndarray = transformation.to_affine_matrix(("x", "y"), ("x", "y"))
    return matrix


def apply_affine(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Take (n, 2) points through a (3, 3) affine."""
    moved: np.ndarray = xy @ matrix[:2, :2].T + matrix[:2, 2]
    return moved


def scale(matrix: np.ndarray) -> float:
    """Return by how much an affine map enlarges."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def corners(image: Any) -> np.ndarray:
    """Return (4, 2) x, y of the corners of an image's full resolution, in px."""
    height, width = (_levels(image)[0].sizes[axis] for axis in ("y", "x"))
    return np.array([[0.0, 0.0], [width, 0.0], [0.0, height], [width, height]])


def read_pyramid(image: Any, image_key: str, system: str) -> tuple[Pyramid, np.ndarray]:
    """Return the levels of an image and the affine from its full resolution to the coordinate system.

    Coarse levels that rounding to whole pixels has stretched by more than a percent are left out: finer ones serve in
    their place.
    """
    arrays = _levels(image)
    to_system = affine(arrays[0], system)
    if not _is_square(to_system):
        msg = (
            f"Image {image_key!r} is stretched or sheared by its transformation to {system!r}: its pixels are not "
            f"square. Its linear part is {to_system[:2, :2].tolist()}. Resample it first, for example with "
            "spatialdata.transform."
        )
        raise ValueError(msg)
    channels = _rgb_channels(arrays[0], image_key)
    brightness = _brightness(arrays[-1], image_key)
    from_full = [_from_full(arrays[0], array, np.linalg.inv(affine(array, system)) @ to_system) for array in arrays]
    levels = [
        Level(array.data[channels], matrix, brightness)
        for array, matrix in zip(arrays, from_full, strict=True)
        if _is_square(matrix)
    ]
    return Pyramid(tuple(sorted(levels, key=lambda level: level.downsample))), to_system


def _from_full(full: DataArray, level: DataArray, declared: np.ndarray) -> np.ndarray:
    """Return the affine from px of the full resolution to px of a level.

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
    """Return the arrays of a multiscale element from the finest to the coarsest, or the only one."""
    scales: list[Any] = list(image.values()) if isinstance(image, DataTree) else []
    return [next(iter(one.values())) for one in scales] or [image]


def _is_square(matrix: np.ndarray) -> bool:
    gram = matrix[:2, :2].T @ matrix[:2, :2]
    return np.allclose(gram / (np.trace(gram) / 2), np.eye(2), rtol=0, atol=2 * _ISOTROPY_TOLERANCE)


def _rgb_channels(image: DataArray, image_key: str) -> list[int]:
    """Return the positions of red, green and blue: by their names where these are r, g, b, else the first three.

    Raises
    ------
    ValueError
        The image is no RGB image of uint8 or float.
    """
    if image.dims != ("c", "y", "x"):
        msg = f"Image {image_key!r} has the dimensions {image.dims}; expected ('c', 'y', 'x')."
        raise ValueError(msg)
    n_channels = image.sizes["c"]
    labels = [str(name) for name in image.coords["c"].values] if "c" in image.coords else []
    are_colors = all(label.lower()[:1] in "rgba" or label.isdigit() for label in labels)
    if n_channels == 4 and not are_colors:
        msg = (
            f"Image {image_key!r} has the channels {listed(labels)}, as a fluorescence image has; an H&E image has r, "
            "g and b. Pass image_key=…"
        )
        raise ValueError(msg)
    if n_channels == 4:
        logger.warning("Image %r has four channels: the one beside RGB is transparency and left out.", image_key)
    elif n_channels == 3 and not are_colors:
        logger.warning("Image %r has the channels %s: they are taken for red, green, blue.", image_key, listed(labels))
    elif n_channels != 3:
        msg = f"Image {image_key!r} has {n_channels} channel(s); an H&E image in RGB has 3. Pass image_key=…"
        raise ValueError(msg)
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        msg = (
            f"Image {image_key!r} is of {image.dtype}; expected uint8, or float between 0 and 1 or 0 and 255. "
            "Convert it first, for example with image.astype('uint8') after scaling to 0..255."
        )
        raise ValueError(msg)
    names = [label.lower()[:1] for label in labels]
    named = {"r", "g", "b"} <= set(names) and len(set(names)) == len(names)
    return [names.index(name) for name in "rgb"] if named else [0, 1, 2]


def _brightness(image: DataArray, image_key: str) -> float:
    """Return what takes stored values to 0..255, from nine places of the level."""
    if image.dtype == np.uint8:
        return 1.0
    starts = [
        sorted(
            {
                int((image.sizes[axis] - _PROBE_SIZE) * at) if image.sizes[axis] > _PROBE_SIZE else 0
                for at in (0, 0.5, 1)
            }
        )
        for axis in ("y", "x")
    ]
    probes = [
        np.asarray(image.data[:3, y : y + _PROBE_SIZE, x : x + _PROBE_SIZE]) for y in starts[0] for x in starts[1]
    ]
    if all(probe.min() == probe.max() for probe in probes):  # nine places off the tissue
        step = max(1, min(image.sizes["y"], image.sizes["x"]) // _PROBE_SIZE)
        probes.append(np.asarray(image.data[:3, ::step, ::step]))
    lowest, brightest = min(float(probe.min()) for probe in probes), max(float(probe.max()) for probe in probes)
    if not (np.isfinite(lowest + brightest) and lowest >= 0 and brightest <= 255):
        msg = (
            f"Image {image_key!r} is of {image.dtype} and reaches from {lowest:g} to {brightest:g}; expected values "
            "between 0 and 1 or 0 and 255."
        )
        raise ValueError(msg)
    return 255.0 if brightest <= _BRIGHTEST_OF_UNIT_RANGE else 1.0


@dataclass(frozen=True)
class Spots:
    """Spots, cells or bins of one element in a coordinate system.

    Attributes
    ----------
    instances
        (n,) what the table's instance key refers to.
    xy
        (n, 2) centers.
    diameters
        (n,) width of each; of a polygon or a label, that of the circle of the same area.
    areas
        (n,) area of each.
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
        instances, xy, areas = _label_moments(_levels(element)[0])
    elif isinstance(element, gpd.GeoDataFrame):
        instances, xy = element.index, shapely.get_coordinates(element.geometry.centroid)
        area = np.pi * element["radius"] ** 2 if "radius" in element else element.geometry.area
        areas = area.to_numpy(dtype=float)
    else:
        msg = f"Region {region!r} is a {type(element).__name__}; expected shapes or labels, whose instances are spots."
        raise TypeError(msg)
    to_system = affine(element, system)
    areas = areas * scale(to_system) ** 2
    return Spots(instances, apply_affine(to_system, xy), 2 * np.sqrt(areas / np.pi), areas)


def _label_moments(labels: DataArray) -> tuple[pd.Index, np.ndarray, np.ndarray]:
    """Return ids, centroids (n, 2) and areas (n,) of labels in px, read block by block; 0 is background."""
    sums = pd.DataFrame({"area": [], "x": [], "y": []}, index=pd.Index([], dtype=labels.dtype), dtype=float)
    rows, columns = labels.data.chunks if hasattr(labels.data, "chunks") else ((n,) for n in labels.shape)
    for bottom, height in zip(np.cumsum(rows), rows, strict=True):
        for right, width in zip(np.cumsum(columns), columns, strict=True):
            block = np.asarray(labels.data[bottom - height : bottom, right - width : right])
            y, x = np.nonzero(block)
            found, place = np.unique(block[y, x], return_inverse=True)
            moments = {
                "area": np.bincount(place, minlength=len(found)).astype(float),
                "x": np.bincount(place, weights=x + (right - width) + 0.5, minlength=len(found)),
                "y": np.bincount(place, weights=y + (bottom - height) + 0.5, minlength=len(found)),
            }
            sums = sums.add(pd.DataFrame(moments, index=found), fill_value=0.0)
    areas = sums["area"].to_numpy()
    return sums.index, sums[["x", "y"]].to_numpy() / areas[:, None], areas
