"""A small Visium section with a dark mark at each spot, and the files that Space Ranger would write of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from builders import draw_marks
from PIL import Image

PITCH_PX = 40.0
SPOT_DIAMETER_PX = 26.0
HIRES = 0.25
LOWRES = 0.125
N_GENES = 30


@dataclass
class Visium:
    """Spots of a hexagonal array 40 px, that is 100 µm, apart. Expression falls from left to right."""

    n_rows: int = 10
    n_columns: int = 12
    seed: int = 0
    obs: pd.DataFrame = field(init=False)
    xy: np.ndarray = field(init=False)
    image: np.ndarray = field(init=False)
    counts: sp.csr_matrix = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        row, half = np.divmod(np.arange(self.n_rows * self.n_columns), self.n_columns)
        column = 2 * half + row % 2
        self.xy = np.column_stack([60 + column * PITCH_PX / 2, 60 + row * PITCH_PX * np.sqrt(3) / 2])
        barcodes = ["".join(rng.choice(list("ACGT"), 16)) + "-1" for _ in row]
        self.obs = pd.DataFrame({"in_tissue": 1, "array_row": row, "array_col": column}, index=pd.Index(barcodes))
        width, height = (int(side) for side in self.xy.max(axis=0) + 60)
        red = 150 + 100 * np.linspace(0, 1, width)
        marks = draw_marks(width, height, self.xy).astype(float)
        self.image = np.minimum(marks, red).round().astype(np.uint8).transpose(1, 2, 0)
        rate = 3 + np.outer(1 - self.xy[:, 0] / width, np.linspace(-2.5, 10, N_GENES))
        self.counts = sp.csr_matrix(rng.poisson(np.maximum(rate, 0.3)))

    @property
    def genes(self) -> list[str]:
        return [f"GENE{i}" for i in range(self.counts.shape[1])]

    @property
    def scalefactors(self) -> dict[str, float]:
        return {
            "spot_diameter_fullres": SPOT_DIAMETER_PX,
            "fiducial_diameter_fullres": 1.6 * SPOT_DIAMETER_PX,
            "tissue_hires_scalef": HIRES,
            "tissue_lowres_scalef": LOWRES,
        }

    def scaled(self, factor: float) -> np.ndarray:
        size = (round(self.image.shape[1] * factor), round(self.image.shape[0] * factor))
        return np.asarray(Image.fromarray(self.image).resize(size, Image.Resampling.BOX))

    def adata(self, library: str = "liver") -> ad.AnnData:
        """As `scanpy.read_visium` and `squidpy.read.visium` return it."""
        entry = {
            "images": {"hires": self.scaled(HIRES) / np.float32(255), "lowres": self.scaled(LOWRES) / np.float32(255)},
            "scalefactors": self.scalefactors,
            "metadata": {"chemistry_description": "custom", "software_version": "spaceranger-2.1.0"},
        }
        return ad.AnnData(
            self.counts.astype(np.float32),
            obs=self.obs.copy(),
            var=pd.DataFrame({"gene_ids": [f"ENSG{i:011d}" for i in range(N_GENES)]}, index=self.genes),
            obsm={"spatial": self.xy.copy()},
            uns={"spatial": {library: entry}},
        )

    def write(self, folder: Path) -> Path:
        """Write the folder "outs" of Space Ranger 2, with the full-resolution image beside it."""
        (folder / "spatial").mkdir(parents=True)
        self._write_counts(folder / "filtered_feature_bc_matrix.h5")
        positions = self.obs.assign(
            pxl_row_in_fullres=self.xy[:, 1].round().astype(int), pxl_col_in_fullres=self.xy[:, 0].round().astype(int)
        )
        positions.to_csv(folder / "spatial" / "tissue_positions.csv", index_label="barcode")
        (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(self.scalefactors))
        for name, factor in (("hires", HIRES), ("lowres", LOWRES)):
            Image.fromarray(self.scaled(factor)).save(folder / "spatial" / f"tissue_{name}_image.png")
        Image.fromarray(self.image).save(folder / "he.tif")
        return folder

    def _write_counts(self, path: Path) -> None:
        """Write the matrix in 10x's layout: features by barcodes, in columns."""
        with h5py.File(path, "w") as file:
            file.attrs["library_ids"] = np.array([b"liver"])
            matrix = file.create_group("matrix")
            matrix["barcodes"] = self.obs.index.to_numpy().astype("S")
            matrix["data"] = self.counts.data.astype(np.int32)
            matrix["indices"] = self.counts.indices.astype(np.int64)
            matrix["indptr"] = self.counts.indptr.astype(np.int64)
            matrix["shape"] = np.array(self.counts.shape[::-1], dtype=np.int32)
            features = matrix.create_group("features")
            features["_all_tag_keys"] = np.array([b"genome"])
            features["id"] = np.array([f"ENSG{i:011d}" for i in range(N_GENES)]).astype("S")
            features["name"] = np.array(self.genes).astype("S")
            features["feature_type"] = np.array(["Gene Expression"] * N_GENES).astype("S")
            features["genome"] = np.array(["GRCh38"] * N_GENES).astype("S")
