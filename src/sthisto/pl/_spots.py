"""Spots at their true size over the H&E, in px of the image with y down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.collections import EllipseCollection
from matplotlib.colors import ListedColormap, Normalize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap

    from sthisto._images.pitch import median_pitch
from sthisto._sdata.sections import Section

RASTER_FROM = 100_000
"""Number of spots from which datashader draws a panel as one picture: 100,000 discs no longer draw in a second."""

_RASTER_SIZE = 1200
_LABELS_FILL = 0.9


@dataclass(frozen=True)
class View:
    """The H&E of one section and the extent of its panels.

    Attributes
    ----------
    picture, extent
        The H&E around the spots, (rows, columns, 3), and its (left, right, bottom, top) in px of the full resolution.
    box
        left, top, right, bottom of the panel in px of the full resolution.
    diameter
        Width of a spot in px.
    """

    section: Section
    picture: np.ndarray
    extent: tuple[float, float, float, float]
    box: tuple[float, float, float, float]
    diameter: float

    @property
    def aspect(self) -> float:
        """Height over width."""
        left, top, right, bottom = self.box
        return (bottom - top) / (right - left)

    def draw_image(self, ax: Axes, alpha: float = 1.0) -> None:
        """Draw the H&E and set the axes to the box, y down; with `alpha` below 1 it fades to white."""
        left, top, right, bottom = self.box
        ax.imshow(self.picture, extent=self.extent, alpha=alpha, zorder=0, interpolation_stage="rgba")
        ax.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect="equal", anchor="N")
        ax.spines[:].set(linewidth=0.4, color="0.6")

    def draw_spots(
        self, ax: Axes, values: np.ndarray, *, cmap: str | Colormap, norm: Normalize, classes: bool = False
    ) -> ScalarMappable:
        """Draw a disc for every spot with a finite value, of (n_spots,) values, rasterized in vector formats.

        From `RASTER_FROM` spots on, they become one picture, whose pixels are the mean of their spots or, with
        `classes`, the first.
        """
        if len(values) >= RASTER_FROM:
            picture = self._picture(values, classes=classes)
            left, top, right, bottom = self.box
            return ax.imshow(
                picture, extent=(left, right, bottom, top), cmap=cmap, norm=norm, zorder=2, interpolation="nearest"
            )
        finite = np.isfinite(values)
        discs = EllipseCollection(
            self.diameter,
            self.diameter,
            0.0,
            units="xy",
            offsets=self.section.centers[finite],
            offset_transform=ax.transData,
            cmap=cmap,
            norm=norm,
            linewidths=0,
            rasterized=True,
            zorder=2,
        )
        discs.set_array(values[finite])
        ax.add_collection(discs, autolim=False)
        return discs

    def draw_classes(self, ax: Axes, codes: np.ndarray, colors: list[Any]) -> ScalarMappable:
        """Draw each spot in the color of its class, by (n_spots,) codes; those with code -1 are left out."""
        values = np.where(codes < 0, np.nan, codes).astype(float)
        norm = Normalize(-0.5, len(colors) - 0.5)
        return self.draw_spots(ax, values, cmap=ListedColormap(colors), norm=norm, classes=True)

    def _picture(self, values: np.ndarray, *, classes: bool) -> np.ma.MaskedArray:
        """Return the finite values in each pixel, spread to the spots' size: (rows, columns), masked beyond."""
        import datashader as ds
        from datashader.transfer_functions import spread

        left, top, right, bottom = self.box
        step = max(right - left, bottom - top) / _RASTER_SIZE
        columns, rows = int(np.ceil((right - left) / step)), int(np.ceil((bottom - top) / step))
        finite = np.isfinite(values)
        x, y = self.section.centers[finite].T
        canvas = ds.Canvas(columns, rows, x_range=(left, right), y_range=(top, bottom))
        reduction = ds.first("value") if classes else ds.mean("value")
        drawn = canvas.points(pd.DataFrame({"x": x, "y": y, "value": values[finite]}), "x", "y", reduction)
        radius = self.diameter / 2 / step
        if (reach := int(radius)) > 0:
            around = np.arange(-reach, reach + 1)
            drawn = spread(drawn, mask=np.hypot(*np.meshgrid(around, around)) <= radius, how="source")
        return np.ma.masked_invalid(drawn.to_numpy())


def view(section: Section, *, max_size: int = 1000) -> View:
    """Read the H&E around the spots of a section from a coarse level of its pyramid.

    Parameters
    ----------
    max_size
        Longest side of the picture that is read, in px.
    """
    diameter = section.diameter
    if not np.isfinite(diameter):
        diameter = _LABELS_FILL * _pitch(section.centers)
    margin = 1.5 * diameter
    left, top = np.maximum(section.centers.min(axis=0) - margin, 0)
    right, bottom = np.minimum(section.centers.max(axis=0) + margin, [section.image.width, section.image.height])
    box = (float(left), float(top), float(right), float(bottom))
    picture, extent = section.image.overview(box=box, max_size=max_size)
    return View(section, picture, extent, box, float(diameter))


def _pitch(centers: np.ndarray) -> float:
    """Return the median distance between nearest spots in px, of (n_spots, 2) centers; 1 px for a single spot."""
    return median_pitch(centers) if len(centers) > 1 else 1.0
