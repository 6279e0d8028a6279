"""TIFF files: which of their images is the slide, and in which colors it is stored."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sthisto._images.colors import cmyk_to_rgb, find_channels, is_ycbcr, to_uint8, ycbcr_to_rgb
from sthisto._utils.logging import logger
from sthisto.io._tiff_metadata import height_width, ome_pixels

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

_SIGNATURES: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG: Final = (6, 7)
_BESIDE_SCAN: Final = ("label", "macro", "thumbnail", "map", "overview")
_COLOR_MODELS: Final = ("RGB", "YCBCR", "SEPARATED", "PALETTE")
_UPRIGHT: Final = 1


def is_tiff(path: Path) -> bool:
    """Return whether a file is a TIFF by its first bytes, whatever its name."""
    with path.open("rb") as file:
        return file.read(4) in _SIGNATURES


def open_tiff(path: Path) -> TiffFile:
    """Open a TIFF; what is called .ndpi but is a plain TIFF is read as one.

    Raises
    ------
    ValueError
        The file is damaged.
    """
    from tifffile import TiffFile, TiffFileError

    try:
        file = TiffFile(path)
        if file.series or path.suffix.lower() != ".ndpi":
            return file
        file.close()
        return TiffFile(path, is_ndpi=False)
    except (TiffFileError, struct.error) as error:
        msg = f"{path} can't be read as a TIFF: {error}. Check that the file is complete."
        raise ValueError(msg) from error


def color_series(file: TiffFile, path: Path) -> int:
    """Return the number of the largest series of a file that is in color.

    Slides hold a macro image, a label or a thumbnail beside the scan, and some before it; these are left aside by
    their names, where they have some, and by their size.

    Raises
    ------
    ValueError
        None is in color.
    """
    sizes = {i: np.prod(height_width(one)) for i, one in enumerate(file.series) if _is_color(one)}
    scans = {i: size for i, size in sizes.items() if file.series[i].name.lower() not in _BESIDE_SCAN}
    if not sizes:
        found = ", ".join(f"{one.shape} in {_photometric(one)}" for one in file.series[:5]) or "no image at all"
        msg = f"{path} holds no H&E image in RGB, but {found}. Grayscale and fluorescence can't take its place."
        raise ValueError(msg)
    number = max(scans or sizes, key=lambda i: sizes[i])
    if (n_alike := list((scans or sizes).values()).count(sizes[number])) > 1:
        logger.warning("%s holds %d images of the same size: the first is read.", path, n_alike)
    if _orientation(file.series[number]) != _UPRIGHT:
        logger.warning("%s is shown turned or mirrored by its tag Orientation: its pixels are read as stored.", path)
    return number


def read_color(file: TiffFile, number: int, path: Path) -> np.ndarray:
    """Read a series: (height, width, 3 or 4); the fourth channel is transparency, 3 are as stored but for color model.

    Raises
    ------
    ValueError
        It has more than one plane, or channels that are no colors.
    ImportError
        Its compression needs a package that is not installed.
    """
    series = file.series[number]
    try:
        pixels = series.asarray()
    except (ValueError, RuntimeError) as error:
        if "imagecodecs" not in str(error) or "requires" not in str(error):
            msg = f"The pixels of {path} can't be read: {error}. Check that the file is complete."
            raise ValueError(msg) from error
        msg = f"The compression of {path} needs a further package: pip install imagecodecs."
        raise ImportError(msg) from error
    model = color_model(series, path)
    last = channels_last(pixels, series, path)
    return last if model is None else model.apply(last)


def channels_last(pixels: Any, series: TiffPageSeries, path: Path) -> Any:
    """Return the pixels of a series, or a lazy array of them, as (height, width, channels).

    Raises
    ------
    ValueError
        There is more than one plane of depth or time.
    """
    axes = "".join(axis for axis, n in zip(series.axes, pixels.shape, strict=True) if n > 1 or axis in "YX")
    pixels = pixels.reshape([n for axis, n in zip(series.axes, pixels.shape, strict=True) if n > 1 or axis in "YX"])
    color = [i for i, axis in enumerate(axes) if axis not in "YX"]
    if len(color) > 1:
        msg = (
            f"{path} holds an image of {series.shape} with the axes {series.axes!r}; expected one plane, (height, "
            "width, 3). Save the plane to use as an image of its own."
        )
        raise ValueError(msg)
    return pixels.transpose([axes.index("Y"), axes.index("X"), *color])


@dataclass(frozen=True)
class ColorModel:
    """How stored samples (rows, columns, n) become RGB or RGBA (rows, columns, `n_channels`)."""

    apply: Callable[[np.ndarray], np.ndarray]
    n_channels: int = 3


def color_model(series: TiffPageSeries, path: Path) -> ColorModel | None:
    """Return what takes the samples of a series to colors; None for RGB as it is.

    It is known by the photometric interpretation, or by the names of channels.

    Raises
    ------
    ValueError
        The channels have the names of fluorescence.
    """
    page, photometric = series.keyframe, _photometric(series)
    if photometric == "MINISBLACK" and (names := _channel_names(series)):
        order = [*find_channels(names, str(path)).rgb]
        return ColorModel(lambda pixels: pixels[..., order])
    n_samples = max([n for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "YX"], default=1)
    if photometric == "PALETTE":
        colormap = (np.asarray(page.colormap) >> 8).astype(np.uint8).T
        return ColorModel(lambda pixels: colormap[pixels.reshape(pixels.shape[:2])])
    if photometric == "SEPARATED":
        return ColorModel(lambda pixels: cmyk_to_rgb(to_uint8(pixels[..., :4], float(np.iinfo(pixels.dtype).max))))
    if photometric == "YCBCR" and page.compression not in _JPEG and is_ycbcr(series.levels[-1].asarray()):
        return ColorModel(lambda pixels: ycbcr_to_rgb(pixels[..., :3]))
    if n_samples > 3 and not alpha_kind(series):
        return ColorModel(lambda pixels: pixels[..., :3])
    if n_samples > 4:
        return ColorModel(lambda pixels: pixels[..., :4], 4)
    return None


def alpha_kind(series: TiffPageSeries) -> int:
    """Return 1 where colors are multiplied with alpha already, 2 where not, 0 where a fourth channel is no alpha."""
    extra = series.keyframe.extrasamples
    return int(extra[0]) if extra else 0


def _photometric(series: TiffPageSeries) -> str:
    photometric = series.keyframe.photometric
    return str(getattr(photometric, "name", photometric))


def _is_color(series: TiffPageSeries) -> bool:
    size = dict(zip(series.axes, series.shape, strict=True))
    if not {"Y", "X"} <= size.keys():
        return False
    planes = [n for axis, n in size.items() if axis not in "YX" and n > 1]
    is_stack = any(size.get(axis, 1) > 1 for axis in "ZT")
    is_gray = _photometric(series) == "MINISBLACK" and planes in ([3], [4]) and not is_stack
    return _photometric(series) in _COLOR_MODELS or is_gray


def _channel_names(series: TiffPageSeries) -> list[str]:
    """Return the names of the channels in the metadata of OME or Akoya, none where they have no names."""
    pixels, names = ome_pixels(series.keyframe.parent, series), []
    if pixels is not None:
        names = [one.get("Name") for one in pixels.iter() if one.tag.endswith("}Channel")]
    elif series.keyframe.is_qpi:
        found = [re.search(r"<Name>([^<]+)</Name>", page.aspage().description) for page in series.pages if page]
        names = [one and one[1] for one in found]
    return [str(name) for name in names] if len(names) in (3, 4) and all(names) else []


def _orientation(series: TiffPageSeries) -> int:
    tag = series.keyframe.tags.get("Orientation")
    return _UPRIGHT if tag is None else int(tag.value)
