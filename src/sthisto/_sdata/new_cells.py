"""New cells on an image: polygons in its coordinate systems."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import shapely
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation

if TYPE_CHECKING:
    from spatialdata import SpatialData


def polygons(sdata: SpatialData, image_key: str, outlines: list[np.ndarray]) -> gpd.GeoDataFrame:
    """Return polygons in all coordinate systems of an image.

    Parameters
    ----------
    outlines
        (n_points, 2) x and y of each, closed, in px of the full resolution.
    """
    systems = get_transformation(sdata.images[image_key], get_all=True)
    drawn = [shapely.Polygon(points).buffer(0) for points in outlines]
    largest = [max(shapely.get_parts(one), key=shapely.area) for one in drawn]
    return ShapesModel.parse(gpd.GeoDataFrame(geometry=largest), transformations=systems)
