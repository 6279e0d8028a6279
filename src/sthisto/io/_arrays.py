"""Pixels in any kind of array to RGB in uint8."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from sthisto._images.colors import brightest_value, find_channels, over_white, to_uint8
from sthisto._utils.logging import logger

TAKEN: Final = (
    "the name of an image in uns, a path, or the pixels (height, width, 3) as a numpy, dask, zarr or xarray array or a "
    "PIL image"
)
_WHOLE_PX: Final = 4096
"""Height or width of a lazy image up to which it is read whole to find its range."""
_N_PLACES: Final = 8
_PLACE_PX: Final = 256


def rgb_of_array(source: Any) -> Any:
    """Return pixels (height, width, 3) of any kind of array: numpy in uint8, dask as lazy as it was.

    Raises
    ------
    TypeError
        It is no array.
    ValueError
        It has no three axes, or channels that are not RGB.
    """
    return flat_rgb(stored_colors(source), "`image`")


def stored_colors(source: Any) -> Any:
    """Return pixels (height, width, 3 or 4) of any kind of array as they are stored, in numpy or dask.

    Raises
    ------
    TypeError
        It is no array.
    ValueError
        It has no three axes, or channels that are not RGB.
    """
    from xarray import DataArray, DataTree

    if isinstance(source, DataTree):
        levels: list[Any] = [next(iter(level.data_vars.values())) for level in source.children.values()]
        source = max(levels, key=lambda level: level.size)
    if isinstance(source, DataArray):
        return _of_xarray(source)
    return _three_axes(_as_array(source))


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
        kind = type(source).__name__ if array is None else f"{type(source).__name__} of {array.dtype}"
        msg = f"`image` is of {kind}; it takes {TAKEN}."
        raise TypeError(msg)
    return array


def _with_nan(masked: Any) -> np.ndarray:
    filled: np.ndarray = masked.astype(np.float32).filled(np.nan)
    return filled


def _from_sequence(source: Any) -> np.ndarray | None:
    try:
        return np.asarray(source)
    except (ValueError, TypeError, RuntimeError):  # rows of different lengths, tensors that can't be converted
        return None


def _of_xarray(source: Any) -> Any:
    """Return the pixels of an xarray DataArray, its axes and channels by their names."""
    names = {"y": "y", "x": "x", "c": "c", "channel": "c", "channels": "c", "band": "c", "s": "c", "rgb": "c"}
    kept = source.squeeze([d for d, n in source.sizes.items() if n == 1 and str(d).lower() not in names], drop=True)
    axes = {names.get(str(dim).lower()): dim for dim in kept.dims}
    if set(axes) != {"y", "x", "c"}:
        return _three_axes(_as_array(kept.data))
    kept = kept.transpose(axes["y"], axes["x"], axes["c"])
    labels = list(kept.coords[axes["c"]].values) if axes["c"] in kept.coords else list(range(kept.shape[2]))
    channels = find_channels(labels, "`image`")
    order = [*channels.rgb] if channels.alpha is None else [*channels.rgb, channels.alpha]
    return _as_array(kept.data)[..., order]


def _three_axes(pixels: Any) -> Any:
    """Return (height, width, channels) of (…1, height, width, channels) or (channels, height, width)."""
    if pixels.ndim > 3:
        pixels = pixels.reshape([n for n in pixels.shape[:-3] if n > 1] + list(pixels.shape[-3:]))
    if pixels.ndim == 4 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    has_pixels = pixels.ndim == 3 and 0 not in pixels.shape
    if has_pixels and pixels.shape[-1] in (3, 4):
        return pixels
    if has_pixels and pixels.shape[0] in (3, 4):
        return pixels.transpose(1, 2, 0)
    msg = f"An H&E image in RGB has the shape (height, width, 3), found {tuple(pixels.shape)}."
    raise ValueError(msg)


def flat_rgb(pixels: Any, what: str, *, is_premultiplied: bool = False, white: float | None = None) -> Any:
    """Return (height, width, 3) in uint8 of stored RGB or RGBA values of any number format; lazy arrays stay lazy.

    Parameters
    ----------
    pixels
        (height, width, 3 or 4).
    what
        How errors name the image.
    is_premultiplied
        Whether colors are multiplied with alpha already.
    white
        The stored value that is white; None finds it.
    """
    import dask.array as da

    if pixels.dtype == np.uint8 and pixels.shape[-1] == 3:
        return pixels
    if white is None:
        white = white_value(pixels, what)
    if isinstance(pixels, da.Array):
        whole = pixels.rechunk({2: -1})
        return whole.map_blocks(flat_block, white, is_premultiplied, dtype=np.uint8, chunks=(*whole.chunks[:2], (3,)))
    return flat_block(pixels, white, is_premultiplied)


def flat_block(values: np.ndarray, white: float, is_premultiplied: bool) -> np.ndarray:
    """Scale one block (rows, columns, 3 or 4) to 0..255 and lay it over white."""
    scaled = to_uint8(values, white)
    if scaled.shape[-1] == 3:
        return scaled
    return over_white(scaled[..., :3], scaled[..., 3], is_premultiplied=is_premultiplied)


def white_value(pixels: Any, what: str) -> float:
    """Return which stored value is white, by the range of the pixels; warn of those without a value.

    Parameters
    ----------
    pixels
        (height, width, channels); of a large lazy image, 64 places are read.
    what
        How errors name the image.

    Raises
    ------
    ValueError
        The values are not those of an image.
    """
    import dask.array as da

    if pixels.dtype == bool:
        msg = f"{what} holds True and False; an H&E image in RGB has values between 0 and 1 or 0 and 255."
        raise ValueError(msg)
    if pixels.dtype == np.uint8:
        return 255.0
    if isinstance(pixels, da.Array):
        rows, columns = (_places(size) for size in pixels.shape[:2])
        pixels = pixels[rows][:, columns]
    holes = 0.0
    if pixels.dtype.kind == "f":
        lowest, brightest, holes = (
            float(one) for one in _computed(np.nanmin(pixels), np.nanmax(pixels), np.isnan(pixels).sum())
        )
    else:
        lowest, brightest = (float(one) for one in _computed(pixels.min(), pixels.max()))
    if holes:
        logger.warning("%s holds NaN: they are white.", what)
    return brightest_value(pixels.dtype, lowest, brightest, what)


def _places(size: int) -> Any:
    """Return the rows or columns of a lazy image that are looked at: all, or some evenly spaced runs of them."""
    if size <= _WHOLE_PX:
        return slice(None)
    starts = np.linspace(0, size - _PLACE_PX, _N_PLACES).astype(int)
    return (starts[:, None] + np.arange(_PLACE_PX)).ravel()


def _computed(*values: Any) -> tuple[Any, ...]:
    from dask import compute

    return tuple(compute(*values))
