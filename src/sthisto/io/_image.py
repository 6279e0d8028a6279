"""Pixels of a file or an array, of whatever color model, to an image element in RGB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sthisto._images.colors import brightest_value, find_channels, over_white, to_uint8
from sthisto._utils.logging import logger
from sthisto.io._tiff import alpha_kind, color_series, is_tiff, open_tiff, plausible_um, read_color, um_per_px

TAKEN: Final = (
    "the name of an image in uns, a path, or the pixels (height, width, 3) as a numpy, dask, zarr or xarray array or a "
    "PIL image"
)
_COARSEST_PX = 1024
_GRAY_MODES: Final = frozenset({"1", "L", "LA", "La", "I", "F"})
_TRANSPARENT_MODES: Final = frozenset({"RGBA", "RGBa", "PA"})
_INCH_UM: Final = 25_400.0


@dataclass(frozen=True)
class Picture:
    """Pixels (height, width, 3) in RGB, uint8 in memory or lazy, and their µm per px where the file states them."""

    pixels: Any
    um_per_px: float | None = None


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
            density = opened.info.get("dpi", (0, 0))
            um = _INCH_UM / float(density[0]) if density[0] and density[0] == density[1] else None
            return Picture(_of_pil(opened, str(path)), plausible_um(um))
    except UnidentifiedImageError as error:
        msg = f"{path} is no image that can be read. Convert it to TIFF, PNG or JPEG, or pass its pixels as an array."
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


def rgb_of_array(source: Any) -> Any:
    """Return pixels (height, width, 3) of any kind of array: numpy in uint8, dask as lazy as it was.

    Raises
    ------
    TypeError
        It is no array.
    ValueError
        It has no three axes, or channels that are not RGB.
    """
    from xarray import DataArray, DataTree

    if isinstance(source, DataTree):
        finest: Any = next(iter(source.children.values()))
        source = next(iter(finest.data_vars.values()))
    if isinstance(source, DataArray):
        return _of_xarray(source)
    return flat_rgb(_three_axes(_as_array(source)), "`image`")


def _as_array(source: Any) -> Any:
    """Return a numpy or dask array.

    Raises
    ------
    TypeError
        The values are no numbers.
    """
    import dask.array as da

    if isinstance(source, np.ma.MaskedArray):
        return _as_array(source.filled() if not source.mask.any() else _with_nan(source))
    array: Any = None
    if isinstance(source, da.Array | np.ndarray):
        array = source
    elif type(source).__module__.partition(".")[0] == "zarr" and hasattr(source, "chunks"):
        array = da.from_zarr(source)
    elif isinstance(source, list | tuple) or hasattr(source, "__array__") or hasattr(source, "__array_interface__"):
        array = _from_sequence(source)
    if array is None or array.dtype.kind not in "buif":
        msg = f"`image` is of {type(source).__name__}; it takes {TAKEN}."
        raise TypeError(msg)
    return array


def _with_nan(masked: Any) -> np.ndarray:
    filled: np.ndarray = masked.astype(np.float32).filled(np.nan)
    return filled


def _from_sequence(source: Any) -> np.ndarray | None:
    try:
        return np.asarray(source)
    except ValueError:  # rows of different lengths
        return None


def _of_xarray(source: Any) -> Any:
    """Return the pixels of an xarray DataArray, its axes and channels by their names."""
    names = {"y": "y", "x": "x", "c": "c", "channel": "c", "channels": "c", "band": "c", "s": "c", "rgb": "c"}
    kept = source.squeeze([d for d, n in source.sizes.items() if n == 1 and str(d).lower() not in names], drop=True)
    axes = {names.get(str(dim).lower()): dim for dim in kept.dims}
    if set(axes) != {"y", "x", "c"}:
        return flat_rgb(_three_axes(_as_array(kept.data)), "`image`")
    kept = kept.transpose(axes["y"], axes["x"], axes["c"])
    labels = list(kept.coords[axes["c"]].values) if axes["c"] in kept.coords else list(range(kept.shape[2]))
    channels = find_channels(labels, "`image`")
    order = [*channels.rgb] if channels.alpha is None else [*channels.rgb, channels.alpha]
    return flat_rgb(_as_array(kept.data)[..., order], "`image`")


def _three_axes(pixels: Any) -> Any:
    """Return (height, width, channels) of (…1, height, width, channels) or (channels, height, width)."""
    if pixels.ndim > 3:
        pixels = pixels.reshape([n for n in pixels.shape[:-3] if n > 1] + list(pixels.shape[-3:]))
    if pixels.ndim == 4 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 3 and pixels.shape[-1] in (3, 4):
        return pixels
    if pixels.ndim == 3 and pixels.shape[0] in (3, 4):
        return pixels.transpose(1, 2, 0)
    msg = f"An H&E image in RGB has the shape (height, width, 3), found {tuple(pixels.shape)}."
    raise ValueError(msg)


def flat_rgb(pixels: Any, what: str, *, is_premultiplied: bool = False) -> Any:
    """Return (height, width, 3) in uint8 of stored RGB or RGBA values of any number format; lazy arrays stay lazy."""
    import dask.array as da

    if pixels.dtype == bool:
        msg = f"{what} holds True and False; an H&E image in RGB has values between 0 and 1 or 0 and 255."
        raise ValueError(msg)
    if pixels.dtype == np.uint8 and pixels.shape[-1] == 3:
        return pixels
    white = _white(pixels, what)
    if isinstance(pixels, da.Array):
        whole = pixels.rechunk({2: -1})
        return whole.map_blocks(_flat_block, white, is_premultiplied, dtype=np.uint8, chunks=(*whole.chunks[:2], (3,)))
    return _flat_block(pixels, white, is_premultiplied)


def _flat_block(values: np.ndarray, white: float, is_premultiplied: bool) -> np.ndarray:
    """Scale one block (rows, columns, 3 or 4) to 0..255 and lay it over white."""
    scaled = to_uint8(values, white)
    if scaled.shape[-1] == 3:
        return scaled
    return over_white(scaled[..., :3], scaled[..., 3], is_premultiplied=is_premultiplied)


def _white(pixels: Any, what: str) -> float:
    """Return the stored value that is white; warn of pixels without a value."""
    if pixels.dtype == np.uint8:
        return 255.0
    holes = 0.0
    if pixels.dtype.kind == "f":
        lowest, brightest, holes = (
            float(one) for one in _computed(np.nanmin(pixels), np.nanmax(pixels), np.isnan(pixels).sum())
        )
    else:
        lowest, brightest = (float(one) for one in _computed(pixels.min(), pixels.max()))
    if holes:
        logger.warning("%s holds %.0f NaN: they are white.", what, holes)
    return brightest_value(pixels.dtype, lowest, brightest, what)


def _computed(*values: Any) -> tuple[Any, ...]:
    from dask import compute

    return tuple(compute(*values))


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
