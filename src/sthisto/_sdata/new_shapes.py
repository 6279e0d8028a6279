"""New spots on an image: circles in its coordinate systems, and a table that annotates them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import get_transformation

from sthisto._sdata.elements import read_pyramid
from sthisto._sdata.sections import as_cohort
from sthisto._sdata.slots import NEW_INSTANCE, NEW_REGION, SPATIAL
from sthisto._utils.validate import check_new_name, resolve_only

if TYPE_CHECKING:
    import geopandas as gpd
    from spatialdata import SpatialData

    from sthisto._images.pyramid import Pyramid


def resolve_image(sdata: SpatialData, image_key: str | None) -> str:
    """Return `image_key`, or the only image, of what must be one SpatialData."""
    as_cohort([sdata])
    name: str = resolve_only(image_key, sdata.images, name="image_key", where="the images of the SpatialData")
    return name


def read_image(sdata: SpatialData, image_key: str) -> Pyramid:
    """Return the levels of an image, whether or not spots lie on it."""
    image = sdata.images[image_key]
    pyramid, _ = read_pyramid(image, image_key, next(iter(get_transformation(image, get_all=True))))
    return pyramid


def check_no_element(sdata: SpatialData, names: Iterable[str], *, argument: str) -> None:
    """Raise ValueError when the SpatialData has an element of one of the names that `argument` leads to."""
    present = {name.lower(): name for _, name, _ in sdata.gen_elements()}
    for name in names:
        check_new_name(name, name=argument)
        if name.lower() in present:
            msg = f"There is an element {present[name.lower()]!r} already. Delete it, or choose another {argument}."
            raise ValueError(msg)


def circles(sdata: SpatialData, image_key: str, centers: np.ndarray, diameter: float) -> gpd.GeoDataFrame:
    """Return circles in all coordinate systems of an image.

    Parameters
    ----------
    sdata
        Holds the image.
    image_key
        The image that `centers` refer to.
    centers
        (n, 2) x and y in px of the full resolution.
    diameter
        Width of each circle in px of the full resolution.
    """
    systems = get_transformation(sdata.images[image_key], get_all=True)
    return ShapesModel.parse(centers, geometry=0, radius=diameter / 2, transformations=systems)


def annotating_table(
    centers: Mapping[str, np.ndarray],
    values: np.ndarray,
    genes: Sequence[str],
    columns: Mapping[str, Any] | None = None,
) -> AnnData:
    """Return a table that annotates new shapes, region by region.

    Parameters
    ----------
    centers
        Name of each region -> (n, 2) x and y of its spots in px of the full resolution. They are numbered from 0.
    values
        (n_spots, n_genes) values of X, in the order of `centers`.
    genes
        Names of the variables.
    columns
        Further columns of ``obs``, (n_spots,) each.
    """
    region = np.repeat(np.array(list(centers), dtype=object), [len(xy) for xy in centers.values()])
    instance = np.concatenate([np.arange(len(xy)) for xy in centers.values()])
    obs = pd.DataFrame(
        {NEW_REGION: pd.Categorical(region), NEW_INSTANCE: instance, **(columns or {})},
        index=[f"{name}_{i}" for name, i in zip(region, instance, strict=True)],
    )
    var = pd.DataFrame(index=pd.Index(list(genes), dtype=str))
    table = AnnData(values, obs=obs, var=var, obsm={SPATIAL: np.concatenate(list(centers.values()))})
    regions = list(obs[NEW_REGION].cat.categories)
    return TableModel.parse(table, region=regions, region_key=NEW_REGION, instance_key=NEW_INSTANCE)
