"""Slides as lazy arrays: a file is opened once in a process, and only the chunks that are asked for are read."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from sthisto._utils.logging import logger
from sthisto.io._slide_openslide import ScannerSlide, scanner_format
from sthisto.io._slide_tiff import TiffSlide
from sthisto.io._tiff import is_tiff

_OPEN_AT_ONCE: Final = 8
_STEP: Final = 4
_COARSEST_PX: Final = 512
_LEAST_CHUNK_PX: Final = 256
_MOST_READ_PX: Final = 8192
_OVERLAPPING_TILES: Final = ("leica", "trestle", "ventana")
"""Formats whose TIFF holds tiles or parts that OpenSlide puts in their places."""
SLIDE_SUFFIXES: Final = (
    *(".svs", ".ndpi", ".mrxs", ".scn", ".qptiff", ".tif", ".tiff", ".btf", ".bif", ".czi", ".vms", ".vmu"),
    *(".svslide", ".dcm"),
)
"""How the names of slides end."""
_SCANNER_SUFFIXES: Final = (".mrxs", ".vms", ".vmu", ".svslide", ".czi", ".bif", ".dcm")


class Slide(Protocol):
    """A file with the levels of one scan, as `TiffSlide` and `ScannerSlide` are."""

    shapes: list[tuple[int, int]]
    chunks: list[tuple[int, int]]
    um_per_px: float | None
    objective: float | None
    icc_profile: bytes | None

    def read(self, level: int, rows: slice, columns: slice) -> np.ndarray:
        """Return pixels (rows, columns, 3) of a level, uint8."""

    def close(self) -> None:
        """Close the file."""


@dataclass(frozen=True)
class SlideFile:
    """A slide by its path, as it was when it was opened; small enough to travel to other processes."""

    path: Path
    modified: int
    to_srgb: bool = False

    @classmethod
    def at(cls, path: Path, *, to_srgb: bool = False) -> SlideFile:
        """Return the slide at a path, as it is now."""
        return cls(path.resolve(), path.stat().st_mtime_ns, to_srgb)

    def opened(self) -> _Opened:
        """Return the open slide; of each process, the last few are kept open."""
        key = (os.getpid(), self)
        with _LOCK:
            opened = _OPENED.pop(key, None)
            if opened is None:
                opened = _Opened(self)
                while len(_OPENED) >= _OPEN_AT_ONCE:
                    _OPENED.popitem(last=False)
            _OPENED[key] = opened
            return opened

    def levels(self) -> list[Any]:
        """Return the levels as dask arrays (3, height, width), uint8, from the finest to the coarsest.

        A large slide with a single level gets coarser ones, each a quarter as wide, which are means over the pixels of
        the finest, computed when they are asked for.
        """
        slide = self.opened().slide
        levels = [
            _lazy(self, level, 1, shape, chunk)
            for level, (shape, chunk) in enumerate(zip(slide.shapes, slide.chunks, strict=True))
        ]
        if len(levels) == 1:
            (height, width), factor = slide.shapes[0], _STEP
            while min(height, width) // factor >= _COARSEST_PX:
                chunk_px = max(_LEAST_CHUNK_PX, _MOST_READ_PX // factor)
                levels.append(_lazy(self, 0, factor, (height // factor, width // factor), (chunk_px, chunk_px)))
                factor *= _STEP
        return levels


class _Opened:
    """An open slide, closed when nothing uses it any more."""

    def __init__(self, file: SlideFile) -> None:
        self.slide = _open(file.path)
        self.to_srgb = srgb_transform(self.slide.icc_profile, file.path) if file.to_srgb else None
        weakref.finalize(self, self.slide.close)

    def read(self, level: int, rows: slice, columns: slice) -> np.ndarray:
        pixels = self.slide.read(level, rows, columns)
        return pixels if self.to_srgb is None else self.to_srgb(pixels)


_LOCK = threading.Lock()
_OPENED: OrderedDict[tuple[int, SlideFile], _Opened] = OrderedDict()


def is_slide(path: Path) -> bool:
    """Return whether a file is a TIFF or of a format that OpenSlide reads."""
    return path.is_file() and (is_tiff(path) or path.suffix.lower() in _SCANNER_SUFFIXES or bool(scanner_format(path)))


def stem_of(path: Path) -> str:
    """Return the name of a file or folder without what its end says of its format."""
    stem = path.stem if path.suffix else path.name
    return stem.removesuffix(".ome")


def _open(path: Path) -> Slide:
    scanner = scanner_format(path)
    if is_tiff(path) and scanner not in _OVERLAPPING_TILES:
        return TiffSlide(path)
    if scanner is None:
        return _open_without_scanner(path)
    return ScannerSlide(path)


def _open_without_scanner(path: Path) -> Slide:
    """Open a TIFF that only looks like another format, or say what is missing.

    Raises
    ------
    ImportError
        OpenSlide is not installed.
    ValueError
        It is, and does not know the file.
    """
    try:
        import openslide  # noqa: F401
    except (ImportError, OSError) as error:
        msg = f"{path} needs OpenSlide, which is not installed: pip install 'sthisto[slides]'."
        raise ImportError(msg) from error
    msg = f"{path} is not of a format that OpenSlide reads, or what belongs to it is missing."
    raise ValueError(msg)


def _lazy(file: SlideFile, level: int, factor: int, shape: tuple[int, int], chunk: tuple[int, int]) -> Any:
    """Return a level, or what `factor` makes of it, as a dask array (3, height, width)."""
    import dask.array as da

    rows, columns = da.core.normalize_chunks(chunk, shape)
    return da.map_blocks(
        _read_block,
        file,
        level,
        factor,
        chunks=((3,), rows, columns),
        dtype=np.uint8,
        meta=np.empty((0, 0, 0), dtype=np.uint8),
    )


def _read_block(file: SlideFile, level: int, factor: int, block_info: Any = None) -> np.ndarray:
    """Return one block (3, rows, columns)."""
    _, rows, columns = (slice(*ends) for ends in block_info[None]["array-location"])
    opened = file.opened()
    pixels = opened.read(level, rows, columns) if factor == 1 else _shrunk(opened, level, factor, rows, columns)
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def _shrunk(opened: _Opened, level: int, factor: int, rows: slice, columns: slice) -> np.ndarray:
    """Return (rows, columns, 3) means over squares of `factor` px, read part by part.

    Where the squares do not fill the level, its first rows and columns are left out, as SpatialData's own levels do.
    """
    top, left = (size % factor for size in opened.slide.shapes[level])
    shrunk = np.empty((rows.stop - rows.start, columns.stop - columns.start, 3), dtype=np.uint8)
    step = max(1, _MOST_READ_PX // 4 // factor)
    for y in range(rows.start, rows.stop, step):
        for x in range(columns.start, columns.stop, step):
            y_end, x_end = min(y + step, rows.stop), min(x + step, columns.stop)
            pixels = opened.read(
                level,
                slice(top + y * factor, top + y_end * factor),
                slice(left + x * factor, left + x_end * factor),
            )
            squares = pixels.reshape(y_end - y, factor, x_end - x, factor, 3)
            mean = squares.mean(axis=(1, 3), dtype=np.float32)
            shrunk[y - rows.start : y_end - rows.start, x - columns.start : x_end - columns.start] = np.rint(mean)
    return shrunk


def srgb_transform(profile: bytes | None, path: Path) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return what takes pixels (rows, columns, 3) with a color profile to sRGB; None, with a warning, without one.

    Raises
    ------
    ValueError
        The profile is damaged, or none of RGB.
    """
    import io

    from PIL import Image, ImageCms

    if not profile:
        logger.warning("%s holds no color profile: its colors are as stored.", path)
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        msg = f"The color profile of {path} can't be applied: {error}. Pass apply_icc=False."
        raise ValueError(msg) from error

    def convert(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(ImageCms.applyTransform(Image.fromarray(pixels), transform))

    return convert
