"""A path of any kind, read without a further argument."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
import warnings

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image
from slides import write_aperio
from tifffile import imwrite
from visium import PITCH_PX, Visium

import sthisto as sth
from sthisto._sdata.sections import read_sections

UM = 100 / PITCH_PX
XENIUM_UM = 0.2125


def spots_are_marked(section, size: int = 9) -> bool:
    (patches,) = section.patches(sth.models.PatchSpec(size=size, um_per_px=section.um_per_px))
    return bool((patches.read()[:, size // 2, size // 2].mean(axis=-1) < 200).all())


@pytest.fixture
def outs(visium, tmp_path):
    return visium.write(tmp_path / "P1" / "outs")


def as_version(outs, version: int):
    """Turn the folder of Space Ranger 2 into that of another version."""
    positions, factors = outs / "spatial" / "tissue_positions.csv", outs / "spatial" / "scalefactors_json.json"
    if version == 1:
        table = pd.read_csv(positions)
        table.to_csv(outs / "spatial" / "tissue_positions_list.csv", header=False, index=False)
        positions.unlink()
    if version == 3:
        pd.read_csv(positions).to_parquet(outs / "spatial" / "tissue_positions.parquet")
        positions.unlink()
    if version == 4:
        factors.write_text(json.dumps(json.loads(factors.read_text()) | {"regist_target_img_scalef": 0.1}))


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_spots_of_every_space_ranger_lie_on_the_full_image(outs, version, caplog, visium):
    as_version(outs, version)
    with caplog.at_level(logging.INFO, "sthisto"):
        sdata = sth.io.read(outs)
    assert "is a Visium run" in caplog.text
    assert "The full-resolution image is" in caplog.text
    (section,) = read_sections(sdata)
    assert section.image_key == "P1_full_image"
    assert section.um_per_px == pytest.approx(UM, rel=0.01)
    assert len(section) == len(visium.obs)
    assert spots_are_marked(section)
    assert sdata.tables["table"].obsm["spatial"].shape == (len(visium.obs), 2)


def test_a_run_is_found_from_the_folder_around_outs_and_fitted(outs, tmp_path):
    assert "P1_full_image" in sth.io.read(outs / "filtered_feature_bc_matrix.h5").images
    sdata = sth.io.read(outs.parent, name="liver")
    model = sth.tl.fit(sdata, method="color", genes=["GENE0", "GENE1"], patch_size=32)
    sth.tl.predict(sdata, model)
    sdata.write(tmp_path / "run.zarr")
    assert list(sth.io.read(tmp_path / "run.zarr").shapes) == ["liver_spots"]


def test_an_image_elsewhere_is_named_and_a_missing_one_is_warned_of(outs, tmp_path, caplog):
    shutil.move(outs / "he.tif", tmp_path / "scan.tif")
    with caplog.at_level(logging.WARNING, "sthisto"):
        sdata = sth.io.read(outs)
    assert "no full-resolution image" in caplog.text
    assert list(sdata.images) == ["P1_hires_image"]
    (section,) = read_sections(sth.io.read(outs, image=tmp_path / "scan.tif"))
    assert section.image_key == "P1_full_image"


def test_the_image_of_the_cytassist_is_used_where_it_is_that_of_the_full_resolution(outs, visium, caplog):
    cytassist = outs / "spatial" / "cytassist_image.tiff"
    Image.fromarray(visium.image[:300, :300]).save(cytassist)
    with caplog.at_level(logging.INFO, "sthisto"):
        assert "P1_full_image" in sth.io.read(outs).images
    assert f"The full-resolution image is {outs / 'he.tif'}" in caplog.text
    (outs / "he.tif").unlink()
    assert list(sth.io.read(outs).images) == ["P1_hires_image"]
    Image.fromarray(visium.image).save(cytassist)
    with caplog.at_level(logging.INFO, "sthisto"):
        (section,) = read_sections(sth.io.read(outs))
    assert section.image_key == "P1_full_image"
    assert f"The full-resolution image is {cytassist}" in caplog.text


def test_counts_of_all_barcodes_are_read_by_their_path(outs, visium):
    raw = (outs / "filtered_feature_bc_matrix.h5").rename(outs / "raw_feature_bc_matrix.h5")
    with pytest.raises(FileNotFoundError, match=r"Pass the path of 'raw_feature_bc_matrix\.h5' to read others"):
        sth.io.read(outs)
    spoil_positions(outs, lambda table: table.assign(in_tissue=np.arange(len(table)) % 2))
    (section,) = read_sections(sth.io.read(raw))
    assert section.rows.tolist() == list(range(1, len(visium.obs), 2))


def test_images_of_another_size_are_not_taken(outs):
    Image.fromarray(np.full((50, 70, 3), 200, dtype=np.uint8)).save(outs / "another.png")
    assert "P1_full_image" in sth.io.read(outs).images


def test_an_image_of_another_size_that_is_given_is_refused(outs):
    with pytest.raises(ValueError, match="size of the overview itself"):
        sth.io.read(outs, image=outs / "spatial" / "tissue_hires_image.png")


def test_counts_of_several_samples_are_told_apart(outs, visium):
    plain = outs / "filtered_feature_bc_matrix.h5"
    for name in "AB":
        shutil.copy(plain, outs / f"GSM_{name}_filtered_feature_bc_matrix.h5")
    plain.unlink()
    with pytest.raises(ValueError, match=r"counts of several samples: 'GSM_A.*', 'GSM_B"):
        sth.io.read(outs)
    visium.counts = 2 * visium.counts
    (outs / "GSM_B_filtered_feature_bc_matrix.h5").unlink()
    visium._write_counts(outs / "GSM_B_filtered_feature_bc_matrix.h5")
    sdata = sth.io.read(outs / "GSM_B_filtered_feature_bc_matrix.h5")
    assert list(sdata.shapes) == ["GSM_B_spots"]
    np.testing.assert_array_equal(sdata.tables["table"].X.toarray(), visium.counts.toarray())


def spoil_positions(outs, change):
    path = outs / "spatial" / "tissue_positions.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)


def spoil_factor(outs, value):
    path = outs / "spatial" / "scalefactors_json.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tissue_hires_scalef": value}))


SPOILED = {
    "more than once": lambda outs: spoil_positions(outs, lambda table: pd.concat([table, table[:3]])),
    "names none of the spots": lambda outs: spoil_positions(
        outs, lambda table: table.assign(barcode=table["barcode"].str[:-2])
    ),
    "lacks the columns 'array_row'": lambda outs: spoil_positions(outs, lambda table: table.drop(columns="array_row")),
    "lacks spatial/scalefactors_json.json": lambda outs: (outs / "spatial" / "scalefactors_json.json").unlink(),
    "scalefactors_json.json can't be read": lambda outs: (outs / "spatial" / "scalefactors_json.json").write_text("{"),
    "scalefactors_json.json gives 'tissue_hires_scalef' as 'NaN'": lambda outs: spoil_factor(outs, "NaN"),
    "scalefactors_json.json gives 'tissue_hires_scalef' as 'a quarter'": lambda outs: spoil_factor(outs, "a quarter"),
    "scalefactors_json.json gives 'tissue_hires_scalef' as 0": lambda outs: spoil_factor(outs, 0),
    "scalefactors_json.json holds list": lambda outs: (outs / "spatial" / "scalefactors_json.json").write_text("[1]"),
    "bc_matrix.h5 can't be read": lambda outs: (outs / "filtered_feature_bc_matrix.h5").write_bytes(b"no HDF5"),
}


@pytest.mark.parametrize("words", SPOILED)
def test_damaged_runs_are_refused_by_the_name_of_the_file(outs, words):
    SPOILED[words](outs)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        sth.io.read(outs)


def test_scale_factors_of_text_are_numbers_and_null_is_missing(outs, visium):
    path = outs / "spatial" / "scalefactors_json.json"
    factors = {"tissue_hires_scalef": "0.25", "tissue_lowres_scalef": None}
    path.write_text(json.dumps(json.loads(path.read_text()) | factors))
    (section,) = read_sections(sth.io.read(outs))
    np.testing.assert_allclose(section.centers, visium.xy, atol=0.5)


@pytest.fixture
def visium_hd(tmp_path):
    """Bins of 8 and 16 µm at 0.5 µm per px, as Space Ranger 3 and 4 write them."""
    outs = tmp_path / "CRC" / "outs"
    for um in (8, 16):
        section = Visium()
        px = um / 0.5
        row, column = (one.ravel() for one in np.mgrid[:8, :10])
        section.obs = pd.DataFrame(
            {"in_tissue": 1, "array_row": row, "array_col": column},
            index=[f"s_{um:03d}um_{r:05d}_{c:05d}-1" for r, c in zip(row, column, strict=True)],
        )
        section.xy = np.column_stack([30 + (column + 0.5) * px, 20 + (row + 0.5) * px])
        section.counts = section.counts[: len(row)]
        bins = section.write(outs / "binned_outputs" / f"square_{um:03d}um")
        (bins / "he.tif").unlink()
        positions = bins / "spatial" / "tissue_positions.csv"
        pd.read_csv(positions).to_parquet(positions.with_suffix(".parquet"))
        positions.unlink()
        factors = bins / "spatial" / "scalefactors_json.json"
        stated = {"bin_size_um": um, "microns_per_pixel": 0.5, "spot_diameter_fullres": px}
        factors.write_text(json.dumps(json.loads(factors.read_text()) | stated))
    Image.fromarray(Visium().image).save(outs / "he.tif")
    return outs


@pytest.mark.parametrize(("bin_size", "um"), [(None, 8), (8, 8), (16, 16)])
def test_bins_of_one_size_are_read(visium_hd, bin_size, um, caplog):
    with caplog.at_level(logging.INFO, "sthisto"):
        sdata = sth.io.read(visium_hd, bin_size=bin_size)
    assert "is a Visium HD run" in caplog.text
    (section,) = read_sections(sdata)
    assert section.um_per_px == pytest.approx(0.5)
    assert section.diameter == pytest.approx(um / 0.5)
    assert section.image_key == f"CRC_square_{um:03d}um_full_image"


def test_the_image_is_found_from_the_folder_of_bins_too(visium_hd):
    sdata = sth.io.read(visium_hd / "binned_outputs" / "square_008um")
    assert "square_008um_full_image" in sdata.images
    (section,) = read_sections(sdata)
    assert section.um_per_px == pytest.approx(0.5)


def test_a_size_of_bins_that_is_not_there_is_refused(visium_hd, outs):
    with pytest.raises(KeyError, match="8, 16"):
        sth.io.read(visium_hd, bin_size=2)
    with pytest.raises(ValueError, match="leave bin_size out"):
        sth.io.read(outs, bin_size=8)


@pytest.fixture
def xenium(visium, tmp_path):
    """Cells of 10 µm, and an H&E image that lies turned by 90 degrees and half as fine on the morphology image."""
    folder = tmp_path / "output-XETG"
    folder.mkdir()
    visium._write_counts(folder / "cell_feature_matrix.h5")
    (folder / "experiment.xenium").write_text(json.dumps({"pixel_size": XENIUM_UM, "region_name": "Region_1"}))
    turned = np.array([[0.0, -2.0, 2.0 * visium.image.shape[0]], [2.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    he = np.column_stack([visium.xy, np.ones(len(visium.xy))])
    xy = (he @ turned.T)[:, :2] * XENIUM_UM
    cells = pd.DataFrame(
        {"cell_id": visium.obs.index, "x_centroid": xy[:, 0], "y_centroid": xy[:, 1], "cell_area": 100.0}
    )
    cells.to_parquet(folder / "cells.parquet")
    corners = np.array([[-5, -5], [5, -5], [5, 5], [-5, 5], [-5, -5]])
    vertices = (xy[:, None] + corners).reshape(-1, 2)
    boundaries = {"cell_id": np.repeat(visium.obs.index, 5), "vertex_x": vertices[:, 0], "vertex_y": vertices[:, 1]}
    pd.DataFrame(boundaries).to_parquet(folder / "cell_boundaries.parquet")
    imwrite(folder / "Region_1_he_image.ome.tif", visium.image, photometric="rgb")
    imwrite(folder / "morphology.ome.tif", visium.image[..., 0])
    np.savetxt(folder / "Region_1_he_imagealignment.csv", turned, delimiter=",")
    return folder


@pytest.mark.parametrize("form", ["polygons", "circles"])
def test_cells_of_xenium_lie_on_the_aligned_image(xenium, form, visium):
    if form == "circles":
        (xenium / "cell_boundaries.parquet").unlink()
        cells = pd.read_parquet(xenium / "cells.parquet")
        (xenium / "cells.parquet").unlink()
        with gzip.open(xenium / "cells.csv.gz", "wt") as file:
            cells.to_csv(file, index=False)
    sdata = sth.io.read(xenium)
    (section,) = read_sections(sdata)
    assert section.um_per_px == pytest.approx(2 * XENIUM_UM)
    assert section.diameter == pytest.approx(2 * np.sqrt(100 / np.pi) / (2 * XENIUM_UM))
    np.testing.assert_allclose(section.centers, visium.xy, atol=1e-6)
    assert spots_are_marked(section)
    centers = shapely.get_coordinates(sdata["Region_1_cells"].centroid)
    np.testing.assert_allclose(sdata.tables["table"].obsm["spatial"], centers, atol=1e-6)


def test_a_xenium_run_without_its_he_names_the_images_there_are(xenium, tmp_path):
    moved = shutil.move(xenium / "Region_1_he_image.ome.tif", tmp_path / "scan_he_image.ome.tif")
    with pytest.raises(FileNotFoundError, match=r"morphology\.ome\.tif"):
        sth.io.read(xenium)
    shutil.move(xenium / "Region_1_he_imagealignment.csv", tmp_path / "scan_he_imagealignment.csv")
    (section,) = read_sections(sth.io.read(xenium / "experiment.xenium", image=moved))
    assert section.um_per_px == pytest.approx(2 * XENIUM_UM)


def test_boundaries_of_xenium_are_read_from_text_and_those_of_two_points_left_out(xenium, visium):
    path = xenium / "cell_boundaries.parquet"
    pd.read_parquet(path).drop(index=[2, 3, 4]).to_csv(xenium / "cell_boundaries.csv.gz", index=False)
    path.unlink()
    sdata = sth.io.read(xenium)
    assert list(sdata["Region_1_cells"].index) == list(visium.obs.index[1:])
    assert sdata["Region_1_cells"].area.to_numpy() == pytest.approx(100)


@pytest.mark.parametrize("name", ["Region_1_he_image_matrix.csv", "Region_1_he_matrix.csv", "matrix.csv"])
def test_alignments_are_found_by_the_names_that_xenium_explorer_gives(xenium, name, visium):
    (xenium / "Region_1_he_imagealignment.csv").rename(xenium / name)
    (section,) = read_sections(sth.io.read(xenium))
    np.testing.assert_allclose(section.centers, visium.xy, atol=1e-6)


@pytest.mark.parametrize("um_per_px", [XENIUM_UM, 2 * XENIUM_UM])
def test_without_an_alignment_an_image_of_other_pixels_is_refused(xenium, visium, um_per_px, caplog):
    (xenium / "Region_1_he_imagealignment.csv").unlink()
    sizes = {f"PhysicalSize{axis}": um_per_px for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    image = visium.image.transpose(2, 0, 1)
    path = xenium / "Region_1_he_image.ome.tif"
    imwrite(path, image, photometric="rgb", ome=True, metadata={"axes": "CYX", **sizes})
    if um_per_px == XENIUM_UM:
        sth.io.read(xenium)
        assert "it is taken to lie on the morphology image, px by px" in caplog.text
    else:
        with pytest.raises(ValueError, match=r"has no '…_imagealignment.csv'.*Put the alignment of Xenium Explorer"):
            sth.io.read(xenium)


def change_table(path, change):
    change(pd.read_parquet(path)).to_parquet(path)


def test_cells_of_several_outlines_keep_the_middle_of_all(xenium, visium):
    def twice(table):
        moved = table.iloc[:5].assign(vertex_x=table["vertex_x"] + 30)
        return pd.concat([table.assign(label_id=1), moved.assign(label_id=2)])

    change_table(xenium / "cell_boundaries.parquet", twice)
    cells = sth.io.read(xenium)["Region_1_cells"]
    assert list(cells.index) == list(visium.obs.index)
    assert cells.area.to_numpy() == pytest.approx([200] + [100] * (len(cells) - 1))
    plain = pd.read_parquet(xenium / "cells.parquet")["x_centroid"].to_numpy()
    assert cells.centroid.x.to_numpy() - plain == pytest.approx([15] + [0] * (len(cells) - 1))


def test_boundaries_with_points_without_a_place_are_left_out(xenium, visium):
    def lose(table):
        return table.assign(vertex_x=table["vertex_x"].where(np.arange(len(table)) != 7))

    change_table(xenium / "cell_boundaries.parquet", lose)
    assert list(sth.io.read(xenium)["Region_1_cells"].index) == [visium.obs.index[0], *visium.obs.index[2:]]


OTHER_CELLS = {
    "table of cells names none of the cells": ("cells", lambda t: t.assign(cell_id="x" + t["cell_id"])),
    "boundaries of cells names none of the cells": ("cell_boundaries", lambda t: t.assign(cell_id="x" + t["cell_id"])),
    "several rows for": ("cells", lambda t: pd.concat([t, t[:2]])),
    "holds no boundary of a cell": ("cell_boundaries", lambda t: t.assign(vertex_x=np.nan)),
}


@pytest.mark.parametrize("words", OTHER_CELLS)
def test_files_of_other_cells_are_refused(xenium, words):
    name, change = OTHER_CELLS[words]
    change_table(xenium / f"{name}.parquet", change)
    with pytest.raises(ValueError, match=words):
        sth.io.read(xenium)


def test_cells_of_unknown_size_are_refused(xenium):
    change_table(xenium / "cells.parquet", lambda table: table.drop(columns="cell_area"))
    (xenium / "cell_boundaries.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="their sizes are unknown"):
        sth.io.read(xenium)


@pytest.mark.parametrize("content", ['{"pixel_size": 0}', '{"pixel_size": NaN}', "[1]"])
def test_a_pixel_size_that_is_none_is_refused(xenium, content):
    (xenium / "experiment.xenium").write_text(content)
    with pytest.raises(ValueError, match=r"experiment\.xenium must state 'pixel_size'"):
        sth.io.read(xenium)


@pytest.mark.parametrize("stored", ["another", "future"])
def test_what_anndata_can_not_read_is_refused_by_the_name_of_the_file(visium, tmp_path, stored):
    path = tmp_path / "liver.h5ad"
    if stored == "future":
        visium.adata().write_h5ad(path)
    with h5py.File(path, "a") as file:
        if stored == "future":
            file["X"].attrs["encoding-type"] = "of_tomorrow"
        else:
            file.create_group("matrix")
    for read in (sth.io.read, sth.io.read_prediction):
        with pytest.raises(ValueError, match=r"liver\.h5ad can't be read as an AnnData"):
            read(path)


@pytest.mark.parametrize("has_packed", [True, False])
def test_the_tables_that_a_xenium_run_lacks_are_named(xenium, has_packed, caplog):
    if has_packed:
        (xenium / "cells.zarr.zip").write_bytes(b"of Xenium Explorer")
    (xenium / "cell_boundaries.parquet").unlink()
    with caplog.at_level(logging.WARNING, "sthisto"):
        sth.io.read(xenium)
    assert "lacks cell_boundaries.parquet, or cell_boundaries.csv.gz" in caplog.text
    assert ("cells.zarr.zip, which may hold the same, is not read" in caplog.text) == has_packed
    (xenium / "cells.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks cells\.parquet, or cells\.csv\.gz") as error:
        sth.io.read(xenium)
    assert ("cells.zarr.zip" in str(error.value)) == has_packed


SPOILED_XENIUM = {
    "experiment.xenium": "{}",
    "cells.parquet": "no parquet",
    "cell_feature_matrix.h5": "no HDF5",
    "cell_boundaries.parquet": "",
    "Region_1_he_imagealignment.csv": "0,0,0\n0,0,0\n0,0,1\n",
}


@pytest.mark.parametrize("name", SPOILED_XENIUM)
def test_damaged_files_of_xenium_are_named(xenium, name):
    (xenium / name).write_text(SPOILED_XENIUM[name])
    with pytest.raises(ValueError, match=name):
        sth.io.read(xenium)


def test_files_are_told_apart(visium, tmp_path, caplog):
    visium.adata().write_h5ad(tmp_path / "liver.h5ad")
    imwrite(tmp_path / "he.tif", visium.image, photometric="rgb")
    write_aperio(tmp_path / "slide.svs")
    with caplog.at_level(logging.INFO, "sthisto"):
        assert list(sth.io.read(tmp_path / "liver.h5ad", image=tmp_path / "he.tif").images) == ["liver_image"]
        assert list(sth.io.read(str(tmp_path / "slide.svs"), name="P1").images) == ["P1_image"]
    assert "is an AnnData" in caplog.text
    assert "is a slide" in caplog.text
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # anndata's, of the format of zarr
        visium.adata().write_zarr(tmp_path / "liver.zarr")
    assert list(sth.io.read(tmp_path / "liver.zarr").shapes) == ["liver_spots"]


def test_what_is_unknown_and_arguments_that_do_not_belong_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for path, error, words in (
        (tmp_path, ValueError, r"it holds notes\.txt"),
        (tmp_path / "notes.txt", ValueError, "Known are"),
        (tmp_path / "missing", FileNotFoundError, "nothing at"),
    ):
        with pytest.raises(error, match=words):
            sth.io.read(path)
    write_aperio(tmp_path / "slide.svs")
    with pytest.raises(ValueError, match="takes no bin_size"):
        sth.io.read(tmp_path / "slide.svs", bin_size=8)
    with pytest.raises(FileNotFoundError, match="no image"):
        sth.io.read(tmp_path / "slide.svs", image="missing.tif")


def write_hest(visium, tmp_path, metadata, **obsm):
    for folder in ("st", "metadata", "wsis"):
        (tmp_path / "hest" / folder).mkdir(parents=True)
    adata = ad.AnnData(visium.counts.astype(np.float32), obs=visium.obs, obsm={"spatial": visium.xy} | obsm)
    adata.write_h5ad(tmp_path / "hest" / "st" / "T1.h5ad")
    (tmp_path / "hest" / "metadata" / "T1.json").write_text(json.dumps(metadata))
    imwrite(tmp_path / "hest" / "wsis" / "T1.tif", visium.image, photometric="rgb", tile=(64, 64))
    return tmp_path / "hest"


@pytest.mark.parametrize("stated", [2.5, "2.5"])
def test_a_folder_of_hest_is_read(visium, tmp_path, stated):
    metadata = {"pixel_size_um_estimated": stated, "spot_diameter": float("nan")}
    named = pd.DataFrame({"row": visium.xy[:, 1], "col": visium.xy[:, 0]}, visium.obs.index)
    (section,) = read_sections(sth.io.read(write_hest(visium, tmp_path, metadata, spatial=named)))
    assert section.um_per_px == pytest.approx(2.5)
    assert section.diameter == pytest.approx(22)
    np.testing.assert_allclose(section.centers, visium.xy)


@pytest.mark.parametrize("stated", [None, float("nan"), 0, "unknown"])
def test_a_pixel_size_of_hest_that_is_none_is_refused(visium, tmp_path, stated):
    with pytest.raises(ValueError, match=r"T1\.json gives 'pixel_size_um_estimated' as"):
        sth.io.read(write_hest(visium, tmp_path, {"pixel_size_um_estimated": stated}))


def test_a_sample_of_hest_without_counts_is_refused(visium, tmp_path):
    folder = write_hest(visium, tmp_path, {"pixel_size_um_estimated": 2.5})
    ad.AnnData(obs=visium.obs, obsm={"spatial": visium.xy}).write_h5ad(folder / "st" / "T1.h5ad")
    with pytest.raises(ValueError, match="'T1' has no X"):
        sth.io.read(folder)
