"""Time `pl.gene_compare` on many spots against the same scatter in plain matplotlib.

    python benchmarks/plot_spots.py [--spots 50000] [--repeats 3]

Both draw measured and predicted values of one gene over the same H&E, rasterised, and save a PDF. What is printed is
the median of the repeats, in seconds; the difference must stay under 3 s for 50,000 spots.
"""

from __future__ import annotations

import argparse
import time
from io import BytesIO

import anndata as ad
import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import spatialdata as sd
from scipy.sparse import csr_matrix
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Identity

import sthisto as sth

PITCH, RADIUS = 10, 3


def make(n_spots: int) -> sd.SpatialData:
    """One section of `n_spots` spots on a square lattice, with counts and a prediction of three genes."""
    rng = np.random.default_rng(0)
    columns = int(np.ceil(np.sqrt(n_spots)))
    centers = np.stack(np.meshgrid(np.arange(columns), np.arange(columns)), -1).reshape(-1, 2)[:n_spots]
    size = (columns + 2) * PITCH
    counts = rng.poisson(4, (n_spots, 3)).astype(np.float32)
    obs = pd.DataFrame({"region": pd.Categorical(["spots"] * n_spots), "instance": np.arange(n_spots)})
    table = ad.AnnData(
        csr_matrix(counts), obs=obs.set_index(obs.index.astype(str)), var=pd.DataFrame(index=list("ABC"))
    )
    table.layers["sthisto_pred"] = np.log1p(counts + rng.normal(0, 0.3, counts.shape).clip(-0.9)).astype(np.float32)
    table.var["sthisto_gene"] = True
    table.uns["sthisto"] = {
        "method": "danet",
        "gene_symbols": "",
        "normalization": {"target": "log1p", "layer": "X", "target_sum": 1e4},
    }
    image = rng.integers(180, 250, (3, size, size), dtype=np.uint8)
    where = {"slide": Identity()}
    return sd.SpatialData.init_from_elements(
        {
            "image": Image2DModel.parse(image, dims=("c", "y", "x"), transformations=where, scale_factors=[2, 2]),
            "spots": ShapesModel.parse(centers * PITCH + 1.5 * PITCH, geometry=0, radius=RADIUS, transformations=where),
            "table": TableModel.parse(table, region="spots", region_key="region", instance_key="instance"),
        }
    )


def ours(sdata: sd.SpatialData) -> plt.Figure:
    """Draw with sthisto."""
    return sth.pl.gene_compare(sdata, "A")


def plain(sdata: sd.SpatialData) -> plt.Figure:
    """Draw the same panels with `Axes.scatter` alone."""
    table = sdata["table"]
    xy = np.stack([sdata["spots"].geometry.x, sdata["spots"].geometry.y], axis=1)
    picture = np.moveaxis(np.asarray(sdata["image"]["scale1"]["image"].data), 0, -1)
    counts = table.X.toarray()
    measured = np.log1p(counts[:, 0] / counts.sum(axis=1).clip(1) * 1e4)
    figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.6))
    width = 2 * picture.shape[0]
    points = 2 * RADIUS / width * axes[0].get_position().width * 7.2 * 72
    for ax, values in zip(axes, [measured, table.layers["sthisto_pred"][:, 0], None], strict=True):
        ax.imshow(picture, extent=(0, width, width, 0), alpha=1 if values is None else 0.4)
        if values is not None:
            drawn = ax.scatter(*xy.T, c=values, s=points**2, linewidths=0, rasterized=True)
            figure.colorbar(drawn, ax=ax)
    return figure


def seconds(draw, sdata: sd.SpatialData, repeats: int) -> float:
    """Return the median time to draw and save."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        figure = draw(sdata)
        figure.savefig(BytesIO(), format="pdf", dpi=300)
        taken.append(time.perf_counter() - start)
        plt.close(figure)
    return float(np.median(taken[1:]))  # the first one imports and fills caches


def main() -> None:
    """Print both times and their difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spots", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    sdata = make(arguments.spots)
    scatter, compare = (seconds(draw, sdata, arguments.repeats) for draw in (plain, ours))
    print(f"{arguments.spots} spots: matplotlib scatter {scatter:.2f} s, gene_compare {compare:.2f} s")
    print(f"difference {compare - scatter:+.2f} s")


if __name__ == "__main__":
    main()
