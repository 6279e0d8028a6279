"""Tiny sections and models that `break_it.py` breaks, and the digests that tell whether a result is the same."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import sthisto as sth

PATCH = 16
GENES = 12
SMALL: dict[str, Any] = {"patch_size": PATCH, "genes": [f"GENE{i}" for i in range(GENES)]}
DANET: dict[str, Any] = {"k": 5, "max_epochs": 4, "batch_size": 8, "embedding_dim": 8, "bottleneck": 4, "patience": 9}


class Filters(nn.Module):
    """An image encoder that can be trained: eight filters, averaged."""

    def __init__(self) -> None:
        super().__init__()
        with sth.models.seeded(0):
            self.filters = nn.Conv2d(3, 8, 3, stride=2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return features (n, 8) of pixels (n, 3, size, size)."""
        return self.filters(pixels).relu().mean((2, 3))


def make_sections(seed: int = 0) -> Any:
    """Return two sections of 36 spots whose genes follow the color of the tissue."""
    import anndata as ad
    import pandas as pd
    import spatialdata as sd
    from spatialdata.models import Image2DModel, ShapesModel, TableModel

    rng = np.random.default_rng(seed)
    centers = np.stack(np.meshgrid(*[np.arange(6) * 20.0 + 18] * 2), -1).reshape(-1, 2)
    images, shapes, counts, obs = {}, {}, [], []
    for name in ("A", "B"):
        pixels, shade = np.full((3, 140, 140), 235, np.uint8), rng.random(len(centers))
        for (x, y), value in zip(centers.astype(int), shade, strict=True):
            pixels[:, y - 10 : y + 10, x - 10 : x + 10] = [[[int(220 - 150 * value)]], [[120]], [[180]]]
        noise = rng.integers(0, 12, pixels.shape).astype(np.uint8)
        transformation = {name: sd.transformations.Identity()}
        images[f"{name}_image"] = Image2DModel.parse(
            pixels + noise, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=transformation
        )
        shapes[name] = ShapesModel.parse(centers, geometry=0, radius=8.0, transformations=transformation)
        rate = np.where(np.arange(GENES) < GENES // 2, 5 + 40 * shade[:, None], 20)
        counts.append(rng.poisson(rate).astype(np.float32))
        columns = {"region": name, "instance": np.arange(len(centers)), "section": name, "patient": name}
        obs.append(pd.DataFrame(columns, index=[f"{name}{i}" for i in range(len(centers))]))
    rows = pd.concat(obs).astype({"region": "category"})
    table = ad.AnnData(np.concatenate(counts), obs=rows, var=pd.DataFrame(index=SMALL["genes"]))
    table = TableModel.parse(table, region=["A", "B"], region_key="region", instance_key="instance")
    sdata = sd.SpatialData(images=images, shapes=shapes, tables={"counts": table})
    sdata.attrs["sthisto"] = {"um_per_unit": {"A": 4.0, "B": 4.0}}
    return sdata


def digest(*arrays: Any) -> str:
    """Return what changes with any bit of arrays."""
    state = hashlib.sha256()
    for array in arrays:
        values = np.ascontiguousarray(array)
        state.update(f"{values.dtype}{values.shape}".encode() + values.tobytes())
    return state.hexdigest()


def model_digest(model: Any) -> str:
    """Return what changes with any bit of what a model has learned."""
    state = model.state() | {f"bank.{name}": value for name, value in model.bank_state().items()}
    return digest(*(state[name].numpy() for name in sorted(state)))


def folder_listing(folder: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of change of everything below a folder."""
    entries = ((path, path.lstat()) for path in sorted(folder.rglob("*")))
    return [(str(path), about.st_size, about.st_mtime_ns) for path, about in entries]
