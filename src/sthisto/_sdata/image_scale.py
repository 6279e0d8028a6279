"""How large a pixel of an image is: stated by the caller, or known from the coordinate system or the array of spots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from spatialdata.models import TableModel
from spatialdata.transformations import get_transformation

from sthisto._sdata.elements import affine, apply_affine, read_spots, scale
from sthisto._sdata.pairing import match_rows
from sthisto._sdata.resolution import um_per_px_of_visium
from sthisto._sdata.slots import KEY, UM_PER_UNIT
from sthisto._sdata.told import annotated_regions, told, um_per_unit
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_positive

if TYPE_CHECKING:
    from spatialdata import SpatialData

_MOST_APART: Final = 1.1
"""Factor up to which two values of the µm per px count as one; beyond it, one of them is wrong."""


def stated_um_per_px(um_per_px: float, known: float | None, element: str) -> float:
    """Return the stated value, with a warning where the data say another."""
    check_positive(um_per_px, name="um_per_px")
    if known is not None and not 1 / _MOST_APART < um_per_px / known < _MOST_APART:
        logger.warning(
            "%g µm per px are stated for %r, whose array or coordinate system says %.3g. The stated ones are used.",
            um_per_px,
            element,
            known,
        )
    return float(um_per_px)


def known_um_per_px(sdata: SpatialData, image_key: str) -> float | None:
    """Return µm per px of the full resolution from a coordinate system whose unit is known; warn where two differ."""
    systems = get_transformation(sdata[image_key], get_all=True)
    known = {
        system: um * scale(affine(sdata[image_key], system))
        for system, um in um_per_unit(sdata).items()
        if system in systems
    }
    if not known:
        return None
    if max(known.values()) / min(known.values()) > _MOST_APART:
        logger.warning(
            "By the units of its coordinate systems, image %r has %s µm per px (%s). The first are used. Correct "
            "sdata.attrs[%r][%r].",
            image_key,
            " or ".join(f"{um:.3g}" for um in known.values()),
            ", ".join(map(repr, known)),
            KEY,
            UM_PER_UNIT,
        )
    return next(iter(known.values()))


def remember_um_per_px(sdata: SpatialData, image_key: str, um_per_px: float) -> None:
    """Keep the µm per px of an image's full resolution as the unit of the first of its coordinate systems."""
    system = next(iter(get_transformation(sdata[image_key], get_all=True)))
    units = um_per_unit(sdata) | {system: um_per_px / scale(affine(sdata[image_key], system))}
    sdata.attrs[KEY] = {**told(sdata), UM_PER_UNIT: units}


def um_per_px_of_arrays(sdata: SpatialData, image_key: str) -> float | None:
    """Return µm per px by the arrays in the image's coordinate systems; None without any, or where they differ."""
    systems = get_transformation(sdata.images[image_key], get_all=True)
    found = []
    for name, table in sdata.tables.items():
        for region in annotated_regions(table, name) if TableModel.ATTRS_KEY in table.uns else []:
            own = get_transformation(sdata[region], get_all=True) if region in sdata else {}
            if system := next((name for name in systems if name in own), None):
                spots = read_spots(sdata[region], region, system)
                rows, position = match_rows(table, region, spots.instances)
                centers = apply_affine(np.linalg.inv(affine(sdata[image_key], system)), spots.xy[position])
                found.append(um_per_px_of_visium(table.obs.iloc[rows], centers, region))
    known = [um for um in found if um is not None]
    return known[0] if known and max(known) / min(known) < _MOST_APART else None
