"""Predictions as other tools read them."""

from __future__ import annotations

import json
import logging
import warnings

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import shapely
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation
from tifffile import TiffFile

import sthisto as sth
from sthisto._sdata.sections import read_sections

GENES = ["COL1A1", "CD3E", "EPCAM"]


@pytest.fixture(scope="module")
def predicted():
    sdata = sth.datasets.synthetic(n_sections=2, n_patients=2, n_spots=60, seed=3)
    model = sth.tl.fit(sdata, method="color", genes=GENES)
    sth.tl.predict(sdata, model)
    return sdata


@pytest.fixture(scope="module")
def one(predicted):
    return next(section for section in read_sections(predicted) if section.name == "S1_spots")


def test_anndata_holds_the_modeled_genes_without_nan(predicted):
    adata = sth.get.anndata(predicted)
    table = predicted.tables["expression"]
    assert sorted(adata.var_names) == sorted(GENES)
    assert np.isfinite(adata.X).all()
    np.testing.assert_array_equal(
        adata.X, table[adata.obs_names, adata.var_names].layers["sthisto_pred"].astype(np.float32)
    )
    assert set(adata.obs["library_id"]) == {"S1_spots", "S2_spots"} == set(adata.uns["spatial"])


def test_anndata_of_sections_that_share_barcodes_has_unique_names_without_a_warning(predicted):
    parts = [sth.datasets.synthetic(n_sections=1, n_patients=1, n_spots=30, seed=seed) for seed in (3, 4)]
    for part in parts:
        part["expression"].obs_names = [f"AACG{i}-1" for i in range(30)]
    sth.tl.predict(parts, sth.tl.fit(parts, method="mean", n_top_genes=5))
    adata = sth.get.anndata(parts)  # pytest makes an error of each warning
    assert adata.obs_names.is_unique
    assert adata.n_obs == 60


def test_anndata_places_the_spots_on_its_overview(predicted, one):
    adata = sth.get.anndata(predicted)
    own = adata[adata.obs["library_id"] == "S1_spots"]
    expected = pd.DataFrame(one.centers, index=one.table.obs_names[one.rows]).loc[own.obs_names]
    np.testing.assert_allclose(own.obsm["spatial"], expected)
    library = adata.uns["spatial"]["S1_spots"]
    height, width = library["images"]["hires"].shape[:2]
    factor = library["scalefactors"]["tissue_hires_scalef"]
    assert (width / factor, height / factor) == pytest.approx((one.image.width, one.image.height), rel=0.01)
    assert library["scalefactors"]["spot_diameter_fullres"] == pytest.approx(one.diameter)


def test_scanpy_and_squidpy_take_it_as_it_is(predicted, tmp_path):
    adata = sth.get.anndata(predicted)
    with warnings.catch_warnings(action="ignore"):  # those of squidpy on its own names
        import squidpy as sq

        sc.pp.pca(adata, n_comps=2)
        sc.pp.neighbors(adata, n_neighbors=5)
        sq.gr.spatial_neighbors(adata, library_key="library_id", coord_type="generic")
        sq.gr.spatial_autocorr(adata, mode="moran", n_perms=None)
    assert np.isfinite(adata.uns["moranI"]["I"]).all()
    adata.write_h5ad(tmp_path / "predicted.h5ad")


def test_every_table_that_is_made_knows_where_its_spots_lie(predicted, one):
    np.testing.assert_allclose(predicted.tables["expression"].obsm["spatial"][one.rows], one.centers, atol=1e-6)
    sdata = sth.datasets.synthetic(n_sections=1, n_patients=1, n_spots=60, seed=3)
    sth.pp.tissue_grid(sdata)
    model = sth.tl.fit(sdata, method="color", genes=GENES, table_key="expression")
    sth.tl.predict(sdata, model, table_key="tissue_grid_table", new_table_key="wide")
    for table in ("tissue_grid_table", "wide"):
        (section,) = read_sections(sdata, sth._sdata.keys.ElementKeys(table_key=table))
        np.testing.assert_allclose(sdata.tables[table].obsm["spatial"][section.rows], section.centers, atol=1e-6)


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.csv.gz"])
def test_csv_has_a_row_for_each_spot(predicted, one, tmp_path, name):
    sth.io.to_csv(predicted, tmp_path / name, genes=["CD3E"])
    table = pd.read_csv(tmp_path / name, sep="\t" if name.endswith("tsv") else ",").set_index("spot")
    assert list(table.columns) == ["section", "x_px", "y_px", "x_um", "y_um", "confidence", "CD3E"]
    own = table.loc[one.table.obs_names[one.rows]]
    np.testing.assert_allclose(own[["x_um", "y_um"]], one.centers * one.um_per_px)
    np.testing.assert_allclose(own["CD3E"], sth.get.predictions(predicted, "CD3E").loc[own.index, "CD3E"], rtol=1e-5)


def test_a_file_of_another_kind_is_refused(predicted, tmp_path):
    with pytest.raises(ValueError, match=r"must end with '\.csv'"):
        sth.io.to_csv(predicted, tmp_path / "p.xlsx")


def read_drawn(path):
    """Read shapes in px, which geopandas takes for degrees."""
    return gpd.read_file(path).set_crs(None, allow_override=True).set_index("name")


def test_geojson_lies_on_the_image_with_measurements(predicted, one, tmp_path):
    sth.io.to_geojson(predicted, tmp_path / "S1.geojson", section="S1_spots")
    stored = json.loads((tmp_path / "S1.geojson").read_text())
    assert stored["type"] == "FeatureCollection"
    features = stored["features"]
    assert len(features) == len(one)
    assert features[0]["properties"]["objectType"] == "detection"
    values = sth.get.predictions(predicted).loc[[f["properties"]["name"] for f in features]]
    for gene in GENES:
        measured = [feature["properties"]["measurements"][gene] for feature in features]
        np.testing.assert_allclose(measured, values[gene], atol=1e-4)
    drawn = read_drawn(tmp_path / "S1.geojson")
    expected = pd.DataFrame(one.centers, index=one.table.obs_names[one.rows]).loc[drawn.index]
    np.testing.assert_allclose(shapely.get_coordinates(drawn.geometry.centroid), expected, atol=1e-3)
    np.testing.assert_allclose(np.sqrt(drawn.geometry.area / np.pi), one.diameter / 2, rtol=0.02)


def test_polygons_are_written_as_they_are_drawn(one, tmp_path):
    sdata = sth.datasets.synthetic(n_sections=1, n_patients=1, n_spots=60, seed=3)
    spots = sdata.shapes["S1_spots"]
    boxes = gpd.GeoDataFrame(geometry=spots.buffer(spots["radius"], cap_style="square"), index=spots.index)
    systems = get_transformation(spots, get_all=True)
    del sdata.shapes["S1_spots"]
    sdata.shapes["S1_spots"] = ShapesModel.parse(boxes, transformations=systems)
    sth.tl.predict(sdata, sth.tl.fit(sdata, method="color", genes=GENES))
    sth.io.to_geojson(sdata, tmp_path / "boxes.geojson", genes="CD3E")
    (section,) = read_sections(sdata)
    drawn = read_drawn(tmp_path / "boxes.geojson")
    expected = pd.DataFrame(section.centers, index=section.table.obs_names[section.rows]).loc[drawn.index]
    np.testing.assert_allclose(shapely.get_coordinates(drawn.geometry.centroid), expected, atol=1e-3)
    assert shapely.get_num_coordinates(drawn.geometry.iloc[0]) == 5


@pytest.mark.parametrize("downsample", [None, 3.0])
def test_ome_tiff_is_a_map_of_the_gene_over_the_image(predicted, one, tmp_path, downsample):
    sth.io.to_ome_tiff(predicted, tmp_path / "m.ome.tif", GENES[:2], section="S1_spots", downsample=downsample)
    factor = downsample or max(1.0, one.diameter / 8)
    with TiffFile(tmp_path / "m.ome.tif") as file:
        maps = file.series[0].asarray()
        about = file.ome_metadata
    assert file.is_ome
    assert f'Name="{GENES[0]}"' in about
    assert f'PhysicalSizeX="{one.um_per_px * factor}"' in about
    assert maps.shape == (2, np.ceil(one.image.height / factor), np.ceil(one.image.width / factor))
    at = np.floor(one.centers / factor).astype(int)
    values = sth.get.predictions(predicted).loc[one.table.obs_names[one.rows], GENES[:2]].to_numpy()
    np.testing.assert_allclose(maps[:, at[:, 1], at[:, 0]].T, values, rtol=1e-5)
    assert (maps[:, 0, 0] == 0).all()


def test_a_file_for_one_image_asks_which(predicted, tmp_path):
    with pytest.raises(ValueError, match="'S1_spots', 'S2_spots'"):
        sth.io.to_geojson(predicted, tmp_path / "all.geojson")
    with pytest.raises(KeyError, match="section"):
        sth.io.to_ome_tiff(predicted, tmp_path / "m.ome.tif", "CD3E", section="S9")
    with pytest.raises(ValueError, match=r"must end with '\.tif'"):
        sth.io.to_ome_tiff(predicted, tmp_path / "m.png", "CD3E", section="S1_spots")
    with pytest.raises(KeyError, match="genes that are modeled"):
        sth.io.to_csv(predicted, tmp_path / "p.csv", genes=["ACTB"])
    with pytest.raises(KeyError, match="Nothing was predicted"):
        sth.get.anndata(predicted, key_added="bleep")
    assert not list(tmp_path.iterdir())


def test_nothing_is_logged_as_a_warning(predicted, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "sthisto"):
        sth.get.anndata(predicted)
        sth.io.to_csv(predicted, tmp_path / "p.csv")
    assert not caplog.records
