"""TIFF files as slides: any part of any level in RGB, by the color model of the file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sthisto._images.colors import brightest_value
from sthisto.io._arrays import flat_block
from sthisto.io._tiff import alpha_kind, channels_last, color_model, color_series, open_tiff
from sthisto.io._tiff_metadata import height_width, objective_power, um_per_px

if TYPE_CHECKING:
    from tifffile import TiffPageSeries

_CHUNK_PX = 1024
_PROBE_PX = 4096


class TiffSlide:
    """The largest image in color of a TIFF, with its levels.

    Attributes
    ----------
    shapes
        (height, width) of each level, from the finest to the coarsest.
    chunks
        (rows, columns) of each level that are best read at once: whole tiles.
    um_per_px, objective
        µm per px of the finest level and magnification of the objective, None where the file does not state them.
    icc_profile
        The color profile of the file, None without.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_tiff(path)
        self._opening = threading.Lock()
        # All levels seek in one file, and so does tifffile for tags that it reads late: it takes this lock for both.
        # zarr reads in a thread of its own, which must not wait for another to open a level.
        self._file.filehandle.set_lock(True)
        self._reading = self._file.filehandle.lock
        try:
            number = color_series(self._file, path)
            self._series = self._file.series[number]
            levels = sorted(self._series.levels, key=lambda level: -np.prod(height_width(level)))
            self._check_complete(levels)
            self._stored = [self._open_level(level) for level in levels]
            self._levels = levels
            self._model = color_model(self._series, path)
            self._white = self._white_value()
            self._is_premultiplied = alpha_kind(self._series) == 1
            self.shapes = [height_width(level) for level in levels]
            self.chunks = [_chunk_of(level) for level in levels]
            self.um_per_px = um_per_px(self._file, number)
            self.objective = objective_power(self._file, number)
            self.icc_profile: bytes | None = self._series.keyframe.iccprofile
        except BaseException:
            self._file.close()
            raise

    def read(self, level: int, rows: slice, columns: slice) -> np.ndarray:
        """Return pixels (rows, columns, 3) of a level, uint8.

        Raises
        ------
        ValueError
            They can't be decoded.
        ImportError
            The compression needs a package that is not installed.
        """
        return flat_block(self._colors(level, rows, columns), self._white, self._is_premultiplied)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _colors(self, level: int, rows: slice, columns: slice) -> np.ndarray:
        axes = self._levels[level].axes
        where = tuple({"Y": rows, "X": columns}.get(axis, slice(None)) for axis in axes)
        try:
            stored = np.asarray(self._stored[level]()[where])
        except (ValueError, RuntimeError, OSError) as error:
            raise _unreadable(error, self.path) from error
        pixels = channels_last(stored, self._levels[level], self.path)
        return pixels if self._model is None else self._model.apply(pixels)

    def _open_level(self, level: TiffPageSeries) -> Callable[[], Any]:
        """Return what gives the stored array of a level, opened when it is first needed."""
        opened: list[Any] = []

        def get() -> Any:
            with self._opening:
                if not opened:
                    opened.append(self._stored_array(level))
                return opened[0]

        return get

    def _stored_array(self, level: TiffPageSeries) -> Any:
        if level.dataoffset is not None:  # plain pixels in one piece: a single chunk to zarr
            return np.memmap(
                self.path,
                dtype=f"{self._file.byteorder}{level.dtype.char}",
                mode="r",
                offset=level.dataoffset,
                shape=level.shape,
            )
        if level.keyframe.rowsperstrip and len(level.keyframe.dataoffsets) == 1:
            with self._reading:
                return level.asarray()  # one compressed strip, as small levels and whole pictures are
        import zarr

        with self._reading:  # it looks into the first tile to tell how JPEG is decoded
            store = level.aszarr(level=0, fillvalue=self._blank(level), lock=self._reading)
        return zarr.open_array(store, mode="r")

    @staticmethod
    def _blank(level: TiffPageSeries) -> int:
        """Return the value of tiles that were not scanned, white."""
        if level.keyframe.photometric in (3, 5):  # palettes and inks
            return 0
        return 1 if level.dtype.kind == "f" else int(np.iinfo(level.dtype).max)

    def _white_value(self) -> float:
        """Return which stored value is white, by the middle of the coarsest level."""
        is_converted = self._model is not None and self._series.keyframe.photometric in (3, 5)
        if self._series.dtype == np.uint8 or is_converted:
            return 255.0
        height, width = height_width(self._levels[-1])
        top, left = max(0, (height - _PROBE_PX) // 2), max(0, (width - _PROBE_PX) // 2)
        probe = self._colors(-1, slice(top, top + _PROBE_PX), slice(left, left + _PROBE_PX))
        return brightest_value(probe.dtype, float(np.nanmin(probe)), float(np.nanmax(probe)), str(self.path))

    def _check_complete(self, levels: list[TiffPageSeries]) -> None:
        """Raise ValueError where the file ends before its pixels do, as after a broken copy."""
        size = self._file.filehandle.size
        for level in levels:
            page = level.keyframe
            needed = int((np.asarray(page.dataoffsets) + np.asarray(page.databytecounts)).max(initial=0))
            if needed > size:
                msg = (
                    f"{self.path} is incomplete: its pixels reach to byte {needed:,}, the file has {size:,}. Copy it "
                    "again."
                )
                raise ValueError(msg)


def _chunk_of(level: TiffPageSeries) -> tuple[int, int]:
    """Return rows and columns of a chunk near 1024 px that holds whole tiles or strips."""
    height, width = height_width(level)
    page = level.keyframe
    tile_rows, tile_columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip or 1, 0)
    rows = tile_rows * max(1, _CHUNK_PX // tile_rows) if tile_rows < height else _CHUNK_PX
    columns = tile_columns * max(1, _CHUNK_PX // tile_columns) if 0 < tile_columns < width else _CHUNK_PX
    return min(rows, height), min(columns, width)


def _unreadable(error: Exception, path: Path) -> Exception:
    if "imagecodecs" in str(error) and "requires" in str(error):
        return ImportError(f"The compression of {path} needs a further package: pip install imagecodecs.")
    return ValueError(f"The pixels of {path} can't be read: {error}. Check that the file is complete.")
