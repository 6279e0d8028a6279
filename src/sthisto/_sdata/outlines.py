"""The outlines of spots in px of their image: polygons as they are drawn, circles for all else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import shapely

from sthisto._sdata.elements import affine, apply_affine
from sthisto._sdata.pairing import match_rows
from sthisto._sdata.sections import as_cohort

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sthisto._sdata.sections import Section

_QUARTER_SEGMENTS = 6


def outlines(sdata: SpatialData | Sequence[SpatialData], section: Section) -> np.ndarray:
    """Return (n_spots,) polygons in px of the full resolution, in the order of the section's rows."""
    owner = next(one for one in as_cohort(sdata) if any(table is section.table for table in one.tables.values()))
    element = owner[section.region]
    if isinstance(element, gpd.GeoDataFrame) and "radius" not in element:
        return _polygons(owner, section, element)
    radius = section.diameter / 2 if np.isfinite(section.diameter) else 0.5
    circles: np.ndarray = shapely.buffer(shapely.points(section.centers), radius, quad_segs=_QUARTER_SEGMENTS)
    return circles


def _polygons(owner: SpatialData, section: Section, element: gpd.GeoDataFrame) -> np.ndarray:
    rows, position = match_rows(section.table, section.region, element.index)
    at = position[np.searchsorted(rows, section.rows)]
    image = owner[section.image_key]
    to_pixels = np.linalg.inv(affine(image, section.coordinate_system)) @ affine(element, section.coordinate_system)
    geometry = element.geometry.to_numpy()[at]
    drawn: np.ndarray = shapely.transform(geometry, lambda xy: apply_affine(to_pixels, xy))
    return drawn
