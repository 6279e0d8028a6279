"""How good an image is around each spot: blur, marker, folds. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image
from scipy import ndimage

from sthisto._images.patches import PatchSource
from sthisto._images.pen import pen_mask
from sthisto._images.pyramid import Pyramid
from sthisto._images.stains import SlideStains, fit_stains, is_tissue, optical_density
from sthisto._images.tissue import tissue_share

WIDTH_UM: Final = 100.0
"""Width in µm of the square that is judged around each spot, about that of a patch."""
FINEST_UM: Final = 1.6
"""µm per px that blur is measured at, or those of the image where it is coarser."""
COARSE_UM: Final = 3.2
"""The same for marker and folds."""
_OVERSAMPLING: Final = 2
_FEWEST_PX: Final = 3
_MOST_SAMPLES: Final = 64
_BROAD: Final = 1.5
_FLAT: Final = 5e-5
_HALF_BLURRED: Final = 13.0
_STEEPNESS: Final = 4
_FOLD_UM: Final = 25.0
_FOLD_SMOOTHING_UM: Final = 5.0
_FOLD_DENSITY: Final = 1.5


@dataclass(frozen=True)
class Quality:
    """What the image is like around each spot, (n,) float32 between 0 and 1 each.

    Attributes
    ----------
    blur
        0 is sharp; 0.5 is a Gaussian blur with σ of about 1 µm, 0.9 one of 2 µm; for an image coarser than
        `FINEST_UM`, of as many px where that has 1.6 µm.
    pen, fold
        Share of the square that is marker, or folded tissue.
    tissue
        Share of the square that is tissue.
    """

    blur: np.ndarray
    pen: np.ndarray
    fold: np.ndarray
    tissue: np.ndarray

    @property
    def worst(self) -> np.ndarray:
        """One less the largest of blur, marker and fold, (n,): 1 is a faultless image, whatever its share of tissue."""
        worst: np.ndarray = 1 - np.maximum.reduce([self.blur, self.pen, self.fold])
        return worst


def check_square(image: Pyramid, um_per_px: float, width_um: float, *, name: str) -> None:
    """Raise ValueError for a square that is narrower than three px, or wider than the image called `name`."""
    width = width_um / um_per_px
    if not _FEWEST_PX <= width <= max(image.width, image.height):
        msg = (
            f"The quality is judged in squares of {width_um:g} µm, which are {width:.4g} px wide at {um_per_px:g} µm "
            f"per px, and image {name!r} has {image.width} x {image.height} px. They must be from {_FEWEST_PX} px to "
            "the longer side of the image: correct um_per_px=…, or pass another width_um=… to sth.pp.quality."
        )
        raise ValueError(msg)


def measure_quality(image: Pyramid, centers: np.ndarray, um_per_px: float, width_um: float = WIDTH_UM) -> Quality:
    """Judge the image around each spot, from pixels alone.

    Parameters
    ----------
    image
        The slide. It is read in bands, at most at twice the resolution that is measured.
    centers
        (n, 2) x and y in px of the full resolution.
    um_per_px
        µm per px of the full resolution.
    width_um
        Width of the square around each spot.

    Notes
    -----
    Blur is the variance of the Laplacian of hematoxylin over that of the Laplacian of its Gaussian (σ of 1.5 px), which
    takes out how much there is to be seen: with r the ratio, blur is ``1 / (1 + (r / 13)^4)``. Marker is told by its
    hue. Folds are two layers of tissue: areas wider than 25 µm whose density is 1.5 times the slide's median or more.
    """
    tissue = tissue_share(image, centers, width_um / um_per_px)
    windows = _Windows(image, centers, um_per_px, width_um)
    slide = _look(windows)
    blur, pen, fold = (np.zeros(len(centers), dtype=np.float32) for _ in range(3))
    for index, fine, coarse in windows.read():
        blur[index] = _blur(fine, slide.stains)
        pen[index], fold[index] = _pen_and_fold(coarse, windows.coarse_um, slide.density)
    return Quality(blur, pen, fold, tissue.astype(np.float32))


@dataclass(frozen=True)
class _Slide:
    stains: SlideStains
    density: float


class _Windows:
    """Squares around spots, (n, 2) centers, at two resolutions, both averaged over whole px of a finer level."""

    def __init__(self, image: Pyramid, centers: np.ndarray, um_per_px: float, width_um: float) -> None:
        fine_um, self.coarse_um = max(FINEST_UM, um_per_px), max(COARSE_UM, um_per_px)
        level = image.level_for(fine_um / um_per_px / _OVERSAMPLING)
        width = max(_FEWEST_PX, round(width_um / um_per_px / level.downsample))
        self.sizes = tuple(max(_FEWEST_PX, round(width_um / um)) for um in (fine_um, self.coarse_um))
        self.source = PatchSource(level, level.locate(centers), extent=width, size=width)

    def read(self, index: np.ndarray | None = None) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield the number of a spot and its square, fine and coarse, (width, width, 3) uint8 each."""
        source = self.source if index is None else self.source.subset(index)
        for numbers, squares in source.batches():
            for number, square in zip(numbers.tolist(), squares, strict=True):
                picture = Image.fromarray(square)
                fine, coarse = (np.asarray(picture.resize((size, size), Image.Resampling.BOX)) for size in self.sizes)
                yield number, fine, coarse


def _look(windows: _Windows) -> _Slide:
    """Estimate stains and median density from up to 64 squares, of tissue without marker."""
    n = len(windows.source)
    chosen = np.unique(np.linspace(0, n - 1, min(n, _MOST_SAMPLES)).round().astype(int))
    stained, densities = [], []
    for _, fine, coarse in windows.read(chosen):
        pixels = coarse.astype(np.float32) / 255
        kept = is_tissue(pixels) & ~pen_mask(coarse, windows.coarse_um)
        densities.append(optical_density(pixels).mean(axis=-1)[kept])
        if kept.mean() > 0.5:
            stained.append(fine.reshape(-1, 3).astype(np.float32) / 255)
    sample = np.concatenate(stained) if stained else np.empty((0, 3), dtype=np.float32)
    density = np.concatenate(densities)
    return _Slide(fit_stains(sample[is_tissue(sample)]), float(np.median(density)) if len(density) else np.inf)


def _blur(rgb: np.ndarray, stains: SlideStains) -> float:
    hematoxylin = stains.amounts(optical_density(rgb.astype(np.float32) / 255))[..., 0]
    detail = ndimage.laplace(hematoxylin).var()
    structure = ndimage.gaussian_laplace(hematoxylin, _BROAD).var()
    return float(1 / (1 + (detail / (structure + _FLAT) / _HALF_BLURRED) ** _STEEPNESS))


def _pen_and_fold(rgb: np.ndarray, um_per_px: float, median_density: float) -> tuple[float, float]:
    pen = pen_mask(rgb, um_per_px)
    density = optical_density(rgb.astype(np.float32) / 255).mean(axis=-1)
    smooth = ndimage.gaussian_filter(density, _FOLD_SMOOTHING_UM / um_per_px)
    broad = ndimage.grey_opening(smooth, size=max(1, round(_FOLD_UM / um_per_px)), mode="nearest")
    return float(pen.mean()), float(((broad > _FOLD_DENSITY * median_density) & ~pen).mean())
