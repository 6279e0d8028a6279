"""What belongs together: the image of a region, the coordinate system of both, and the rows of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from spatialdata.models import TableModel
from spatialdata.transformations import get_transformation

from sthisto._sdata.columns import as_text, read_flags, read_names, read_numbers
from sthisto._sdata.elements import affine, apply_affine, corners, is_rgb, scale
from sthisto._sdata.inside import warn_left_out
from sthisto._sdata.overviews import overview_names
from sthisto._sdata.slots import USABLE
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key, listed

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


_SAME_PLACE: Final = 0.02


def pair_image(
    sdata: SpatialData, region: str, image_key: str | None, coordinate_system: str | None
) -> tuple[str, list[str]]:
    """Return the image of a region and the coordinate systems that both share.

    Raises
    ------
    KeyError
        A key is missing, or no image shares a coordinate system with the region.
    ValueError
        Several images do that are not one image in several resolutions, or the systems place the spots differently.
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
        candidates = [_finest(sdata, region, candidates, shared)]
    (image_key,) = candidates
    _check_agreement(sdata, region, image_key, shared[image_key])
    return image_key, shared[image_key]


def _finest(sdata: SpatialData, region: str, candidates: Sequence[str], shared: Mapping[str, Sequence[str]]) -> str:
    """Return the finest of several images in RGB of one place, as Space Ranger has them, with a message.

    Raises
    ------
    ValueError
        They do not cover the same place, or none is finer than the others.
    """
    in_color = [name for name in candidates if is_rgb(sdata[name], name)]
    in_color = [name for name in in_color if "cytassist" not in name.lower()] or in_color
    system = next((one for one in shared[candidates[0]] if all(one in shared[name] for name in in_color)), None)
    if in_color and system is not None:
        to_system = {name: affine(sdata[name], system, f"image {name!r}") for name in in_color}
        places = [apply_affine(to_system[name], corners(sdata[name])) for name in in_color]
        across = np.linalg.norm(places[0][3] - places[0][0])
        alike = all(np.abs(place - places[0]).max() <= _SAME_PLACE * across for place in places)
        finest = sorted(in_color, key=lambda name: scale(to_system[name]))
        coarser = scale(to_system[finest[1]]) / scale(to_system[finest[0]]) if len(finest) > 1 else np.inf
        if alike and coarser > 1 + _SAME_PLACE:
            logger.info(
                "Of the images %s of region %r, the finest in RGB is used: %r. Pass image_key=… to use another one.",
                listed(candidates),
                region,
                finest[0],
            )
            return finest[0]
    full = [name for name in in_color if {*overview_names(name), name} == set(in_color)]
    if full:
        return full[0]  # whose fault `check_overviews` names
    msg = (
        f"`image_key` is ambiguous for region {region!r}: {listed(candidates)} share its coordinate system. "
        f"Pass image_key={{{region!r}: …}}, in every call, or keep the one to work with: del sdata.images[…]."
    )
    raise ValueError(msg)


def _check_agreement(sdata: SpatialData, region: str, image_key: str, systems: list[str]) -> None:
    """Refuse systems that put the spots on pixels of the image more than one apart."""
    image, spots = sdata[image_key], sdata[region]
    to_pixels = [
        np.linalg.inv(affine(image, system, f"image {image_key!r}")) @ affine(spots, system, f"region {region!r}")
        for system in systems
    ]
    pixels = corners(image)
    reference = apply_affine(np.linalg.inv(to_pixels[0]), pixels)
    if any(np.abs(apply_affine(other, reference) - pixels).max() > 1 for other in to_pixels[1:]):
        msg = (
            f"Region {region!r} and image {image_key!r} share the coordinate systems {listed(systems)}, which place "
            "the spots differently. Pass coordinate_system=…"
        )
        raise ValueError(msg)


def match_rows(
    table: AnnData, region: str, instances: pd.Index, *, with_unusable: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the table's usable rows on tissue that annotate the region, and their positions in the element, (n,) each.

    Instances are matched as they are, or as text where one side holds numbers and the other one text.

    Parameters
    ----------
    with_unusable
        Whether rows whose ``obs["sthisto_usable"]`` is 0 are returned too.

    Raises
    ------
    ValueError
        An instance that the table refers to stands in the element more than once, far more rows refer to one instance
        than to others, instances are counted from another first number, or no row matches one.
    """
    attrs = table.uns[TableModel.ATTRS_KEY]
    instance_key = attrs[TableModel.INSTANCE_KEY]
    rows = _rows_of(table.obs[attrs[TableModel.REGION_KEY_KEY]], region)
    wanted = table.obs[instance_key].iloc[rows]
    position = _positions(wanted, instances, region)
    found = position >= 0
    if len(rows) and not found.any():
        msg = (
            f"No row of the table matches an instance of {region!r}: {instance_key!r} holds {listed(wanted[:3])}, "
            f"the element {listed(instances[:3])}."
        )
        raise ValueError(msg)
    _check_first(wanted, instances, found, region, instance_key)
    _check_repeats(position[found], instances, region, instance_key)
    warn_left_out(~found, region, "have no instance in it")
    keep = found
    if "in_tissue" in table.obs:
        on_tissue = _on_tissue(table.obs["in_tissue"].iloc[rows], found, region)
        keep = found & on_tissue
    if USABLE in table.obs and not with_unusable:
        flags, missing = read_flags(table.obs[USABLE].iloc[rows], USABLE)
        poor = keep & ~flags & ~missing
        warn_left_out(poor, region, f"are not usable (obs[{USABLE!r}] is 0)")
        keep = keep & ~poor
    return rows[keep], position[keep]


def _rows_of(column: pd.Series, region: str) -> np.ndarray:
    """Return the rows that name a region, as it is or, where none does, as a number or bytes that stand for it."""
    rows = np.flatnonzero((column == region).fillna(False).to_numpy(dtype=bool))
    rows = rows if len(rows) else np.flatnonzero(read_names(column) == as_text(region))
    if not len(rows):
        held = listed(pd.unique(column.dropna()), 5)
        logger.warning("No row of the table belongs to region %r: obs[%r] holds %s.", region, column.name, held)
    return rows


def _check_first(wanted: pd.Series, instances: pd.Index, found: np.ndarray, region: str, instance_key: str) -> None:
    """Raise ValueError where the last row alone has no instance, and the first instance no row: all are off by one."""
    n_missing, numbers = int((~found).sum()), read_numbers(instances)
    if n_missing != 1 or np.isnan(numbers).any():
        return
    first, last = numbers.min(), numbers.max()
    are_consecutive = last - first + 1 == len(numbers)
    asked = read_numbers(wanted)
    if are_consecutive and asked[~found][0] == last + 1 and first not in asked:
        msg = (
            f"The instances of {region!r} are numbered {first:.0f} to {last:.0f}, and obs[{instance_key!r}] "
            f"{np.nanmin(asked):.0f} to {last + 1:.0f}: they are probably counted from another first number, so that "
            "every row would be of the next instance. Number them alike; if they are right, remove the row without an "
            "instance."
        )
        raise ValueError(msg)


def _check_repeats(position: np.ndarray, instances: pd.Index, region: str, instance_key: str) -> None:
    """Warn of several rows for one instance, as after a join; raise where one has far more than the rows allow.

    `position` is that of each row's instance, (n,). Chunks of instances that a copied store lacks are read as one
    value: all of their rows would be of one spot.
    """
    counts = pd.Series(position).value_counts()
    if not len(counts) or counts.iloc[0] == 1:
        return
    most, which = counts.iloc[0], listed(instances[counts.index[:1]])
    if most > 2 * max(1.0, len(position) / len(instances)):
        msg = (
            f"{most} rows of the table are of the instance {which} of {region!r}: its store was copied in part, or "
            f"obs[{instance_key!r}] is wrong. Copy it again, or correct it."
        )
        raise ValueError(msg)
    logger.warning(
        "Instances of %r with several rows of the table: %d, such as %s with %d. Their rows get the same prediction.",
        region,
        (counts > 1).sum(),
        which,
        most,
    )


def _positions(wanted: pd.Series, instances: pd.Index, region: str) -> np.ndarray:
    """Return each wanted instance's position in the element, (n,), -1 where it has none."""
    if wanted.dtype.kind in "iu" and instances.dtype.kind in "iu":
        return _lookup(pd.Index(wanted.to_numpy()), instances, region)
    position = _lookup(pd.Index(wanted.to_numpy(), dtype=object), instances.astype(object), region)
    if (position >= 0).any() or not len(wanted):
        return position
    return _lookup(pd.Index(read_names(wanted)), pd.Index(read_names(instances)), region)


def _lookup(wanted: pd.Index, instances: pd.Index, region: str) -> np.ndarray:
    repeated = instances[instances.duplicated()]
    if len(repeated) and (again := repeated.intersection(wanted.dropna()).unique()).size:
        msg = (
            f"The index of {region!r} has repeated instances, such as {listed(again[:3])}; a row of the table "
            "cannot be matched to one of them."
        )
        raise ValueError(msg)
    first = ~instances.duplicated()
    position = instances[first].get_indexer(wanted)
    return np.where(position >= 0, np.flatnonzero(first)[position], -1)


def _on_tissue(values: pd.Series, found: np.ndarray, region: str) -> np.ndarray:
    """Return which rows lie on tissue, (n,) bool; one without a value lies off it, unless the whole region has none."""
    flags, missing = read_flags(values, "in_tissue")
    if len(missing) and missing.all():
        logger.warning("No spot of %r has a value of in_tissue: all are taken for tissue.", region)
        return np.ones(len(flags), dtype=bool)
    warn_left_out(found & ~flags & ~missing, region, "lie off tissue (in_tissue is 0)")
    warn_left_out(found & missing, region, "have no value of in_tissue")
    return flags
