"""Small hand-made SpatialData with every choice open: the ground that tests of the boundary stand on."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import anndata as ad
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import shapely
import timm
from packaging.version import Version
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel, TableModel
from spatialdata.transformations import Affine

BACKGROUND = 240


def skip_without_maps(name):
    """Skip where the installed timm gives out no feature maps of an encoder yet."""
    if name in ("densenet121", "legacy_xception") and Version(timm.__version__) < Version("1.0.31"):
        pytest.skip(f"timm {timm.__version__} gives out no maps of {name}; 1.0.31 does")


def similarity(angle: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0), flip: bool = False):
    """Return a (3, 3) matrix: mirror x, then rotate by `angle` degrees, scale and shift."""
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    linear = scale * np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if flip else 1.0, 1.0])
    return np.vstack([np.column_stack([linear, shift]), [0, 0, 1]])


def as_transformation(matrix: np.ndarray) -> Affine:
    return Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))


def grid(width: int, height: int, spacing: int, margin: int | None = None, seed: int = 0) -> np.ndarray:
    """Return (n, 2) centers on a grid, each moved by a fraction of a pixel."""
    margin = spacing // 2 if margin is None else margin
    x, y = np.meshgrid(np.arange(margin, width - margin, spacing), np.arange(margin, height - margin, spacing))
    centers = np.column_stack([x.ravel(), y.ravel()]).astype(float)
    return centers + np.random.default_rng(seed).uniform(-0.5, 0.5, centers.shape)


def draw_marks(width: int, height: int, centers: np.ndarray, sigma: float = 4.0) -> np.ndarray:
    """Return a (3, height, width) uint8 image with a dark round mark at each center."""
    dark = np.zeros((height, width))
    for x, y in centers:
        left, top = max(int(x) - 20, 0), max(int(y) - 20, 0)
        columns, rows = np.arange(left, min(left + 40, width)) + 0.5, np.arange(top, min(top + 40, height)) + 0.5
        mark = np.exp(-((columns[None] - x) ** 2 + (rows[:, None] - y) ** 2) / (2 * sigma**2))
        dark[top : top + 40, left : left + 40] = np.maximum(dark[top : top + 40, left : left + 40], mark)
    return np.repeat((BACKGROUND - 200 * dark).round().astype(np.uint8)[None], 3, axis=0)


@dataclass
class Region:
    """What a region is made of; its defaults make one plain section."""

    name: str = "spots"
    image_key: str = "image"
    system: str = "slide"
    centers: np.ndarray = field(default_factory=lambda: grid(320, 240, 40))
    image: np.ndarray | None = None
    width: int = 320
    height: int = 240
    image_to_system: np.ndarray = field(default_factory=similarity)
    spots_to_system: np.ndarray = field(default_factory=similarity)
    scale_factors: tuple[int, ...] | None = None
    chunks: tuple[int, int, int] | None = None
    kind: str = "circles"
    radius: float = 5.0
    in_tissue: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.image is None:
            self.image = draw_marks(self.width, self.height, self.centers)

    def image_element(self):
        pixels = self.image if self.chunks is None else da.from_array(self.image, chunks=self.chunks)
        return Image2DModel.parse(
            pixels,
            dims=("c", "y", "x"),
            scale_factors=self.scale_factors,
            chunks=self.chunks,
            transformations={self.system: as_transformation(self.image_to_system)},
        )

    def spots_element(self):
        to_spots = np.linalg.inv(self.spots_to_system) @ self.image_to_system
        xy = self.centers @ to_spots[:2, :2].T + to_spots[:2, 2]
        radius = self.radius * np.sqrt(abs(np.linalg.det(to_spots[:2, :2])))
        transformations = {self.system: as_transformation(self.spots_to_system)}
        index = pd.Index(np.arange(len(xy)) + 100)
        if self.kind == "circles":
            return ShapesModel.parse(xy, geometry=0, radius=radius, index=index, transformations=transformations)
        if self.kind == "polygons":
            squares = shapely.box(*(xy - radius).T, *(xy + radius).T)
            return ShapesModel.parse(gpd.GeoDataFrame(geometry=squares, index=index), transformations=transformations)
        labels = np.zeros((self.height, self.width), dtype=np.int32)
        for instance, (x, y) in zip(index, xy, strict=True):
            labels[round(y - radius) : round(y + radius), round(x - radius) : round(x + radius)] = instance
        pixels = da.from_array(labels, chunks=(97, 89))
        return Labels2DModel.parse(pixels, dims=("y", "x"), transformations=transformations)


def with_own_tables(sdata: SpatialData) -> SpatialData:
    """Return a SpatialData of the same images and shapes with copies of the tables, for a test to write to."""
    elements = {name: element for _, name, element in sdata.gen_elements() if name not in sdata.tables}
    own = SpatialData.init_from_elements(elements | {name: table.copy() for name, table in sdata.tables.items()})
    own.attrs = copy.deepcopy(sdata.attrs)
    return own


def make_sdata(
    *regions: Region, table_key: str = "counts", n_genes: int = 12, shuffled: bool = True, seed: int = 0
) -> SpatialData:
    """Return a SpatialData whose table annotates the regions; gene 0 of each row is its instance number."""
    regions = regions or (Region(),)
    rng = np.random.default_rng(seed)
    obs = pd.concat(
        [
            pd.DataFrame({"region": r.name, "instance": np.arange(len(r.centers)) + 100, "in_tissue": r.in_tissue})
            for r in regions
        ],
        ignore_index=True,
    ).dropna(axis=1, how="all")
    if shuffled:
        obs = obs.iloc[rng.permutation(len(obs))]
    obs.index = pd.Index([f"spot{i}" for i in range(len(obs))])
    obs["region"] = obs["region"].astype("category")
    counts = rng.poisson(2.0, (len(obs), n_genes)).astype(np.float32)
    counts[:, 0] = obs["instance"]
    var = pd.DataFrame({"symbol": [f"symbol{i}" for i in range(n_genes)]}, index=[f"gene{i}" for i in range(n_genes)])
    table = TableModel.parse(
        ad.AnnData(sp.csr_matrix(counts), obs=obs, var=var),
        region=[r.name for r in regions],
        region_key="region",
        instance_key="instance",
    )
    return SpatialData(
        images={r.image_key: r.image_element() for r in regions},
        shapes={r.name: r.spots_element() for r in regions if r.kind != "labels"},
        labels={r.name: r.spots_element() for r in regions if r.kind == "labels"},
        tables={table_key: table},
    )
