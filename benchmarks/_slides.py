"""A large slide on disk, made block by block: it takes no memory and, of flat squares, little disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import anndata as ad
import dask.array as da
import numpy as np
import zarr
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Identity

_CELL = 32
_N_BLOCKS = 16


def write_slide(path: Path, *, side: int, n_spots: int, chunk: int = 1024, seed: int = 0) -> None:
    """Write a SpatialData with an image "slide" of `side` x `side` px, `n_spots` spots anywhere on it, and a table.

    SpatialData writes the image of one chunk, which is then enlarged; a few chunks are written and their files copied
    to all others.
    """
    rng = np.random.default_rng(seed)
    one_chunk = da.zeros((3, chunk, chunk), chunks=(3, chunk, chunk), dtype=np.uint8)
    here = {"here": Identity()}
    table = ad.AnnData(np.ones((n_spots, 2), dtype=np.float32))
    table.obs["region"] = np.full(n_spots, "spots")
    table.obs["region"] = table.obs["region"].astype("category")
    table.obs["instance"] = np.arange(n_spots)
    SpatialData(
        images={"slide": Image2DModel.parse(one_chunk, dims=("c", "y", "x"), transformations=here)},
        shapes={
            "spots": ShapesModel.parse(rng.uniform(0, side, (n_spots, 2)), geometry=0, radius=50, transformations=here)
        },
        tables={"table": TableModel.parse(table, region="spots", region_key="region", instance_key="instance")},
    ).write(path)
    blocks = rng.integers(90, 250, (_N_BLOCKS, 3, chunk // _CELL, chunk // _CELL), dtype=np.uint8)
    blocks = blocks.repeat(_CELL, axis=2).repeat(_CELL, axis=3)
    ((name, pixels),) = zarr.open_group(path / "images" / "slide", mode="r+").arrays()
    n_chunks = -(-side // chunk)
    pixels.resize((3, n_chunks * chunk, n_chunks * chunk))
    files: list[Path] = []
    for number, (row, column) in enumerate(np.ndindex(n_chunks, n_chunks)):
        file = path / "images" / "slide" / name / pixels.metadata.encode_chunk_key((0, row, column))
        if number < _N_BLOCKS:
            pixels[:, row * chunk : (row + 1) * chunk, column * chunk : (column + 1) * chunk] = blocks[number]
            files.append(file)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[number % _N_BLOCKS], file)
    pixels.resize((3, side, side))
