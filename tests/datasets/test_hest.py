import json

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from PIL import Image
from tifffile import TiffWriter

import sthisto as sth
from sthisto._images.patches import PatchSpec
from sthisto._sdata.sections import read_sections


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
        np.testing.assert_array_equal(section.centers, adata.obsm["spatial"])
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
    model = sth.tl.fit(sdata, method="color", patch_size=32, patch_um=16.0, shapes_key="X1_spots")
    assert model.patch.um_per_px == 0.5
    sth.tl.predict(sdata, model)


def write_patches(root, name, pixels, adata, *, um_per_px, leave_out=()):
    """Patches as HEST-1k has them: 224 px at 0.5 µm around each spot on tissue, in an order of their own."""
    order = [i for i in np.random.default_rng(5).permutation(adata.n_obs) if i not in leave_out]
    half = round(224 * 0.5 / um_per_px / 2)
    cut = [
        np.pad(pixels, ((half, half), (half, half), (0, 0)))[y : y + 2 * half, x : x + 2 * half]
        for x, y in adata.obsm["spatial"][order]
    ]
    resized = np.stack([np.asarray(Image.fromarray(one).resize((224, 224), Image.Resampling.BICUBIC)) for one in cut])
    (root / "patches").mkdir(exist_ok=True)
    with h5py.File(root / "patches" / f"{name}.h5", "w") as file:
        file["img"] = resized
        file["barcode"] = adata.obs_names.to_numpy()[order].astype("S")[:, None]
        file["coords"] = adata.obsm["spatial"][order] - half
    return dict(zip(order, resized, strict=True))


def test_an_image_is_laid_out_of_patches_where_there_is_no_slide(tmp_path):
    adata, pixels = write_sample(tmp_path, "X1", genes=list("ABC"), um_per_px=3.5)  # 105 µm between spots
    patches = write_patches(tmp_path, "X1", pixels, adata, um_per_px=3.5, leave_out=[0, 9])
    (tmp_path / "wsis" / "X1.tif").unlink()
    sdata = sth.datasets.hest(tmp_path)
    (section,) = read_sections(sdata)
    kept = [i for i in range(adata.n_obs) if i not in (0, 9)]
    np.testing.assert_array_equal(sdata["counts"].X.toarray(), adata.X.toarray()[kept])
    assert section.um_per_px == 0.5
    assert section.diameter * 0.5 == pytest.approx(22 * 3.5)
    between = np.diff(section.centers, axis=0) * 0.5
    np.testing.assert_allclose(between, np.diff(adata.obsm["spatial"][kept], axis=0) * 3.5, atol=0.5)
    (source,) = section.patches(PatchSpec(size=224, um_per_px=0.5))
    read = source.read()
    for row, i in enumerate(kept):
        inner = slice(14, -14)  # beyond, patches of neighbors overlap
        np.testing.assert_array_equal(read[row][inner, inner], patches[i][inner, inner])


def test_a_slide_goes_before_patches_and_foreign_patches_are_an_error(tmp_path):
    adata, pixels = write_sample(tmp_path, "X1", genes=list("AB"))
    write_patches(tmp_path, "X1", pixels, adata, um_per_px=0.7)
    assert sth.datasets.hest(tmp_path)["X1_image"].shape == (3, 224, 288)
    (tmp_path / "wsis" / "X1.tif").unlink()
    with h5py.File(tmp_path / "patches" / "X1.h5", "a") as file:
        file["barcode"][:] = b"other"
    with pytest.raises(ValueError, match=r"No patch of .*X1\.h5 belongs to a spot of sample 'X1': it names 'other'"):
        sth.datasets.hest(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"MahmoodLab/hest.*wsis/<id>\.tif or patches/<id>\.h5"):
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
