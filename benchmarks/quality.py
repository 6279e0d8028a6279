"""Blur, marker and folds planted around some of the spots: how well `pp.quality` tells them from the others.

Prints the area under the ROC curve of each fault over the spots of each section, and the share of faultless spots where
it is said to exceed 0.5. Sections: synthetic at 0.4, 0.8 and 1.6 µm per px, and those of her2st where the environment
variable STHISTO_HER2ST names them.
Run: python benchmarks/quality.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
from scipy import ndimage
from sklearn.metrics import roc_auc_score

import sthisto as sth
from sthisto._images.pyramid import Level, Pyramid
from sthisto._images.quality import WIDTH_UM, Quality, measure_quality
from sthisto._sdata.sections import read_sections

INKS = {"blue": (35, 60, 160), "green": (20, 110, 60), "black": (30, 30, 30), "red": (195, 30, 45)}
REACH_UM = 150.0
Fault = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def blurred(sigma_um: float) -> Fault:
    """Return the fault of a lens out of focus, with the noise of the camera."""

    def plant(tile: np.ndarray, um_per_px: float, rng: np.random.Generator) -> np.ndarray:
        smooth = ndimage.gaussian_filter(tile.astype(np.float32), (sigma_um / um_per_px,) * 2 + (0,))
        return smooth + rng.normal(0, 1, smooth.shape)

    return plant


def marked(ink: tuple[int, int, int], cover: float) -> Fault:
    """Return the fault of a line of marker across the tile, 60 to 120 µm wide, through which some tissue is seen."""

    def plant(tile: np.ndarray, um_per_px: float, rng: np.random.Generator) -> np.ndarray:
        line = across(tile.shape[:2], um_per_px, rng)[..., None]
        light = (np.array(ink) / 255) ** cover * (tile / 255.0) ** (1 - cover * 0.8)
        return np.where(line, 255 * light, tile)

    return plant


def folded(tile: np.ndarray, um_per_px: float, rng: np.random.Generator) -> np.ndarray:
    """Lay tissue from nearby over a strip of the tile."""
    line = across(tile.shape[:2], um_per_px, rng)[..., None]
    return np.where(line, 255.0 * (tile / 255.0) * (tile[::-1, ::-1] / 255.0), tile)


def across(shape: tuple[int, int], um_per_px: float, rng: np.random.Generator) -> np.ndarray:
    """Return a strip through the middle of a tile, (height, width) bool."""
    y, x = (np.arange(size) - size / 2 for size in shape)
    angle = rng.uniform(0, np.pi)
    away = np.abs(x[None] * np.sin(angle) - y[:, None] * np.cos(angle)) * um_per_px
    return away < rng.uniform(30, 60)


FAULTS: dict[str, Fault] = {
    "blur 1 µm": blurred(1),
    "blur 2 µm": blurred(2),
    "blur 4 µm": blurred(4),
    **{f"{name}": marked(ink, 1.0) for name, ink in INKS.items()},
    **{f"{name} 60 %": marked(ink, 0.6) for name, ink in INKS.items()},
    "fold": folded,
}


def sections() -> Iterator[tuple[str, np.ndarray, np.ndarray, float]]:
    """Yield name, image (height, width, 3), centers and µm per px."""
    datasets = [sth.datasets.synthetic(n_sections=1, n_spots=200, um_per_px=um, seed=7) for um in (0.4, 0.8, 1.6)]
    if os.environ.get("STHISTO_HER2ST"):
        datasets += [sth.datasets.her2st(sections=[name]) for name in ("A1", "C2", "C4")]
    for sdata in datasets:
        for section in read_sections(sdata):
            level = section.image.levels[0]
            pixels = level.read(0, level.height, 0, level.width)
            yield section.name, pixels, level.locate(section.centers), section.um_per_px * level.downsample


def measured(pixels: np.ndarray, centers: np.ndarray, um_per_px: float) -> Quality:
    """Return the quality of an image that lies in memory."""
    return measure_quality(Pyramid((Level(np.moveaxis(pixels, -1, 0), np.eye(3)),)), centers, um_per_px)


def planted(
    pixels: np.ndarray, centers: np.ndarray, um_per_px: float, fault: Fault, rng: np.random.Generator
) -> np.ndarray:
    """Return the image with a fault around some spots."""
    spoiled, half = pixels.copy(), round(REACH_UM / 2 / um_per_px)
    for x, y in centers.round().astype(int):
        where = slice(max(y - half, 0), y + half), slice(max(x - half, 0), x + half)
        spoiled[where] = np.clip(fault(pixels[where], um_per_px, rng), 0, 255).astype(np.uint8)
    return spoiled


def main() -> None:
    """Print one line for each section and fault."""
    print(f"{'section':10s} {'µm/px':>6s} {'fault':12s} {'AUC':>6s} {'median':>7s} {'faultless':>10s}")
    for name, pixels, centers, um_per_px in sections():
        rng = np.random.default_rng(0)
        spoiled = rng.random(len(centers)) < 0.08
        faultless = measured(pixels, centers, um_per_px)
        wrongly = {part: np.mean(getattr(faultless, part) > 0.5) for part in ("blur", "pen", "fold")}
        apart = np.abs(centers[:, None] - centers[None]).max(axis=2) * um_per_px
        touched = ((apart < (REACH_UM + WIDTH_UM) / 2) & spoiled[None]).any(axis=1) & ~spoiled
        for fault, plant in FAULTS.items():
            found = measured(planted(pixels, centers[spoiled], um_per_px, plant, rng), centers, um_per_px)
            part = "blur" if "blur" in fault else "fold" if fault == "fold" else "pen"
            values, kept = getattr(found, part), ~touched
            area = roc_auc_score(spoiled[kept], values[kept])
            print(
                f"{name:10s} {um_per_px:6.2f} {fault:12s} {area:6.3f} {np.median(values[spoiled]):7.2f} "
                f"{wrongly[part]:9.1%}"
            )


if __name__ == "__main__":
    main()
