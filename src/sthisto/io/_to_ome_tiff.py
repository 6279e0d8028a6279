"""Predictions as an image of gene maps for viewers of slides."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.predicted import PredictedSection, only_section, read_predicted
from sthisto._sdata.slots import KEY
from sthisto._utils.arguments import checked
from sthisto._utils.atomic import atomic_file
from sthisto._utils.checks import text
from sthisto._utils.validate import check_positive, listed

if TYPE_CHECKING:
    from spatialdata import SpatialData

_PX_PER_SPOT: Final = 8
_SUFFIXES: Final = (".tif", ".tiff", ".btf")
_TILE: Final = 512
_COARSEST_PX: Final = 1024
_ROWS_AT_ONCE: Final = 256


@checked(section=text)
def to_ome_tiff(
    sdata: SpatialData | Sequence[SpatialData],
    path: str | os.PathLike[str],
    genes: str | Sequence[str],
    *,
    section: str | None = None,
    downsample: float | None = None,
    key_added: str = KEY,
    table_key: str | None = None,
) -> None:
    """Write maps of predicted genes as OME-TIFF, a channel each, which lies on the slide in viewers such as QuPath.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    path
        File to write, "….ome.tif"; its name ends with ".tif", ".tiff" or ".btf".
    genes
        Gene or genes to draw.
    section
        Name of the section. None: the only one that has a prediction; a file is for one image.
    downsample
        Px of the image's full resolution per px of the map. None: an eighth of the width of a spot.
    key_added
        Key that `sthisto.tl.predict` wrote to.
    table_key
        Table with the prediction. None: inferred if exactly one table annotates a region.

    Returns
    -------
    None. Writes float32 channels, named for the genes, over the extent of the image: each spot a disk with its
    prediction, 0 elsewhere. Large maps have coarser levels. The physical size of a px is stated where the µm per px of
    the image are known.

    Raises
    ------
    KeyError
        There is no prediction under the key, or no such gene or section.
    ValueError
        Several sections have a prediction and none is named, the table is ambiguous, or the name of the file ends
        otherwise.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> sth.tl.predict(sdata, sth.tl.fit(sdata, method="color"))
    >>> sth.io.to_ome_tiff(sdata, "S1.ome.tif", ["COL1A1", "CD3E"], section="S1_spots")
    """
    from tifffile import TiffWriter

    target = Path(path).expanduser()
    if target.suffix.lower() not in _SUFFIXES:
        msg = f"`path` must end with {listed(_SUFFIXES)}, found {target.name!r}."
        raise ValueError(msg)
    one = only_section(read_predicted(sdata, ElementKeys(table_key=table_key), key_added, genes), section)
    factor = max(1.0, one.section.diameter / _PX_PER_SPOT) if downsample is None else float(downsample)
    check_positive(factor, name="downsample")
    spot = nearest_spot(one, factor)
    n_levels = max(0, int(np.log2(max(1, min(spot.shape) / _COARSEST_PX))))
    about: dict[str, Any] = {"axes": "CYX", "Channel": {"Name": list(one.genes)}}
    if one.section.um_per_px is not None:
        um = one.section.um_per_px * factor
        about |= {"PhysicalSizeX": um, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": um, "PhysicalSizeYUnit": "µm"}
    options: dict[str, Any] = {"photometric": "minisblack", "tile": (_TILE, _TILE), "compression": "zlib"}
    with atomic_file(target) as staged, TiffWriter(staged, ome=True, bigtiff=True) as writer:
        for level in range(n_levels + 1):
            coarse = spot[:: 2**level, :: 2**level]
            shape = (len(one.genes), *coarse.shape)
            more = {"subifds": n_levels, "metadata": about} if level == 0 else {"subfiletype": 1}
            writer.write(_tiles(one.values, coarse), shape=shape, dtype=np.float32, **options, **more)


def nearest_spot(one: PredictedSection, downsample: float) -> np.ndarray:
    """Return (height, width) the number of the spot whose disk covers each px of the map, -1 for none."""
    from scipy.spatial import KDTree

    image, tree = one.section.image, KDTree(one.section.centers)
    height, width = (max(1, int(np.ceil(side / downsample))) for side in (image.height, image.width))
    spot = np.full((height, width), -1, dtype=np.int32)
    x = (np.arange(width) + 0.5) * downsample
    for top in range(0, height, _ROWS_AT_ONCE):
        rows = np.arange(top, min(top + _ROWS_AT_ONCE, height))
        grid = np.stack(np.meshgrid(x, (rows + 0.5) * downsample), axis=-1)
        distance, nearest = tree.query(grid, distance_upper_bound=max(one.section.diameter / 2, downsample))
        spot[rows] = np.where(np.isfinite(distance), nearest, -1)
    return spot


def _tiles(values: np.ndarray, spot: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the tiles of each gene's map, row by row, of `values`, (n_spots, n_genes), at `spot`, (height, width)."""
    height, width = spot.shape
    for gene in values.T:
        known = np.append(gene, np.float32(0))  # -1 is the last one
        for top in range(0, height, _TILE):
            for left in range(0, width, _TILE):
                yield known[spot[top : top + _TILE, left : left + _TILE]]
