from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Scale, Sequence, Translation

GENES = ["FN1", "GNAS", "SCD", "KRT8", "COL1A1", "CD74", "ERBB2", "MUC1"]
UM_PER_PX = 2.0
PITCH, RADIUS = 40, 12
GRID = {"left": (14, 10), "right": (9, 12)}  # columns, rows of spots


def _section(name: str, rng: np.random.Generator, offset: int) -> tuple[dict, ad.AnnData]:
    """A section whose lower right half is tumor, in an image that is violet there and pink elsewhere."""
    columns, rows = GRID[name]
    width, height = (columns + 2) * PITCH, (rows + 2) * PITCH
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    tumor = x / width + y / height > 1
    picture = np.where(tumor[..., None], [120, 80, 160], [235, 190, 210]) + rng.normal(0, 8, (height, width, 1))
    in_um = Sequence([Scale([UM_PER_PX, UM_PER_PX], axes=("x", "y")), Translation([offset, 100], axes=("x", "y"))])
    image = Image2DModel.parse(
        np.moveaxis(picture.clip(0, 255).astype(np.uint8), -1, 0),
        dims=("c", "y", "x"),
        transformations={f"{name}_um": in_um},
        scale_factors=[2],
    )
    centers = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2) * PITCH + 1.5 * PITCH
    instances = rng.permutation(len(centers)) + offset
    shapes = ShapesModel.parse(
        centers, geometry=0, radius=RADIUS, index=instances, transformations={f"{name}_um": in_um}
    )
    within = tumor[centers[:, 1].astype(int), centers[:, 0].astype(int)]
    mean = np.exp(rng.normal(1, 0.6, len(GENES))) * np.where(within[:, None], np.linspace(3, 0.4, len(GENES)), 1)
    counts = rng.poisson(mean * rng.gamma(8, 1 / 8, (len(centers), 1)) * 3)
    obs = pd.DataFrame({"region": name, "instance": instances, "annotation": np.where(within, "tumor", "stroma")})
    obs.index = [f"{name}_{i}" for i in instances]
    table = ad.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=GENES))
    return {f"{name}_image": image, name: shapes}, table


def write_prediction(table: ad.AnnData, key: str, noise: float, seed: int = 0, method: str = "danet") -> None:
    """Write what `tl.predict` writes: the measurement with noise."""
    rng = np.random.default_rng(seed)
    counts = table.X.toarray()
    truth = np.log1p(counts / counts.sum(axis=1, keepdims=True).clip(1) * 1e4)
    sd = np.full(truth.shape, noise, dtype=np.float32) * rng.uniform(0.5, 1.5, (len(truth), 1)).astype(np.float32)
    table.layers[f"{key}_pred"] = (0.3 * truth.mean(axis=0) + 0.7 * truth + rng.normal(0, sd)).astype(np.float32)
    table.layers[f"{key}_pred_sd"] = sd
    table.obs[f"{key}_confidence"] = 1 / (1 + sd[:, 0])
    table.obs[f"{key}_seen"] = (table.obs["region"] == "right").astype(np.float32)
    table.var[f"{key}_gene"] = True
    table.uns[key] = {
        "method": method,
        "version": "0.1.0",
        "parameters": {"seed": seed},
        "normalization": {"target": "log1p", "layer": "X", "target_sum": 1e4},
        "gene_symbols": "",
        "siblings": pd.DataFrame({"gene": GENES, "component_0": np.linspace(1, -1, len(GENES))}),
        "history": pd.DataFrame({"epoch": range(5), "train_loss": [5, 4, 3, 2, 1.0], "val_loss": [5, 3, 2, 2.5, 3]}),
    }


@pytest.fixture(scope="session")
def _sdata() -> sd.SpatialData:
    rng = np.random.default_rng(0)
    elements, tables = {}, []
    for name, offset in (("left", 0), ("right", 5000)):
        part, table = _section(name, rng, offset)
        elements |= part
        tables.append(table)
    table = ad.concat(tables)
    table = table[rng.permutation(len(table))].copy()
    table.obs["region"] = pd.Categorical(table.obs["region"])
    table.obs["sthisto_split"] = pd.Categorical(np.where(table.obs["region"] == "left", "test", "train"))
    write_prediction(table, "sthisto", 0.3)
    write_prediction(table, "bleep", 0.8, seed=1, method="bleep")
    table = TableModel.parse(table, region=["left", "right"], region_key="region", instance_key="instance")
    sdata = sd.SpatialData.init_from_elements({**elements, "spots": table})
    sdata.attrs["sthisto"] = {"um_per_unit": {"left_um": 1.0, "right_um": 1.0}}
    return sdata


@pytest.fixture
def sdata(_sdata: sd.SpatialData) -> sd.SpatialData:
    """Two sections of one table, with predictions under "sthisto" (good) and "bleep" (worse)."""
    copy = sd.SpatialData.init_from_elements({name: e for _, name, e in _sdata.gen_elements() if name != "spots"})
    copy["spots"] = _sdata["spots"].copy()
    copy.attrs.update(_sdata.attrs)
    return copy


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")
