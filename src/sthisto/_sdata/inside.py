"""Which spots lie in their image, and what was probably mixed up where many do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from sthisto._sdata.slots import ALLOW_OUTSIDE, KEY
from sthisto._utils.logging import logger

if TYPE_CHECKING:
    from sthisto._images.pyramid import Pyramid

_MOST_OUTSIDE: Final = 0.1


def inside_image(
    centers: np.ndarray, image: Pyramid, *, region: str, image_key: str, allow_outside: bool = False
) -> np.ndarray:
    """Return which centers, (n, 2) in px of the full resolution, lie in the image.

    Raises
    ------
    ValueError
        None does, or more than a tenth do not and `allow_outside` is False.
    """
    size = np.array([image.width, image.height])
    inside: np.ndarray = np.all((centers >= 0) & (centers < size), axis=1)
    check_inside(
        inside,
        centers,
        size,
        what=repr(region),
        image=f"image {image_key!r} of {image.width} x {image.height} px",
        allow_outside=allow_outside,
        remedy="Check their transformations, or pass coordinate_system=… or image_key=…",
        go_on=f"Set sdata.attrs.setdefault({KEY!r}, {{}})[{ALLOW_OUTSIDE!r}] = True",
    )
    warn_left_out(~inside, region, f"lie outside image {image_key!r}")
    return inside


def check_inside(
    inside: np.ndarray,
    centers: np.ndarray,
    size: np.ndarray,
    *,
    what: str,
    image: str,
    allow_outside: bool,
    remedy: str = "Pass the image that the coordinates belong to",
    go_on: str = "Pass allow_outside=True to sthisto.io.from_anndata",
) -> None:
    """Raise ValueError where no spot lies in its image, or more than a tenth lie outside and that is not allowed.

    Parameters
    ----------
    inside
        (n,) bool.
    centers
        (n, 2) in px of the image.
    size
        (2,) width and height of the image.
    what, image, remedy, go_on
        What the error names.
    allow_outside
        Whether any share may lie outside.
    """
    if not len(inside) or (inside.any() and (allow_outside or (~inside).mean() <= _MOST_OUTSIDE)):
        return
    (left, top), (right, bottom) = centers.min(axis=0), centers.max(axis=0)
    beginning = f"{(~inside).sum()} of {len(inside)} spots of {what} lie outside {image}"
    if not inside.any():
        beginning = f"No spot of {what} lies in {image}"
    going_on = f" {go_on} to leave them out and go on." if inside.any() else ""
    msg = (
        f"{beginning}: the centers reach from x {left:.0f} to {right:.0f} and y {top:.0f} to {bottom:.0f} px. "
        f"{_mixed_up(centers, size)} {remedy}.{going_on}"
    )
    raise ValueError(msg)


def _mixed_up(centers: np.ndarray, size: np.ndarray) -> str:
    """Return what was probably mixed up where (n, 2) centers lie outside an image of `size`, (2,) width and height."""

    def lie_inside(xy: np.ndarray) -> bool:
        return bool(((xy >= 0) & (xy < size)).all(axis=1).mean() > 1 - _MOST_OUTSIDE)

    if lie_inside(centers[:, ::-1]):
        return "x and y are probably swapped."
    if (centers >= 0).all(axis=1).mean() > 1 - _MOST_OUTSIDE and (largest := (centers.max(axis=0) / size).max()) > 1.3:
        return (
            'The image is probably a smaller version, such as "hires", than the one that the coordinates belong to '
            f"(at least {largest:.1f} times as large), or the coordinates are in µm. The coordinate systems of both "
            "probably don't match."
        )
    return "The coordinate systems of both probably don't match, or the image is a part of the slide, or another one."


def warn_left_out(left_out: np.ndarray, region: str, why: str) -> None:
    """Warn of the spots of a region that are left out, (n,) bool, where there are any."""
    if left_out.any():
        logger.warning("%d of %d spots of %r %s: they are left out.", left_out.sum(), len(left_out), region, why)
