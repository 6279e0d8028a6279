"""What belongs together: the image of a region, the coordinate system of both, and the rows of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from spatialdata.models import TableModel
from spatialdata.transformations import get_transformation

from sthisto._sdata.elements import affine, apply_affine, corners
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key, listed

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthisto._images.pyramid import Pyramid


def pair_image(
    sdata: SpatialData, region: str, image_key: str | None, coordinate_system: str | None
) -> tuple[str, list[str]]:
    """Return the image of a region and the coordinate systems that both share.

    Raises
    ------
    KeyError
        A key is missing, or no image shares a coordinate system with the region.
    ValueError
        Several images do, or the systems place the spots differently on the image.
    """
    systems = set(get_transformation(sdata[region], get_all=True))
    if coordinate_system is not None:
        check_key(coordinate_system, sorted(systems), name="coordinate_system", where=f"those of region {region!r}")
        systems = {coordinate_system}
    if image_key is not None:
        check_key(image_key, sdata.images, name="image_key", where="the images of the SpatialData")
    shared = {
        name: sorted(systems & set(get_transformation(image, get_all=True)))
        for name, image in sdata.images.items()
        if image_key in (None, name)
    }
    candidates = [name for name, common in shared.items() if common]
    if not candidates and image_key is not None:
        msg = (
            f"Image {image_key!r} shares no coordinate system with region {region!r}, which lies in "
            f"{listed(sorted(systems))}. Pass the image of each region: image_key={{{region!r}: …}}."
        )
        raise KeyError(msg)
    if not candidates:
        msg = (
            f"No image shares a coordinate system with region {region!r}, which lies in {listed(sorted(systems))}. "
            f"Images: {listed(shared)}. Align one with spatialdata.transformations.set_transformation."
        )
        raise KeyError(msg)
    if len(candidates) > 1:
        msg = (
            f"`image_key` is ambiguous for region {region!r}: {listed(candidates)} share its coordinate system. "
            f"Pass image_key={{{region!r}: …}}, in every call, or keep the one to work with: del sdata.images[…]."
        )
        raise ValueError(msg)
    (image_key,) = candidates
    _check_agreement(sdata, region, image_key, shared[image_key])
    return image_key, shared[image_key]


def _check_agreement(sdata: SpatialData, region: str, image_key: str, systems: list[str]) -> None:
    """Refuse systems that put the spots on pixels of the image more than one apart."""
    image, spots = sdata[image_key], sdata[region]
    to_pixels = [np.linalg.inv(affine(image, system)) @ affine(spots, system) for system in systems]
    pixels = corners(image)
    reference = apply_affine(np.linalg.inv(to_pixels[0]), pixels)
    if any(np.abs(apply_affine(other, reference) - pixels).max() > 1 for other in to_pixels[1:]):
        msg = (
            f"Region {region!r} and image {image_key!r} share the coordinate systems {listed(systems)}, which place "
            "the spots differently. Pass coordinate_system=…"
        )
        raise ValueError(msg)


def match_rows(table: AnnData, region: str, instances: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """Return the table's rows on tissue that annotate the region, and each one's position in the element.

    Raises
    ------
    ValueError
        The element's instances repeat, or no row of the table matches one.
    """
    attrs = table.uns[TableModel.ATTRS_KEY]
    instance_key = attrs[TableModel.INSTANCE_KEY]
    rows = np.flatnonzero((table.obs[attrs[TableModel.REGION_KEY_KEY]] == region).to_numpy())
    if not instances.is_unique:
        msg = f"The index of {region!r} has repeated instances; a row of the table cannot be matched to one of them."
        raise ValueError(msg)
    wanted = table.obs[instance_key].iloc[rows]
    position = instances.get_indexer(wanted)
    found = position >= 0
    if len(rows) and not found.any():
        msg = (
            f"No row of the table matches an instance of {region!r}: {instance_key!r} holds {listed(wanted[:3])}, "
            f"the element {listed(instances[:3])}."
        )
        raise ValueError(msg)
    _say_left_out(~found, region, "have no instance in it")
    keep = found
    if "in_tissue" in table.obs:
        on_tissue = table.obs["in_tissue"].iloc[rows].astype(float).to_numpy() != 0
        _say_left_out(found & ~on_tissue, region, "lie off tissue (in_tissue is 0)")
        keep = found & on_tissue
    return rows[keep], position[keep]


def inside_image(centers: np.ndarray, image: Pyramid, *, region: str, image_key: str) -> np.ndarray:
    """Return which centers, (n, 2) in px of the full resolution, lie in the image.

    Raises
    ------
    ValueError
        None does.
    """
    inside: np.ndarray = np.all((centers >= 0) & (centers < [image.width, image.height]), axis=1)
    if len(centers) and not inside.any():
        (left, top), (right, bottom) = centers.min(axis=0), centers.max(axis=0)
        msg = (
            f"No spot of {region!r} lies in image {image_key!r} of {image.width} x {image.height} px: the centers "
            f"reach from x {left:.0f} to {right:.0f} and y {top:.0f} to {bottom:.0f} px. The coordinate systems of "
            "both probably don't match: check their transformations, or pass coordinate_system=…"
        )
        raise ValueError(msg)
    _say_left_out(~inside, region, f"lie outside image {image_key!r}")
    return inside


def _say_left_out(left_out: np.ndarray, region: str, why: str) -> None:
    if left_out.any():
        logger.warning("%d of %d spots of %r %s: they are left out.", left_out.sum(), len(left_out), region, why)
