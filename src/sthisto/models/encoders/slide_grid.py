"""A slide at the resolution that texture is measured on: read tile by tile, with its stains and its tissue."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor
from typing import Final

import numpy as np
from PIL import Image
from scipy import ndimage

from sthisto._images.content import pixel_digest
from sthisto._images.pyramid import Level, Pyramid
from sthisto._images.stains import SlideStains, fit_stains, is_tissue
from sthisto.models.data import SectionInput
from sthisto.models.encoders.texture import UM_PER_PX

NARROWEST_PX: Final = 24
"""Texture px across the narrowest patch, where the µm per px are unknown: those of 77 µm."""
_OVERVIEW_PX: Final = 1024
_SAMPLE_PX: Final = 64
_MOST_SAMPLES: Final = 64
_MOSTLY: Final = 0.5
_SMOOTHING: Final = 4.0


@dataclass(eq=False)
class SlideGrid:
    """A slide in px of `step` full-resolution px.

    Attributes
    ----------
    image
        The slide.
    step
        Full-resolution px per px of the grid.
    """

    image: Pyramid
    step: float

    @classmethod
    def of(cls, section: SectionInput) -> SlideGrid:
        """Return the grid of a section's slide: of `UM_PER_PX`, or a 24th of the narrowest patch without known µm."""
        image = section.image or Pyramid((section.patches[0].level,))
        if section.um_per_px is not None:
            return cls(image, UM_PER_PX / section.um_per_px)
        return cls(image, narrowest_px(section) / NARROWEST_PX)

    @cached_property
    def level(self) -> Level:
        """The level of the pyramid that is read."""
        return self.image.level_for(self.step)

    @cached_property
    def _pixels(self) -> Level:
        """The same level, in memory where it fits."""
        return self.level.held()

    @cached_property
    def digest(self) -> str:
        """What recognizes the pixels of the grid and of the overview that stains and borders are found on."""
        overview = self.image.level_for(max(self.image.width, self.image.height) / _OVERVIEW_PX)
        levels = [self.level] if overview is self.level else [self.level, overview]
        return "-".join(pixel_digest(level) for level in levels)

    @cached_property
    def _scale(self) -> float:
        return self.step / self.level.downsample

    @property
    def width(self) -> int:
        """Columns of the grid."""
        return max(1, floor(self.level.width / self._scale + 1e-6))

    @property
    def height(self) -> int:
        """Rows of the grid."""
        return max(1, floor(self.level.height / self._scale + 1e-6))

    def locate(self, xy: np.ndarray) -> np.ndarray:
        """Take (n, 2) positions from full-resolution px to px of the grid."""
        return np.asarray(self.level.locate(xy) / self._scale)

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Read a box inside the grid: (rows, columns, 3), uint8."""
        scale, level = self._scale, self._pixels
        x0, x1 = left * scale, min(right * scale, level.width)
        y0, y1 = top * scale, min(bottom * scale, level.height)
        first_x, first_y = max(floor(x0) - 1, 0), max(floor(y0) - 1, 0)
        last_x, last_y = min(ceil(x1) + 1, level.width), min(ceil(y1) + 1, level.height)
        picture = Image.fromarray(level.read(first_y, last_y, first_x, last_x))
        kind = Image.Resampling.BOX if scale > 1 else Image.Resampling.BILINEAR
        box = (x0 - first_x, y0 - first_y, x1 - first_x, y1 - first_y)
        return np.asarray(picture.resize((right - left, bottom - top), kind, box=box))

    @cached_property
    def stains(self) -> SlideStains:
        """The slide's stains, from up to 64 squares of tissue spread over it."""
        pixels = [self.read(*box).reshape(-1, 3).astype(np.float32) / 255 for box in self._sampled_boxes()]
        sample = np.concatenate(pixels)
        return fit_stains(sample[is_tissue(sample)])

    def _sampled_boxes(self) -> list[tuple[int, int, int, int]]:
        """Return top, bottom, left, right of squares that are mostly tissue; of any, where none is."""
        rows, columns = ceil(self.height / _SAMPLE_PX), ceil(self.width / _SAMPLE_PX)
        share = np.asarray(
            Image.fromarray(self._tissue.astype(np.float32)).resize((columns, rows), Image.Resampling.BOX)
        )
        wanted = np.argwhere(share > _MOSTLY)
        if not len(wanted):
            wanted = np.argwhere(share > 0) if share.any() else np.argwhere(share >= 0)
        chosen = np.unique(np.linspace(0, len(wanted) - 1, _MOST_SAMPLES).round().astype(int))
        return [
            (y, min(y + _SAMPLE_PX, self.height), x, min(x + _SAMPLE_PX, self.width))
            for y, x in (wanted[chosen] * _SAMPLE_PX).tolist()
        ]

    @cached_property
    def _overview(self) -> tuple[np.ndarray, np.ndarray]:
        picture, (left, right, bottom, top) = self.image.overview(max_size=_OVERVIEW_PX)
        return picture, np.array([left, top, right, bottom])

    @cached_property
    def _tissue(self) -> np.ndarray:
        return is_tissue(self._overview[0].astype(np.float32) / 255)

    def border_distance(self, xy: np.ndarray) -> np.ndarray:
        """Return the distance of (n, 2) full-resolution positions to the border of the tissue, in px of the grid.

        0 is outside of the tissue.
        """
        height, width = self._tissue.shape
        left, top, right, bottom = self._overview[1]
        px = np.array([(right - left) / width, (bottom - top) / height])
        grid_px = float(px.mean()) / self.step
        share = ndimage.gaussian_filter(self._tissue.astype(np.float32), max(_SMOOTHING / grid_px, 1.0))
        inside = np.pad(share > _MOSTLY, 1)
        distance = ndimage.distance_transform_edt(inside)[1:-1, 1:-1] * grid_px
        column, row = np.clip(((xy - [left, top]) / px).astype(int), 0, [width - 1, height - 1]).T
        return np.asarray(distance[row, column])


def narrowest_px(section: SectionInput) -> float:
    """Return the width of a section's narrowest patch in px of the full resolution."""
    return min(source.extent * source.level.downsample for source in section.patches)
