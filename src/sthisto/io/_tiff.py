"""TIFF files: which of their images is the slide, and in which colors it is stored."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sthisto._images.colors import cmyk_to_rgb, find_channels, is_ycbcr, to_uint8, ycbcr_to_rgb
from sthisto.io._tiff_metadata import height_width, ome_pixels

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

_SIGNATURES: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG: Final = (6, 7)
_BESIDE_SCAN: Final = ("label", "macro", "thumbnail", "map", "overview")
_COLOR_MODELS: Final = ("RGB", "YCBCR", "SEPARATED", "PALETTE")


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
        found = ", ".join(f"{one.shape} in {_photometric(one)}" for one in file.series[:5])
        msg = f"{path} holds no H&E image in RGB, but {found}. Grayscale and fluorescence can't take its place."
        raise ValueError(msg)
    return max(scans or sizes, key=lambda i: sizes[i])


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
    model = color_model(series)
    last = channels_last(pixels, series, path)
    return last if model is None else model.apply(last)


def channels_last(pixels: Any, series: TiffPageSeries, path: Path) -> Any:
    """Return the pixels of a series, or a lazy array of them, as (height, width, channels).

    Raises
    ------
    ValueError
        There is more than one plane of depth or time, or the channels have the names of fluorescence.
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
    names = _ome_channels(series)
    if color and names and _photometric(series) == "MINISBLACK":
        find_channels(names, str(path))
    order = [axes.index("Y"), axes.index("X"), *color]
    return pixels.transpose(order)


@dataclass(frozen=True)
class ColorModel:
    """How stored samples (rows, columns, n) become RGB or RGBA (rows, columns, `n_channels`)."""

    apply: Callable[[np.ndarray], np.ndarray]
    n_channels: int = 3


def color_model(series: TiffPageSeries) -> ColorModel | None:
    """Return what takes the samples of a series to colors, by its photometric interpretation; None for RGB as it is."""
    page, photometric = series.keyframe, _photometric(series)
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
    return _photometric(series) in _COLOR_MODELS or (_photometric(series) == "MINISBLACK" and planes in ([3], [4]))


def _ome_channels(series: TiffPageSeries) -> list[str]:
    """Return the names of the channels in OME metadata, none where they have no names."""
    pixels = ome_pixels(series.keyframe.parent, series)
    names = [one.get("Name") for one in pixels.iter() if one.tag.endswith("}Channel")] if pixels is not None else []
    return [str(name) for name in names] if len(names) in (3, 4) and all(names) else []
