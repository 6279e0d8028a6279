"""Visium HD bins and Xenium cells, in the layout that spatialdata-io gives them."""

from __future__ import annotations

import anndata as ad
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import shapely
from builders import as_transformation, draw_marks, grid, similarity
from spatialdata import SpatialData, read_zarr
from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel, TableModel
from spatialdata.transformations import Identity, Scale, set_transformation

import sthisto as sth
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import read_sections

XENIUM_UM_PER_PX = 0.2125
GENES = [f"GENE{i}" for i in range(8)]


def counts(n: int, seed: int = 0) -> sp.csr_matrix:
    return sp.csr_matrix(np.random.default_rng(seed).poisson(3.0, (n, len(GENES))).astype(np.float32))


def annotated(region: str, instances: np.ndarray, **obs) -> ad.AnnData:
    frame = pd.DataFrame({"region": pd.Categorical([region] * len(instances)), "instance": instances, **obs})
    frame.index = frame.index.astype(str)
    table = ad.AnnData(counts(len(frame)), obs=frame, var=pd.DataFrame(index=GENES))
    return TableModel.parse(table, region=region, region_key="region", instance_key="instance")


def center_pixels(section, size: int = 9) -> np.ndarray:
    (patches,) = section.patches(sth.models.PatchSpec(size=size, um_per_px=section.um_per_px))
    return patches.read()[:, size // 2, size // 2].mean(axis=-1)


@pytest.fixture
def visium_hd():
    """Bins of 8 and 16 µm as squares, a table for each size, an image of 0.5 µm per px."""
    centers = grid(400, 320, 40, margin=60)
    image = Image2DModel.parse(draw_marks(400, 320, centers), dims=("c", "y", "x"), transformations={"crc": Identity()})
    shapes, tables = {}, {}
    for um, px in ((8, 16), (16, 32)):
        name = f"crc_square_{um:03d}um"
        row, column = (part.ravel() for part in np.mgrid[0 : 320 // px, 0 : 400 // px])
        xy = (np.column_stack([column, row]) + 0.5) * px
        squares = shapely.box(*(xy - px / 2).T, *(xy + px / 2).T)
        shapes[name] = ShapesModel.parse(gpd.GeoDataFrame(geometry=squares), transformations={"crc": Identity()})
        tables[f"square_{um:03d}um"] = annotated(
            name, np.arange(len(xy)), array_row=row, array_col=column, in_tissue=(xy[:, 0] < 200).astype(int)
        )
    return SpatialData(images={"crc_full_image": image}, shapes=shapes, tables=tables)


def test_sizes_of_bins_to_choose_from_are_listed(visium_hd):
    with pytest.raises(ValueError, match="'square_008um', 'square_016um'"):
        read_sections(visium_hd)


@pytest.mark.parametrize("um", [8, 16])
def test_bins_know_their_resolution_and_width(visium_hd, um):
    (section,) = read_sections(visium_hd, ElementKeys(table_key=f"square_{um:03d}um"))
    assert section.um_per_px == pytest.approx(0.5)
    assert section.diameter == pytest.approx(2 * um * 2 / np.sqrt(np.pi))


def test_bins_off_tissue_are_left_out(visium_hd):
    (section,) = read_sections(visium_hd, ElementKeys(table_key="square_016um"))
    assert (section.centers[:, 0] < 200).all()


def test_bins_are_fitted_and_predicted(visium_hd, tmp_path):
    keys = {"table_key": "square_016um"}
    model = sth.tl.fit(visium_hd, method="color", patch_size=16, genes=GENES, **keys)
    sth.tl.predict(visium_hd, model, **keys)
    visium_hd.write(tmp_path / "crc.zarr")
    table = read_zarr(tmp_path / "crc.zarr").tables["square_016um"]
    on_tissue = table.obs["in_tissue"].to_numpy() == 1
    assert np.isfinite(table.layers["sthisto_pred"][on_tissue]).all()
    assert np.isnan(table.layers["sthisto_pred"][~on_tissue]).all()


@pytest.fixture
def xenium():
    """Cells in px of the DAPI image, an H&E aligned by an affine: turned, mirrored, 0.36 µm per px."""
    he_px = grid(480, 400, 40, margin=60)
    he_to_dapi = similarity(angle=87, scale=1.7, shift=(900.0, 900.0), flip=True)
    dapi_px = he_px @ he_to_dapi[:2, :2].T + he_to_dapi[:2, 2]
    ids = np.array([f"cell{i:04d}-1" for i in range(len(he_px))])
    cells = gpd.GeoDataFrame(geometry=shapely.buffer(shapely.points(dapi_px * XENIUM_UM_PER_PX), 4.0), index=ids)
    he = Image2DModel.parse(
        draw_marks(480, 400, he_px),
        dims=("c", "y", "x"),
        scale_factors=[2],
        transformations={"global": as_transformation(he_to_dapi)},
    )
    labels = np.zeros(np.ceil(dapi_px.max(axis=0)[::-1]).astype(int) + 40, dtype=np.uint32)
    for instance, (x, y) in enumerate(dapi_px, start=1):
        labels[round(y) - 12 : round(y) + 12, round(x) - 12 : round(x) + 12] = instance
    to_px = Scale([1 / XENIUM_UM_PER_PX] * 2, axes=("x", "y"))
    sdata = SpatialData(
        images={"he_image": he},
        labels={"cell_labels": Labels2DModel.parse(labels, dims=("y", "x"), transformations={"global": Identity()})},
        shapes={"cell_boundaries": ShapesModel.parse(cells, transformations={"global": to_px})},
        tables={
            "cells": annotated("cell_boundaries", ids),
            "masks": annotated("cell_labels", np.arange(1, len(ids) + 1)),
        },
        attrs={"sthisto": {"um_per_unit": {"global": XENIUM_UM_PER_PX}}},
    )
    return sdata, he_px


@pytest.mark.parametrize("table", ["cells", "masks"])
def test_cells_lie_on_their_marks_in_the_aligned_image(xenium, table):
    sdata, he_px = xenium
    (section,) = read_sections(sdata, ElementKeys(table_key=table))
    np.testing.assert_allclose(section.centers, he_px, atol=0.6)
    assert (center_pixels(section) < 80).all()


def test_cells_know_resolution_through_the_alignment(xenium):
    (section,) = read_sections(xenium[0], ElementKeys(table_key="cells"))
    assert section.um_per_px == pytest.approx(1.7 * XENIUM_UM_PER_PX)
    assert section.diameter * section.um_per_px == pytest.approx(8.0, rel=0.02)


@pytest.mark.parametrize("table", ["cells", "masks"])
def test_cells_are_fitted_and_predicted(xenium, table):
    sdata = xenium[0]
    model = sth.tl.fit(sdata, method="color", patch_um=20, patch_size=32, genes=GENES, table_key=table)
    sth.tl.predict(sdata, model, table_key=table)
    assert np.isfinite(sdata[table].layers["sthisto_pred"]).all()


def test_alignment_that_shears_is_refused(xenium):
    sdata = xenium[0]
    sheared = as_transformation(np.array([[1.0, 0.3, 0], [0, 1.0, 0], [0, 0, 1]]))
    set_transformation(sdata["he_image"], sheared, "global")
    with pytest.raises(ValueError, match="stretched or sheared"):
        read_sections(sdata, ElementKeys(table_key="cells"))


def test_cells_know_resolution_by_their_areas(xenium):
    sdata = xenium[0]
    del sdata.attrs["sthisto"]
    (section,) = read_sections(sdata, ElementKeys(table_key="cells"))
    assert section.um_per_px is None
    sdata["cells"].obs["cell_area"] = np.pi * 4.0**2
    sdata["cells"].obs["transcript_counts"] = 20
    (section,) = read_sections(sdata, ElementKeys(table_key="cells"))
    assert section.um_per_px == pytest.approx(1.7 * XENIUM_UM_PER_PX)


def test_shapes_that_the_table_does_not_annotate_are_made_to(xenium):
    sdata = xenium[0]
    sdata["nuclei"] = sdata["cell_boundaries"]
    attrs = sdata["cells"].uns["spatialdata_attrs"]
    with pytest.raises(KeyError, match="set_table_annotates_spatialelement") as error:
        read_sections(sdata, ElementKeys(table_key="cells", shapes_key="nuclei"))
    steps = error.value.args[0].split("]: ")[1].rstrip(".").split("; ")
    for step in steps:
        exec(step, {"sdata": sdata, "pd": pd})
    assert attrs["region"] == "nuclei"
    (section,) = read_sections(sdata, ElementKeys(table_key="cells", shapes_key="nuclei"))
    assert len(section) == sdata["cells"].n_obs
