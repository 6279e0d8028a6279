"""Pixels of a file or an array, of whatever color model, to an image element in RGB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sthisto._images.colors import over_white
from sthisto._utils.logging import logger
from sthisto.io._arrays import flat_rgb, rgb_of_array
from sthisto.io._tiff import alpha_kind, color_series, is_tiff, open_tiff, read_color
from sthisto.io._tiff_metadata import plausible_um, um_per_px

_COARSEST_PX = 1024
_GRAY_MODES: Final = frozenset({"1", "L", "LA", "La", "I", "F"})
_TRANSPARENT_MODES: Final = frozenset({"RGBA", "RGBa", "PA"})
_EXIF_ORIENTATION: Final = 0x112
ANY_PICTURE: Final = (".png", ".jpg", ".jpeg", ".jp2", ".bmp", ".webp", ".gif")
"""Suffixes of pictures that are no TIFF."""
_INCH_UM: Final = 25_400.0


@dataclass(frozen=True)
class Picture:
    """Pixels (height, width, 3) in RGB, uint8 in memory or lazy, and what the file states of them."""

    pixels: Any
    um_per_px: float | None = None
    icc_profile: bytes | None = None


def read_picture(source: Any, *, known: str = "") -> Picture:
    """Read a file whole, or bring an array to RGB.

    Colors are taken by the color model: CMYK, palettes and YCbCr become RGB, transparency is laid over white, more
    than eight bits are scaled to eight. `known` is what the error about a missing file says of other images.

    Raises
    ------
    FileNotFoundError
        There is no file at the path.
    TypeError
        It is neither a path nor pixels.
    ValueError
        It is no RGB image.
    """
    if isinstance(source, str | os.PathLike):
        return _read_file(Path(source).expanduser(), known)
    if hasattr(source, "getbands") and hasattr(source, "convert"):
        return Picture(_of_pil(source, "`image`"))
    return Picture(rgb_of_array(source))


def _read_file(path: Path, known: str) -> Picture:
    if path.is_dir():
        msg = f"{path} is a folder; `image` names an image file."
        raise FileNotFoundError(msg)
    if not path.is_file():
        msg = f"There is no image at {path}, and no image of that name in the AnnData{known}."
        raise FileNotFoundError(msg)
    return _read_tiff(path) if is_tiff(path) else _read_other(path)


def _read_tiff(path: Path) -> Picture:
    with open_tiff(path) as file:
        number = color_series(file, path)
        if len(file.series) > 1:
            shape = file.series[number].shape
            logger.info("%s holds %d images: the largest in color is read, of %s.", path, len(file.series), shape)
        pixels, um = read_color(file, number, path), um_per_px(file, number)
        is_premultiplied = alpha_kind(file.series[number]) == 1
    return Picture(flat_rgb(pixels, str(path), is_premultiplied=is_premultiplied), um)


def _read_other(path: Path) -> Picture:
    from PIL import Image, UnidentifiedImageError

    try:
        with any_size(), Image.open(path) as opened:
            if opened.getexif().get(_EXIF_ORIENTATION, 1) != 1:
                logger.warning("%s is shown turned or mirrored by its EXIF tag: its pixels are read as stored.", path)
            density = opened.info.get("dpi", (0, 0))
            um = _INCH_UM / float(density[0]) if density[0] and density[0] == density[1] else None
            return Picture(_of_pil(opened, str(path)), plausible_um(um), opened.info.get("icc_profile"))
    except OSError as error:
        why = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        msg = f"{path} can't be read as an image{why}. Save it as TIFF, PNG or JPEG, or pass its pixels as an array."
        raise ValueError(msg) from error


def _of_pil(picture: Any, what: str) -> np.ndarray:
    """Return the pixels of a PIL image (height, width, 3), by its mode."""
    mode = picture.mode
    if mode in _GRAY_MODES or mode.startswith("I;"):
        msg = f"{what} is a grayscale image (PIL's mode {mode!r}); an H&E image in RGB has colors."
        raise ValueError(msg)
    if mode in _TRANSPARENT_MODES or "transparency" in picture.info:
        rgba = np.asarray(picture.convert("RGBA"))
        return over_white(rgba[..., :3], rgba[..., 3])
    return np.asarray(picture if mode == "RGB" else picture.convert("RGB"))


def image_element(pixels: Any, system: str, *, px_per_unit: float = 1.0) -> Any:
    """Return an image element, with coarser levels whose shorter side is at least 1024 px.

    Parameters
    ----------
    pixels
        (height, width, 3) in RGB; numpy or dask.
    system
        The only coordinate system.
    px_per_unit
        Px of the image per unit of `system`.
    """
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Scale

    n_halvings = max(0, int(np.log2(min(pixels.shape[:2]) / _COARSEST_PX)))
    return Image2DModel.parse(
        pixels.transpose(2, 0, 1),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        scale_factors=[2] * n_halvings or None,
        transformations={system: Scale([1 / px_per_unit] * 2, axes=("x", "y"))},
    )


@contextmanager
def any_size() -> Iterator[None]:
    """Lift Pillow's limit of size, which guards against files that one did not choose."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
