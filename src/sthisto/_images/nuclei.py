"""Nuclei in H&E: hematoxylin, a threshold and a watershed, tile by tile. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.measure import find_contours, regionprops
from skimage.segmentation import watershed

from sthisto._images.patches import PatchSource
from sthisto._images.pyramid import Pyramid
from sthisto._images.stains import SlideStains, fit_stains, is_tissue, optical_density
from sthisto._images.tissue import tissue_share

UM_PER_PX: Final = 0.5
"""µm per px that nuclei are looked for at."""
_CORE_PX: Final = 768
_MARGIN_PX: Final = 64
_SMOOTHING_UM: Final = 0.7
_SURROUNDING_UM: Final = 12.0
_LEAST_SHARE: Final = 0.9
_CONTRAST: Final = 0.09
_SEED_UM: Final = 0.7
_APART_UM: Final = 2.0
_AREA_UM2: Final = (6.0, 500.0)
_MOST_SAMPLES: Final = 24

Segment = Callable[[np.ndarray], np.ndarray]
"""Takes a tile (height, width, 3) uint8 at `UM_PER_PX` to labels (height, width), 0 where there is no nucleus."""


@dataclass(frozen=True)
class Nuclei:
    """Nuclei of a slide, in px of its full resolution.

    Attributes
    ----------
    outlines
        (n_points, 2) x and y of the outline of each, closed.
    centers
        (n, 2) x and y of their centroids.
    areas
        (n,) areas in µm².
    """

    outlines: list[np.ndarray]
    centers: np.ndarray
    areas: np.ndarray


class Tiles:
    """A slide in tiles of tissue at `UM_PER_PX`, with margins by which neighbors overlap.

    Parameters
    ----------
    image
        The slide.
    um_per_px
        µm per px of its full resolution.
    """

    def __init__(self, image: Pyramid, um_per_px: float) -> None:
        self.full_px = UM_PER_PX / um_per_px
        self._size = np.array([image.width, image.height])
        core = _CORE_PX * self.full_px
        x, y = (np.arange(core / 2, size + core / 2, core) for size in (image.width, image.height))
        centers = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        self.centers = centers[tissue_share(image, centers, core) > 0]
        level = image.level_for(self.full_px)
        size = _CORE_PX + 2 * _MARGIN_PX
        extent = size * self.full_px / level.downsample
        self._source = PatchSource(level, level.locate(self.centers), extent=extent, size=size, outside=True)

    def __len__(self) -> int:
        return len(self.centers)

    def read(self, index: np.ndarray | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number and pixels with margins, (size, size, 3) uint8, of all tiles or those at `index`, (n,)."""
        source = self._source if index is None else self._source.subset(index)
        for (number,), (tile,) in source.batches(1):
            yield int(number if index is None else index[number]), tile

    def holds(self, xy: np.ndarray) -> bool:
        """Return whether a point, (2,) in px of the full resolution, lies in the image, not in its reflection."""
        return bool(((xy >= 0) & (xy < self._size)).all())

    def origin(self, number: int) -> np.ndarray:
        """Return x and y, (2,), of the corner of a tile with its margins, in px of the full resolution."""
        return np.asarray(self.centers[number] - (_CORE_PX / 2 + _MARGIN_PX) * self.full_px)


def slide_stains(tiles: Tiles) -> SlideStains:
    """Return the stains of a slide, from up to 24 of its tiles."""
    chosen = np.unique(np.linspace(0, len(tiles) - 1, min(len(tiles), _MOST_SAMPLES)).round().astype(int))
    pixels = [tile[::4, ::4].reshape(-1, 3).astype(np.float32) / 255 for _, tile in tiles.read(chosen)]
    sample = np.concatenate(pixels)
    return fit_stains(sample[is_tissue(sample)])


def find_nuclei(tiles: Tiles, segment: Segment) -> Nuclei:
    """Segment all tiles, one at a time; a nucleus belongs to the tile that its centroid lies in."""
    outlines, centers, areas = [], [], []
    for number, tile in tiles.read():
        origin = tiles.origin(number)
        for region in regionprops(segment(tile)):
            y, x = np.array(region.centroid) + 0.5
            area = region.area * UM_PER_PX**2
            center = origin + np.array([x, y]) * tiles.full_px
            is_own = all(_MARGIN_PX <= at < _MARGIN_PX + _CORE_PX for at in (x, y)) and tiles.holds(center)
            if is_own and _AREA_UM2[0] <= area <= _AREA_UM2[1]:
                outlines.append(origin + _outline(region) * tiles.full_px)
                centers.append(center)
                areas.append(area)
    return Nuclei(outlines, np.array(centers).reshape(-1, 2), np.array(areas))


def watershed_nuclei(rgb: np.ndarray, stains: SlideStains) -> np.ndarray:
    """Label nuclei by the amount of hematoxylin, (height, width) int32.

    Nuclei are darker than 0.9 of the slide's Otsu threshold and than their surroundings of 12 µm. Touching ones are
    parted by a watershed from the peaks of distance to the border and darkness.

    Parameters
    ----------
    rgb
        (height, width, 3) uint8 at `UM_PER_PX`.
    stains
        Of the slide.
    """
    amount = stains.amounts(optical_density(rgb.astype(np.float32) / 255))[..., 0]
    smooth = ndimage.gaussian_filter(amount, _SMOOTHING_UM / UM_PER_PX)
    surrounding = ndimage.gaussian_filter(amount, _SURROUNDING_UM / UM_PER_PX)
    mask = (smooth > _LEAST_SHARE * stains.nuclear) & (smooth > surrounding + _CONTRAST)
    mask = ndimage.binary_fill_holes(ndimage.binary_opening(mask))
    distance = ndimage.distance_transform_edt(mask) * UM_PER_PX
    height = ndimage.gaussian_filter(distance * (0.5 + np.clip(smooth, 0, 1.5)), _SEED_UM / UM_PER_PX)
    peaks = peak_local_max(
        height, min_distance=round(_APART_UM / UM_PER_PX), labels=mask.astype(np.int32), exclude_border=False
    )
    markers = np.zeros(mask.shape, dtype=np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-height, markers, mask=mask), dtype=np.int32)


def _outline(region: object) -> np.ndarray:
    """Return the outer outline of a labeled region in px of the tile, (n_points, 2) x and y."""
    padded = np.pad(region.image, 1)  # type: ignore[attr-defined]
    longest = max(find_contours(padded.astype(float), 0.5), key=len)
    top, left = region.bbox[:2]  # type: ignore[attr-defined]
    return np.asarray(longest[:, ::-1] + [left - 0.5, top - 0.5])
