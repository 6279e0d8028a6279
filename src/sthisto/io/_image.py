"""Pixels of a file or an array to an image element."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

_TIFF = {".tif", ".tiff", ".btf"}
_COARSEST_PX = 1024
_CHANNELS = {3: ["r", "g", "b"], 4: ["r", "g", "b", "a"]}


def read_pixels(path: Path) -> np.ndarray:
    """Read an image file whole, (height, width, channels).

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    if not path.is_file():
        msg = f"There is no image at {path}, and no image of that name in the AnnData."
        raise FileNotFoundError(msg)
    if path.suffix.lower() in _TIFF:
        from tifffile import imread

        pixels: np.ndarray = imread(path)
        return pixels
    from PIL import Image

    with _any_size(), Image.open(path) as opened:
        return np.asarray(opened)


def image_element(pixels: Any, system: str, *, px_per_unit: float = 1.0) -> Any:
    """Return an image element, with coarser levels whose shorter side is at least 1024 px.

    Parameters
    ----------
    pixels
        (height, width, channels), or (channels, height, width) as some TIFFs are; numpy or dask.
    system
        The only coordinate system.
    px_per_unit
        Px of the image per unit of `system`.

    Raises
    ------
    ValueError
        It has not three axes, or no axis of three or four channels.
    """
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Scale

    pixels = _channels_first(pixels)
    n_halvings = max(0, int(np.log2(min(pixels.shape[1:]) / _COARSEST_PX)))
    return Image2DModel.parse(
        pixels,
        dims=("c", "y", "x"),
        c_coords=_CHANNELS[pixels.shape[0]],
        scale_factors=[2] * n_halvings or None,
        transformations={system: Scale([1 / px_per_unit] * 2, axes=("x", "y"))},
    )


def _channels_first(pixels: Any) -> Any:
    if pixels.ndim == 3 and pixels.shape[-1] in _CHANNELS:
        return pixels.transpose(2, 0, 1)
    if pixels.ndim == 3 and pixels.shape[0] in _CHANNELS:
        return pixels
    msg = f"An H&E image in RGB has the shape (height, width, 3), found {tuple(pixels.shape)}."
    raise ValueError(msg)


@contextmanager
def _any_size() -> Iterator[None]:
    """Lift Pillow's limit of size, which guards against files that one did not choose."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
