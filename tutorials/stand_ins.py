"""Stand-ins for files and objects of the platforms, drawn by `sthisto.datasets.synthetic`, so that pages can be run.

They have the layout of the real ones. None of their tissue is real.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import geopandas as gpd
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
import shapely
import spatialdata as sd
from PIL import Image
from scipy.spatial import KDTree
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Identity, Scale, get_transformation

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
    with h5py.File(outs / "filtered_feature_bc_matrix.h5", "w") as file:
        file.attrs["library_ids"] = np.array([outs.parent.name.encode()])
        _write_matrix(file.create_group("matrix"), section.table, barcodes)
    x, y = np.rint(section.centers).astype(int).T
    position = section.table.obs[["in_tissue", "array_row", "array_col"]].set_axis(barcodes)
    position.assign(pxl_row_in_fullres=y, pxl_col_in_fullres=x).to_csv(
        outs / "spatial" / "tissue_positions.csv", index_label="barcode"
    )
    diameter = SPOT_UM / section.um_per_px
    scale = {"spot_diameter_fullres": diameter, "fiducial_diameter_fullres": 1.6 * diameter}
    scale |= {"tissue_hires_scalef": HIRES, "tissue_lowres_scalef": LOWRES}
    (outs / "spatial" / "scalefactors_json.json").write_text(json.dumps(scale))
    image = Image.fromarray(section.pixels)
    image.save(outs / "he.tif")
    for name, factor in (("hires", HIRES), ("lowres", LOWRES)):
        image.reduce(round(1 / factor)).save(outs / "spatial" / f"tissue_{name}_image.png")


def _write_matrix(matrix: h5py.Group, table: ad.AnnData, barcodes: list[str]) -> None:
    counts = table.X.tocsr()
    matrix["barcodes"] = np.array(barcodes).astype("S")
    matrix["data"], matrix["indices"] = counts.data.astype(np.int32), counts.indices.astype(np.int64)
    matrix["indptr"], matrix["shape"] = counts.indptr.astype(np.int64), np.array(counts.shape[::-1], dtype=np.int32)
    features = matrix.create_group("features")
    features["_all_tag_keys"] = np.array([b"genome"])
    features["id"] = features["name"] = table.var_names.to_numpy().astype("S")
    features["feature_type"] = np.array(["Gene Expression"] * table.n_vars).astype("S")
    features["genome"] = np.array(["GRCh38"] * table.n_vars).astype("S")


def adata_of_visium(section: Drawn, library: str) -> ad.AnnData:
    """Return what `squidpy.read.visium` reads: positions, the hires image and scale factors in its slots."""
    adata = ad.AnnData(section.table.X, obs=section.table.obs[["in_tissue", "array_row", "array_col"]].copy())
    adata.var_names = section.table.var_names
    adata.obsm["spatial"] = section.centers
    hires = np.asarray(Image.fromarray(section.pixels).reduce(round(1 / HIRES))) / np.float32(255)
    factors = {"spot_diameter_fullres": SPOT_UM / section.um_per_px, "tissue_hires_scalef": HIRES}
    adata.uns["spatial"] = {library: {"images": {"hires": hires}, "scalefactors": factors}}
    return adata


def visium_hd(section: Drawn, name: str, *, bin_um: int = 16, width_um: float = 640.0) -> sd.SpatialData:
    """Return what `spatialdata_io.visium_hd` reads, for the bins of one size in the middle of the section."""
    n = round(width_um / bin_um)
    step = bin_um / section.um_per_px
    corner = np.array(section.pixels.shape[1::-1]) / 2 - n * step / 2
    row, column = (part.ravel() for part in np.mgrid[:n, :n])
    centers = corner + (np.column_stack([column, row]) + 0.5) * step
    squares = shapely.box(*(centers - step / 2).T, *(centers + step / 2).T)
    region = f"{name}_square_{bin_um:03d}um"
    obs = {"array_row": row, "array_col": column, "in_tissue": 1}
    table = _annotate(section.thinned(centers, (bin_um / PITCH_UM) ** 2 * 4), section.table.var, region, **obs)
    return sd.SpatialData(
        images={f"{name}_full_image": _image(section.pixels, {name: Identity()})},
        shapes={region: ShapesModel.parse(gpd.GeoDataFrame(geometry=squares), transformations={name: Identity()})},
        tables={f"square_{bin_um:03d}um": table},
    )


def xenium(section: Drawn, *, n_cells: int = 1500, seed: int = 0) -> sd.SpatialData:
    """Return what `spatialdata_io.xenium` reads, with an aligned H&E: cells in µm, "global" in px of Xenium's image."""
    rng = np.random.default_rng(seed)
    spots = section.centers[rng.integers(len(section.centers), size=n_cells)]
    centers = spots + rng.uniform(-40, 40, (n_cells, 2)) / section.um_per_px
    cells = gpd.GeoDataFrame(geometry=shapely.buffer(shapely.points(centers * section.um_per_px), 5.0))
    about = {"cell_area": cells.area, "transcript_counts": 100}
    axes = ("x", "y")
    to_global = {"global": Scale([1 / XENIUM_UM_PER_PX] * 2, axes=axes)}
    he_to_global = {"global": Scale([section.um_per_px / XENIUM_UM_PER_PX] * 2, axes=axes)}
    return sd.SpatialData(
        images={"he_image": _image(section.pixels, he_to_global)},
        shapes={"cell_boundaries": ShapesModel.parse(cells, transformations=to_global)},
        tables={"table": _annotate(section.thinned(centers, 0.2), section.table.var, "cell_boundaries", **about)},
    )


def _image(pixels: np.ndarray, transformations: dict) -> object:
    return Image2DModel.parse(
        pixels.transpose(2, 0, 1),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        scale_factors=[2, 2],
        transformations=transformations,
    )


def _annotate(counts: sp.csr_matrix, var: pd.DataFrame, region: str, **obs: object) -> ad.AnnData:
    frame = pd.DataFrame({"region": region, "instance_id": np.arange(counts.shape[0]), **obs})
    frame["region"] = frame["region"].astype("category")
    table = ad.AnnData(counts, obs=frame.set_index(frame.index.astype(str)), var=pd.DataFrame(index=var.index))
    return TableModel.parse(table, region=region, region_key="region", instance_key="instance_id")
