"""Whether an image is the one that a library's coordinates belong to, by the overviews in `uns`."""

from __future__ import annotations

from typing import Any, Final

from sthisto._images.placement import Match, compare_pictures, compare_sizes, shrink
from sthisto._utils.logging import logger
from sthisto.io._arrays import rgb_of_array
from sthisto.io._libraries import Library

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
