"""Stand-ins for files and objects of the platforms, drawn by `sthisto.datasets.synthetic`, so that pages can be run.

They have the layout of the real ones. None of their tissue is real.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
import spatialdata as sd
from PIL import Image
from scipy.spatial import KDTree
from spatialdata.transformations import get_transformation
from tifffile import imwrite

import sthisto as sth

PITCH_UM = 100.0
SPOT_UM = 55.0
XENIUM_UM_PER_PX = 0.2125
HIRES, LOWRES = 0.1, 0.05


@dataclass(frozen=True)
class Drawn:
    """One synthetic section: `pixels` (height, width, 3), `centers` (n_spots, 2) x and y in px, and its rows."""

    pixels: np.ndarray
    um_per_px: float
    centers: np.ndarray
    table: ad.AnnData

    def thinned(self, places: np.ndarray, share: float, seed: int = 0) -> sp.csr_matrix:
        """Return counts at other places: a share of those of the nearest spot."""
        _, nearest = KDTree(self.centers).query(places)
        counts = self.table.X[nearest].tocsr()
        counts.data = np.random.default_rng(seed).binomial(counts.data.astype(int), share).astype(np.float32)
        counts.eliminate_zeros()
        return counts


def draw(n_spots: int = 200, *, seed: int = 0, um_per_px: float = 0.8, n_sections: int = 1) -> list[Drawn]:
    """Draw sections, each of another patient."""
    sdata = sth.datasets.synthetic(
        n_sections=n_sections, n_patients=n_sections, n_spots=n_spots, um_per_px=um_per_px, seed=seed
    )
    return [_drawn(sdata, f"S{number + 1}", um_per_px) for number in range(n_sections)]


def _drawn(sdata: sd.SpatialData, name: str, um_per_px: float) -> Drawn:
    image = sdata[f"{name}_image"]
    to_um = get_transformation(image, name).to_affine_matrix(("x", "y"), ("x", "y"))
    circles = sd.transform(sdata[f"{name}_spots"], to_coordinate_system=name).geometry
    um = np.column_stack([circles.x, circles.y, np.ones(len(circles))])
    table = sdata["expression"]
    table = table[table.obs["region"] == f"{name}_spots"]
    pixels = np.asarray(image["scale0"]["image"]).transpose(1, 2, 0)
    centers = np.linalg.solve(to_um, um.T).T[:, :2]
    return Drawn(pixels, um_per_px, centers[table.obs["spot_id"].to_numpy()], table.copy())


def write_space_ranger(section: Drawn, outs: Path) -> None:
    """Write the folder `outs` of Space Ranger 2, with the full-resolution image `he.tif` in it."""
    (outs / "spatial").mkdir(parents=True)
    barcodes = [f"{i:016d}-1" for i in range(len(section.table))]
    counts, genes = section.table.X.tocsr(), section.table.var_names
    _write_counts(outs / "filtered_feature_bc_matrix.h5", counts, genes, barcodes, outs.parent.name)
    x, y = np.rint(section.centers).astype(int).T
    position = section.table.obs[["in_tissue", "array_row", "array_col"]].set_axis(barcodes)
    position.assign(pxl_row_in_fullres=y, pxl_col_in_fullres=x).to_csv(
        outs / "spatial" / "tissue_positions.csv", index_label="barcode"
    )
    diameter = SPOT_UM / section.um_per_px
    scale = {"spot_diameter_fullres": diameter, "fiducial_diameter_fullres": 1.6 * diameter}
    _write_overviews(section, outs / "spatial", scale)
    Image.fromarray(section.pixels).save(outs / "he.tif")


def _write_overviews(section: Drawn, folder: Path, scale: dict[str, float]) -> None:
    scale = scale | {"tissue_hires_scalef": HIRES, "tissue_lowres_scalef": LOWRES}
    (folder / "scalefactors_json.json").write_text(json.dumps(scale))
    image = Image.fromarray(section.pixels)
    for name, factor in (("hires", HIRES), ("lowres", LOWRES)):
        image.reduce(round(1 / factor)).save(folder / f"tissue_{name}_image.png")


def _write_counts(path: Path, counts: sp.csr_matrix, genes: pd.Index, barcodes: list[str], library: str) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["library_ids"] = np.array([library.encode()])
        matrix = file.create_group("matrix")
        matrix["barcodes"] = np.array(barcodes).astype("S")
        matrix["data"], matrix["indices"] = counts.data.astype(np.int32), counts.indices.astype(np.int64)
        matrix["indptr"], matrix["shape"] = counts.indptr.astype(np.int64), np.array(counts.shape[::-1], dtype=np.int32)
        features = matrix.create_group("features")
        features["_all_tag_keys"] = np.array([b"genome"])
        features["id"] = features["name"] = genes.to_numpy().astype("S")
        features["feature_type"] = np.array(["Gene Expression"] * len(genes)).astype("S")
        features["genome"] = np.array(["GRCh38"] * len(genes)).astype("S")


def adata_of_visium(section: Drawn, library: str) -> ad.AnnData:
    """Return what `squidpy.read.visium` reads: positions, the hires image and scale factors in its slots."""
    adata = ad.AnnData(section.table.X, obs=section.table.obs[["in_tissue", "array_row", "array_col"]].copy())
    adata.var_names = section.table.var_names
    adata.obsm["spatial"] = section.centers
    hires = np.asarray(Image.fromarray(section.pixels).reduce(round(1 / HIRES))) / np.float32(255)
    factors = {"spot_diameter_fullres": SPOT_UM / section.um_per_px, "tissue_hires_scalef": HIRES}
    adata.uns["spatial"] = {library: {"images": {"hires": hires}, "scalefactors": factors}}
    return adata


def write_visium_hd(section: Drawn, outs: Path, *, bin_um: int = 16, width_um: float = 640.0) -> None:
    """Write the folder `outs` of Space Ranger 3 with the bins of one size, and the image `he.tif` beside it."""
    n = round(width_um / bin_um)
    step = bin_um / section.um_per_px
    corner = np.array(section.pixels.shape[1::-1]) / 2 - n * step / 2
    row, column = (part.ravel() for part in np.mgrid[:n, :n])
    centers = corner + (np.column_stack([column, row]) + 0.5) * step
    barcodes = [f"s_{bin_um:03d}um_{r:05d}_{c:05d}-1" for r, c in zip(row, column, strict=True)]
    bins = outs / "binned_outputs" / f"square_{bin_um:03d}um"
    (bins / "spatial").mkdir(parents=True)
    counts = section.thinned(centers, (bin_um / PITCH_UM) ** 2 * 4)
    _write_counts(bins / "filtered_feature_bc_matrix.h5", counts, section.table.var_names, barcodes, "colon")
    positions = {"barcode": barcodes, "in_tissue": 1, "array_row": row, "array_col": column}
    positions |= {"pxl_row_in_fullres": centers[:, 1], "pxl_col_in_fullres": centers[:, 0]}
    pd.DataFrame(positions).to_parquet(bins / "spatial" / "tissue_positions.parquet")
    scale = {"spot_diameter_fullres": step, "bin_size_um": bin_um, "microns_per_pixel": section.um_per_px}
    _write_overviews(section, bins / "spatial", scale)
    Image.fromarray(section.pixels).save(outs.parent / "he.tif")


def write_cells_of_visium_hd(section: Drawn, outs: Path, *, n_cells: int = 1200, seed: int = 0) -> None:
    """Write the folder `segmented_outputs` of Space Ranger 4 into `outs`."""
    folder = outs / "segmented_outputs"
    (folder / "spatial").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    spots = section.centers[rng.integers(len(section.centers), size=n_cells)]
    moved = spots + rng.uniform(-40, 40, (n_cells, 2)) / section.um_per_px
    centers = np.clip(moved, 20, np.array(section.pixels.shape[1::-1]) - 20)
    barcodes = [f"cellid_{number:09d}-1" for number in range(1, n_cells + 1)]
    counts, genes = section.thinned(centers, 0.2), section.table.var_names
    _write_counts(folder / "filtered_feature_cell_matrix.h5", counts, genes, barcodes, "colon")
    angle = np.linspace(0, 2 * np.pi, 13)
    circle = 5 / section.um_per_px * np.column_stack([np.cos(angle), np.sin(angle)])
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [np.round(center + circle, 1).tolist()]},
            "properties": {"cell_id": number},
        }
        for number, center in enumerate(centers, start=1)
    ]
    (folder / "cell_segmentations.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    _write_overviews(section, folder / "spatial", {"microns_per_pixel": section.um_per_px})


def write_xenium(section: Drawn, run: Path, *, n_cells: int = 1500, seed: int = 0) -> None:
    """Write the folder of a Xenium run, and the H&E image with its alignment beside it."""
    run.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    spots = section.centers[rng.integers(len(section.centers), size=n_cells)]
    centers = spots + rng.uniform(-40, 40, (n_cells, 2)) / section.um_per_px
    ids = [f"{i:08d}-1" for i in range(n_cells)]
    counts = section.thinned(centers, 0.2)
    _write_counts(run / "cell_feature_matrix.h5", counts, section.table.var_names, ids, run.name)
    x, y = (centers * section.um_per_px).T
    about = {"cell_id": ids, "x_centroid": x, "y_centroid": y, "cell_area": np.pi * 25}
    pd.DataFrame(about).to_parquet(run / "cells.parquet")
    angle = np.linspace(0, 2 * np.pi, 13)
    vertices = {
        "vertex_x": (x[:, None] + 5 * np.cos(angle)).ravel(),
        "vertex_y": (y[:, None] + 5 * np.sin(angle)).ravel(),
    }
    pd.DataFrame({"cell_id": np.repeat(ids, 13), **vertices}).to_parquet(run / "cell_boundaries.parquet")
    (run / "experiment.xenium").write_text(json.dumps({"pixel_size": XENIUM_UM_PER_PX, "region_name": run.name}))
    imwrite(run.parent / "he_image.ome.tif", section.pixels, photometric="rgb")
    scale = section.um_per_px / XENIUM_UM_PER_PX
    np.savetxt(run.parent / "he_imagealignment.csv", np.diag([scale, scale, 1.0]), delimiter=",")
