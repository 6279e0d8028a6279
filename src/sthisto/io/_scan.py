"""The scan of a slide file: its lazy levels, and the image element that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sthisto._utils.logging import logger
from sthisto.io._image import read_picture
from sthisto.io._slide import SlideFile, is_slide
from sthisto.io._slide_zarr import read_zarr_levels


@dataclass(frozen=True)
class Scan:
    """What is known of a scan.

    Attributes
    ----------
    levels
        Lazy (3, height, width) in uint8, from the finest to the coarsest.
    um_per_px, objective
        µm per px of the finest level and magnification of the objective, None where they are not stated.
    """

    levels: Sequence[Any]
    um_per_px: float | None = None
    objective: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the finest level."""
        height, width = self.levels[0].shape[1:]
        return int(height), int(width)

    def element(self, system: str, to_system: Any = None) -> Any:
        """Return the image element in a coordinate system; `to_system` is its transformation, None for none."""
        from spatialdata.models import Image2DModel
        from spatialdata.transformations import Identity, set_transformation
        from xarray import DataArray, Dataset, DataTree

        transformations = {system: Identity() if to_system is None else to_system}
        if len(self.levels) == 1:
            return Image2DModel.parse(
                self.levels[0], dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=transformations
            )
        height, width = self.size
        nodes = {}
        for i, level in enumerate(self.levels):
            rows, columns = level.shape[1:]
            coords = {
                "c": ["r", "g", "b"],
                "y": (np.arange(rows) + 0.5) * (height / rows),
                "x": (np.arange(columns) + 0.5) * (width / columns),
            }
            nodes[f"scale{i}"] = Dataset({"image": DataArray(level, dims=("c", "y", "x"), coords=coords)})
        image = DataTree.from_dict(nodes)
        set_transformation(image, transformations, set_all=True)
        Image2DModel().validate(image)
        return image


def open_scan(path: Path, *, apply_icc: bool = False) -> Scan:
    """Open a slide file, a zarr or a picture; pixels of pictures alone are read at once.

    Raises
    ------
    ValueError
        It is damaged, or holds no image in RGB.
    ImportError
        The format needs a package that is not installed.
    """
    import dask.array as da

    if path.is_dir():
        levels, um = read_zarr_levels(path)
        if apply_icc:
            logger.warning("%s holds no color profile: its colors are as stored.", path)
        return Scan(levels, um)
    if is_slide(path):
        file = SlideFile.at(path, to_srgb=apply_icc)
        slide = file.opened().slide
        return Scan(file.levels(), slide.um_per_px, slide.objective)
    picture = read_picture(path)
    return Scan([da.from_array(picture.pixels.transpose(2, 0, 1), chunks=(3, 2048, 2048))], picture.um_per_px)
