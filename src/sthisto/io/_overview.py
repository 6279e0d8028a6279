"""Whether an image is the one that a library's coordinates belong to, by the overviews in `uns`."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from sthisto._images.placement import Match, compare_pictures, compare_sizes, shrink
from sthisto._utils.logging import logger
from sthisto.io._arrays import rgb_of_array
from sthisto.io._libraries import Library

_SAME_FULL: Final = 0.01
_N_CHANNELS: Final = (3, 4)
_FIRST: Final = ("hires", "lowres")


def check_fits(pixels: Any, library: Library, *, refuse: bool) -> None:
    """Compare an image of the full resolution with the library's overview, where there is one.

    Parameters
    ----------
    pixels
        (height, width, 3).
    library
        Its images and scale factors.
    refuse
        Whether a plain fault raises ValueError; without it, a warning is logged.

    Raises
    ------
    ValueError
        The size does not fit the scale factor within a percent, or the image is mirrored, turned, of another tissue,
        or has its channels in another order.
    """
    found = _overview(library)
    if found is None:
        return
    name, overview, factor = found
    fault = compare_sizes(tuple(pixels.shape[:2]), tuple(overview.shape[:2]), factor)
    match = Match(fault) if fault else compare_pictures(shrink(pixels), shrink(overview))
    about = f"The image given for library {library.name!r} does not fit its overview {name!r} in uns"
    if match.fault and refuse:
        msg = (
            f"{about}: {match.fault}. The coordinates belong to the image that the overview was made of. Pass that "
            f"image, or image={name!r}; with check_image=False the image is used as it is."
        )
        raise ValueError(msg)
    if match.fault or match.doubt:
        logger.warning("%s: %s (correlation %.2f).", about, match.fault or match.doubt, match.correlation)


def check_factors(name: str, library: Library, *, refuse: bool) -> None:
    """Compare an image of `uns` and its scale factor with the library's other images and theirs.

    Parameters
    ----------
    name
        The image.
    library, refuse
        As for `check_fits`.

    Raises
    ------
    ValueError
        By their scale factors, the images are of different full resolutions.
    """
    own = _full_size(library, name)
    for other in library.images:
        full = _full_size(library, other)
        if own is None or full is None or (np.abs(own.size - full.size) <= own.tolerance + full.tolerance).all():
            continue
        sizes = [f"{one.size[1]:.0f} x {one.size[0]:.0f}" for one in (own, full)]
        msg = (
            f"By their scale factors, the images {name!r} and {other!r} of library {library.name!r} are of "
            f"{' and '.join(sizes)} px in full resolution: a scale factor or an image is of something else."
        )
        if refuse:
            msg += " Correct uns, or pass image=…, the path of the full-resolution image; check_image=False goes on."
            raise ValueError(msg)
        logger.warning("%s", msg)


class _FullSize(NamedTuple):
    """Height and width in px of the full resolution, and how far they may be off by rounding."""

    size: np.ndarray
    tolerance: np.ndarray


def _full_size(library: Library, name: str) -> _FullSize | None:
    """Return the size of the full resolution by an image and its factor, None where these are not known."""
    factor, shape = library.number(f"tissue_{name}_scalef"), tuple(getattr(library.images.get(name), "shape", ()))
    if factor is None or len(shape) != 3:
        return None
    first, *_, last = shape
    size = np.array(shape[1:] if first in _N_CHANNELS and last not in _N_CHANNELS else shape[:2]) / factor
    return _FullSize(size, _SAME_FULL * size + 1 / factor)


def _overview(library: Library) -> tuple[str, Any, float] | None:
    """Return name, pixels and scale factor of the first overview in RGB, None where there is none."""
    for name in (*_FIRST, *(one for one in library.images if one not in _FIRST)):
        factor = library.number(f"tissue_{name}_scalef")
        if name not in library.images or factor is None:
            continue
        try:
            return name, rgb_of_array(library.images[name]), factor
        except (TypeError, ValueError) as error:
            logger.info("Overview %r of library %r is no RGB image: %s", name, library.name, error)
    return None
