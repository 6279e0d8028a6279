"""Slides of scanners that OpenSlide reads: any part of any level in RGB, white where nothing was scanned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sthisto._images.colors import over_white
from sthisto.io._tiff_metadata import is_square, plausible_um

if TYPE_CHECKING:
    from openslide import OpenSlide

_CHUNK_PX = 2048


class ScannerSlide:
    """A slide that OpenSlide opens; the attributes are those of `TiffSlide`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._slide = _open(path)
        properties = self._slide.properties
        self.shapes = [(height, width) for width, height in self._slide.level_dimensions]
        self.chunks = [(min(_CHUNK_PX, height), min(_CHUNK_PX, width)) for height, width in self.shapes]
        mpp = [_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"]
        self.um_per_px = plausible_um(mpp[0] if mpp[0] and mpp[1] and is_square(mpp[0], mpp[1]) else None)
        self.objective = _number(properties.get("openslide.objective-power"))
        profile = self._slide.color_profile
        self.icc_profile: bytes | None = None if profile is None else profile.tobytes()

    def read(self, level: int, rows: slice, columns: slice) -> np.ndarray:
        """Return pixels (rows, columns, 3) of a level, uint8.

        Raises
        ------
        ValueError
            They can't be decoded.
        """
        from openslide import OpenSlideError

        enlarged = self._slide.level_downsamples[level]
        corner = (round(columns.start * enlarged), round(rows.start * enlarged))
        size = (columns.stop - columns.start, rows.stop - rows.start)
        try:
            rgba = np.asarray(self._slide.read_region(corner, level, size))
        except OpenSlideError as error:
            msg = f"The pixels of {self.path} can't be read: {error}. Check that the file is complete."
            raise ValueError(msg) from error
        return over_white(rgba[..., :3], rgba[..., 3])

    def close(self) -> None:
        """Close the file."""
        self._slide.close()


def scanner_format(path: Path) -> str | None:
    """Return the scanner whose format OpenSlide finds a file to be of; None for none, or without OpenSlide."""
    try:
        from openslide import OpenSlide
    except (ImportError, OSError):  # OSError: the library itself is missing
        return None
    vendor: str | None = OpenSlide.detect_format(path)
    return vendor


def _open(path: Path) -> OpenSlide:
    from openslide import OpenSlide, OpenSlideError

    try:
        return OpenSlide(path)
    except OpenSlideError as error:
        msg = f"{path} can't be read as a slide: {error}. Check that the file and what belongs to it are complete."
        raise ValueError(msg) from error


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if value > 0 else None
