import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tifffile import TiffWriter

import sthisto as sth
from sthisto._sections import read_sections


def write_sample(root, name, *, genes, seed=0, um_per_px=0.7, **metadata):
    """A sample as HEST-1k has it: st/<id>.h5ad, a pyramidal tiled TIFF of the slide, and its metadata."""
    rng = np.random.default_rng(seed)
    for folder in ("st", "wsis", "metadata"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    x, y = np.meshgrid(np.arange(40, 260, 30), np.arange(40, 160, 30))
    xy = np.column_stack([x.ravel(), y.ravel()])
    adata = ad.AnnData(
        sp.csr_matrix(rng.poisson(4, (len(xy), len(genes))).astype(np.float32)),
        obs=pd.DataFrame({"in_tissue": 1}, index=[f"{i}x{j}" for i, j in xy]),
        var=pd.DataFrame(index=list(genes)),
        obsm={"spatial": xy},
        uns={"spatial": {"ST": {"images": {}, "scalefactors": {"spot_diameter_fullres": 22.0}}}},
    )
    adata.write_h5ad(root / "st" / f"{name}.h5ad")
    pixels = rng.integers(0, 255, (224, 288, 3), dtype=np.uint8)
    with TiffWriter(root / "wsis" / f"{name}.tif") as tiff:
        tiff.write(pixels, tile=(64, 64), photometric="rgb", subifds=1)
        tiff.write(pixels[::2, ::2], tile=(64, 64), photometric="rgb", subfiletype=1)
    about = {"pixel_size_um_estimated": um_per_px, **metadata}
    (root / "metadata" / f"{name}.json").write_text(json.dumps(about))
    return adata, pixels


def test_samples_keep_pixels_counts_and_resolution(tmp_path):
    written = {
        "TENX1": write_sample(tmp_path, "TENX1", genes=["A", "B"], dataset_title="D", patient="1"),
        "NCBI2": write_sample(
            tmp_path, "NCBI2", genes=["B", "C"], seed=1, um_per_px=0.4, dataset_title="D", patient="1"
        ),
        "SPA3": write_sample(tmp_path, "SPA3", genes=["A"], seed=2, dataset_title="E", patient=None),
        "SPA4": write_sample(tmp_path, "SPA4", genes=["A"], seed=3, dataset_title="E"),
    }
    sdata = sth.datasets.hest(tmp_path)
    table = sdata["counts"]
    for section in read_sections(sdata):
        name = section.region.removesuffix("_spots")
        adata, pixels = written[name]
        np.testing.assert_array_equal(section.centres, adata.obsm["spatial"])
        assert section.um_per_px == pytest.approx(0.4 if name == "NCBI2" else 0.7)
        assert section.diameter == pytest.approx(22)
        for gene in table.var_names:
            expected = adata[:, gene].X.toarray()[:, 0] if gene in adata.var_names else 0
            np.testing.assert_array_equal(table[section.rows, gene].X.toarray()[:, 0], expected)
        np.testing.assert_array_equal(sdata[f"{name}_image"].to_numpy(), pixels.transpose(2, 0, 1))
    patients = table.obs.groupby("section", observed=True)["patient"].first().to_dict()
    assert patients == {"TENX1": "D: 1", "NCBI2": "D: 1", "SPA3": "E: unnamed", "SPA4": "E: unnamed"}
    assert table.var["n_sections"].to_dict() == {"A": 3, "B": 2, "C": 1}


def test_patches_are_cut_at_one_resolution(tmp_path):
    write_sample(tmp_path, "X1", genes=list("ABCD"), dataset_title="D", patient="1")
    write_sample(tmp_path, "X2", genes=list("ABCD"), seed=1, dataset_title="D", patient="2")
    sdata = sth.datasets.hest(tmp_path)
    model = sth.tl.fit(sdata, method="colour", patch_size=32, patch_um=16.0, shapes_key="X1_spots")
    assert model.patch.um_per_px == 0.5
    sth.tl.predict(sdata, model)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"MahmoodLab/hest.*wsis/<id>\.tif"):
        sth.datasets.hest(tmp_path)
    write_sample(tmp_path, "X1", genes=["A"])
    with pytest.raises(KeyError, match=r"'X2'.*Available: 'X1'"):
        sth.datasets.hest(tmp_path, samples=["X2"])
    (tmp_path / "wsis" / "X1.tif").rename(tmp_path / "X1.tif")
    with pytest.raises(FileNotFoundError, match=r"'X1' lacks .*wsis.*X1\.tif"):
        sth.datasets.hest(tmp_path)
    (tmp_path / "X1.tif").rename(tmp_path / "wsis" / "X1.tif")
    (tmp_path / "metadata" / "X1.json").write_text("{}")
    with pytest.raises(KeyError, match="pixel_size_um_estimated"):
        sth.datasets.hest(tmp_path)
