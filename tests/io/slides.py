"""Slide files of the kinds that scanners write, small, with pixels that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tifffile import TiffWriter

ROWS, COLUMNS = np.mgrid[:1200, :1600]
SCAN = np.stack(
    [225 - ROWS // 8, 150 + 60 * np.sin(COLUMNS / 90), 200 - COLUMNS / 16], axis=-1
).round().astype(np.uint8)  # fmt: skip
MACRO = np.full((300, 900, 3), (90, 160, 60), dtype=np.uint8)
APERIO = "Aperio Image Library v11.2.1\r\n1600x1200 [0,0 1600x1200] (256x256) JPEG/RGB Q=70|AppMag = 20|MPP = 0.4990"
HALF_UM = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}


def shrunk(factor: int) -> np.ndarray:
    height, width = (size // factor for size in SCAN.shape[:2])
    return SCAN.reshape(height, factor, width, factor, 3).mean(axis=(1, 3)).round().astype(np.uint8)


def write_pyramid(path: Path, *, first=None, compression="jpeg", bigtiff=False, tile=(256, 256), **options) -> Path:
    """Write levels as pages, as libvips and most scanners do, after another image where `first` is given."""
    stored = {"photometric": "rgb", "tile": tile, "compression": compression, "metadata": None, **HALF_UM, **options}
    with TiffWriter(path, bigtiff=bigtiff) as writer:
        if first is not None:
            writer.write(first, **stored)
        for factor in (1, 2, 4):
            writer.write(shrunk(factor), subfiletype=int(factor > 1), **stored)
    return path


def write_aperio(path: Path) -> Path:
    stored = {"photometric": "rgb", "tile": (256, 256), "compression": "jpeg", "metadata": None}
    with TiffWriter(path) as writer:
        writer.write(SCAN, description=APERIO, **stored)
        writer.write(shrunk(8), description="Aperio Image Library v11.2.1\r\n1600x1200 -> 200x150", photometric="rgb",
                     compression="jpeg", rowsperstrip=16, metadata=None)  # fmt: skip
        writer.write(shrunk(4), description=APERIO, **stored)
        for number, name in ((1, "label"), (9, "macro")):
            writer.write(MACRO, subfiletype=number, description=f"Aperio Image Library\r\n{name} 900x300",
                         photometric="rgb", metadata=None)  # fmt: skip
    return path


def write_ome(path: Path) -> Path:
    um = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}
    stored = {"photometric": "rgb", "tile": (256, 256), "compression": "jpeg"}
    with TiffWriter(path, ome=True, bigtiff=True) as writer:
        writer.write(MACRO, photometric="rgb", metadata={"Name": "macro"})
        writer.write(SCAN, subifds=2, metadata={"axes": "YXS", **um}, **stored)
        for factor in (2, 4):
            writer.write(shrunk(factor), subfiletype=1, **stored)
    return path


def write_hamamatsu(path: Path) -> Path:
    with TiffWriter(path) as writer:
        for pixels, magnification in ((SCAN, 20.0), (shrunk(4), 5.0), (MACRO, -1.0), (MACRO[..., 0], -2.0)):
            tags = [(65420, "I", 1, 1, True), (65421, "f", 1, magnification, True), (271, "s", 0, "Hamamatsu", True)]
            color = pixels.ndim == 3
            writer.write(pixels, photometric="rgb" if color else "minisblack", compression="jpeg" if color else None,
                         metadata=None, extratags=tags, **HALF_UM)  # fmt: skip
    return path
