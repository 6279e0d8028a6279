"""Whether the image of a region fits the overviews of the same run that stand beside it."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from spatialdata.transformations import get_transformation

from sthisto._images.placement import Match, compare_pictures
from sthisto._sdata.elements import affine, apply_affine, corners, is_rgb, read_pyramid
from sthisto._sdata.slots import CHECK_IMAGE, KEY
from sthisto._utils.logging import logger

if TYPE_CHECKING:
    from spatialdata import SpatialData

FULL: Final = "_full_image"
"""What the name of an image of the full resolution holds, as spatialdata-io reads Space Ranger's runs."""
_OVERVIEWS: Final = ("_hires_image", "_lowres_image")
_SAME_SIZE: Final = 0.01
_LONGEST_PX: Final = 512
_MOST_READ_PX: Final = 2**26
"""Pixels of the coarsest level up to which a picture of it is compared."""
_COMPARED: dict[tuple[int, int], tuple[Any, Any, Match]] = {}


def check_overviews(sdata: SpatialData, image_key: str, systems: Sequence[str], *, refuse: bool = True) -> None:
    """Compare an image with "…_hires_image" or "…_lowres_image" of Space Ranger in the same coordinate system.

    The size is compared in every call, the pictures once.

    Raises
    ------
    ValueError
        The image has another size than the overview over its scale factor, or shows something else there. With
        `refuse` False, a warning is logged instead.
    """
    found = _overview(sdata, image_key, systems)
    if found is None:
        return
    name, system = found
    image, overview = sdata[image_key], sdata[name]
    pixels = corners(image)
    placed = apply_affine(np.linalg.inv(affine(overview, system)) @ affine(image, system), pixels)
    expected, across = corners(overview), np.abs(corners(overview)[3])
    if (np.abs(placed - expected) > np.maximum(_SAME_SIZE * across, 1)).any():
        width, height = np.abs(placed[3] - placed[0])
        match = Match(
            f"it covers {width:.0f} x {height:.0f} px of {name!r}, which has {across[0]:.0f} x {across[1]:.0f}: it is "
            "another resolution or another image, or lies elsewhere"
        )
    else:
        match = _compared(image, image_key, overview, name, system)
    about = f"Image {image_key!r} does not fit its overview {name!r}"
    if match.fault and refuse:
        msg = (
            f"{about}: {match.fault}. Read the run with the image that it was made of, or pass image_key={name!r}. To "
            f"use the image as it is, set sdata.attrs.setdefault({KEY!r}, {{}})[{CHECK_IMAGE!r}] = False."
        )
        raise ValueError(msg)
    if match.fault or match.doubt:
        logger.warning("%s: %s (correlation %.2f).", about, match.fault or match.doubt, match.correlation)


def overview_names(image_key: str) -> list[str]:
    """Return the names that the overviews of an image have; none for images that are not called "…_full_image"."""
    return [image_key.replace(FULL, ending) for ending in _OVERVIEWS] if FULL in image_key else []


def _overview(sdata: SpatialData, image_key: str, systems: Sequence[str]) -> tuple[str, str] | None:
    """Return the overview of the same run, and a coordinate system that both share."""
    for name in overview_names(image_key):
        if name in sdata.images and is_rgb(sdata[name], name):
            shared = [system for system in systems if system in get_transformation(sdata[name], get_all=True)]
            if shared:
                return name, shared[0]
    return None


def _compared(image: Any, image_key: str, overview: Any, name: str, system: str) -> Match:
    """Compare both pictures; the result is kept while both elements live."""
    key = (id(image), id(overview))
    kept = _COMPARED.get(key)
    if kept is not None and kept[0]() is image and kept[1]() is overview:
        return kept[2]
    pyramids = [read_pyramid(one, own, system)[0] for one, own in ((image, image_key), (overview, name))]
    if any(pyramid.levels[-1].width * pyramid.levels[-1].height > _MOST_READ_PX for pyramid in pyramids):
        return Match()
    match = compare_pictures(*(pyramid.overview(max_size=_LONGEST_PX)[0] for pyramid in pyramids))
    _COMPARED[key] = (
        weakref.ref(image, lambda _: _COMPARED.pop(key, None)),
        weakref.ref(overview, lambda _: _COMPARED.pop(key, None)),
        match,
    )
    return match
