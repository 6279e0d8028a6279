"""Whether a coarser level of an image shows what its full resolution does where patches are cut."""

from __future__ import annotations

from typing import Final

import numpy as np

from sthisto._images.patches import PatchSource
from sthisto._images.pyramid import Pyramid
from sthisto._utils.logging import logger

_N_COMPARED: Final = 8
_SIZE: Final = 32
_UNLIKE: Final = 0.4
_LEAST_CONTRAST: Final = 8.0
_OTHER_COLORS: Final = 25.0
"""How many patches are compared, at how many px; the correlation below which they show something else, and the contrast
that both need for that; and the mean difference, of 255, above which they are of other colors."""
_COMPARED: set[tuple[str, str]] = set()
"""Names of lazy levels that were compared already."""


def check_level(source: PatchSource, image: Pyramid, centers: np.ndarray, image_key: str) -> None:
    """Compare a few patches of a coarser level with the full resolution, once for each level.

    Parameters
    ----------
    source
        The patches, of a level of the image.
    image
        All its levels.
    centers
        (n, 2) x and y of the patches in px of the full resolution.
    image_key
        For messages.

    Raises
    ------
    ValueError
        The level shows something else, as where it was not made anew when the full resolution was replaced. Other
        colors are warned of.
    """
    level, full = source.level, image.levels[0]
    names = (str(getattr(level.array, "name", "")), str(getattr(full.array, "name", "")))
    if level is full or not len(centers) or names in _COMPARED:
        return
    chosen = centers[np.linspace(0, len(centers) - 1, min(_N_COMPARED, len(centers))).astype(int)]
    coarse, fine = (
        PatchSource(one, one.locate(chosen), extent=source.extent * level.downsample / one.downsample, size=_SIZE)
        .read()
        .astype(np.float32)
        for one in (level, full)
    )
    grays = [patches.mean(axis=-1) for patches in (coarse, fine)]
    about = f"level of {level.width} x {level.height} px of image {image_key!r}, which the patches are cut from,"
    if min(gray.std() for gray in grays) > _LEAST_CONTRAST and np.corrcoef(*(g.ravel() for g in grays))[0, 1] < _UNLIKE:
        msg = (
            f"The {about} shows something else than its full resolution of {full.width} x {full.height} px. Make the "
            "coarser levels anew, for example with Image2DModel.parse(…, scale_factors=[2, 2]) of the finest one."
        )
        raise ValueError(msg)
    difference = float(np.abs(coarse - fine).mean())
    if difference > _OTHER_COLORS:
        logger.warning(
            "The %s has other colors than its full resolution, %.0f of 255 apart. Make the coarser levels anew.",
            about,
            difference,
        )
    if all(names):
        _COMPARED.add(names)
