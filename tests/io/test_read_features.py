"""Features of tiles from files of TRIDENT, CLAM and HEST, brought to spots and fitted on."""

from __future__ import annotations

import logging

import anndata as ad
import geopandas as gpd
import h5py
import numpy as np
import pandas as pd
import pytest
import shapely
import spatialdata as sd
from builders import with_own_tables
from slides import write_aperio
from spatialdata.models import ShapesModel, TableModel

import sthisto as sth
from sthisto._sdata.features import given_features
from sthisto._sdata.sections import read_sections

GENES = ["COL1A1", "CD3E", "EPCAM"]
N = 12


@pytest.fixture(scope="module")
def drawn():
    return sth.datasets.synthetic(n_sections=2, n_patients=2, n_spots=60, seed=3)


@pytest.fixture
def sdata(drawn):
    return with_own_tables(drawn)


def write_tiles(path, corners, values, *, barcodes=None, **attrs):
    with h5py.File(path, "w") as file:
        file["embeddings" if barcodes is not None else "features"] = values
        file["coords"] = corners
        for name, value in attrs.items():
            file["coords"].attrs[name] = value
        if barcodes is not None:
            file["barcodes"] = np.array(barcodes).astype("S")[:, None]
    return path


def tile_grid(width: int, columns: int = 6, rows: int = 4):
    corners = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2) * width
    return corners, np.random.default_rng(0).normal(size=(len(corners), N)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "attrs", "width", "um"),
    [
        ("trident", {"patch_size": 256, "patch_size_level0": 512, "target_magnification": 20}, 512, 128),
        ("clam", {"patch_size": 256, "patch_level": 1, "downsample": np.array([4.0, 4.0])}, 1024, None),
        ("clam", {}, 300, None),
    ],
)
def test_tiles_are_squares_with_their_features(tmp_path, kind, attrs, width, um):
    corners, values = tile_grid(width)
    for batch in (values, values[None]):
        path = write_tiles(tmp_path / "slide.h5", corners, batch, **attrs)
        for stated in (kind, None):
            tiles = sth.io.read_features(path, format=stated, name="uni2")
            assert list(tiles.shapes["tiles"].total_bounds) == [0, 0, 6 * width, 4 * width]
            table = tiles.tables["tiles_table"]
            np.testing.assert_array_equal(table.obsm["X_uni2"], values)
            np.testing.assert_allclose(table.obsm["spatial"], corners + width / 2)
            record = table.uns["sthisto_features"]["X_uni2"]
            assert record["width_px"] == width
            assert record["width_um"] == pytest.approx(um if um else np.nan, nan_ok=True)
    tiles.write(tmp_path / "tiles.zarr")
    again = sd.read_zarr(tmp_path / "tiles.zarr").tables["tiles_table"]
    assert again.uns["sthisto_features"]["X_uni2"]["width_px"] == width


def centered_tiles(sdata, tmp_path, region, *, drop=0, shift=0.0, **attrs):
    """Write a tile around each spot of a region, in another order, its features those of the spot's place."""
    section = next(one for one in read_sections(sdata) if one.region == region)
    order = np.random.default_rng(1).permutation(len(section))[drop:]
    width = 80
    values = np.column_stack([section.centers, np.random.default_rng(2).normal(size=(len(section), N - 2))])
    corners = np.round(section.centers + shift - width / 2)
    path = write_tiles(
        tmp_path / f"{region}.h5", corners[order], values[order], patch_size=80, patch_size_level0=width, **attrs
    )
    return section, values.astype(np.float32), path


def test_spots_have_the_features_of_their_tile(sdata, tmp_path, caplog):
    tiles, expected = {}, {}
    for region, drop in (("S1_spots", 0), ("S2_spots", 5)):
        section, values, path = centered_tiles(sdata, tmp_path, region, drop=drop, target_magnification=20)
        tiles[region] = sth.io.read_features(path, name="uni2")
        expected[region] = (section.rows, values)
    with caplog.at_level(logging.WARNING, "sthisto"):
        sth.pp.add_features(sdata, tiles)
    assert "5 of 60 spots of section 'S2_spots' lie in no tile" in caplog.text
    written = sdata.tables["expression"].obsm["X_uni2"]
    rows, values = expected["S1_spots"]
    np.testing.assert_array_equal(written[rows], values)
    rows, values = expected["S2_spots"]
    known = np.isfinite(written[rows]).all(axis=1)
    assert (~known).sum() == 5
    np.testing.assert_array_equal(written[rows][known], values[known])


def test_a_spot_that_is_named_has_the_tile_of_its_name(sdata, tmp_path):
    section = read_sections(sdata)[0]
    names = section.table.obs_names[section.rows][::-1]
    values = np.arange(len(names) * N, dtype=np.float32).reshape(-1, N)
    corners = np.random.default_rng(0).integers(0, 900, (len(names), 2))
    path = write_tiles(tmp_path / "hest.h5", corners, values, barcodes=names)
    sth.pp.add_features(sdata, sth.io.read_features(path, name="gigapath"), shapes_key=section.region)
    written = sdata.tables["expression"].obsm["X_gigapath"]
    np.testing.assert_array_equal(written[section.rows], values[::-1])


def test_tiles_of_hest_are_found_by_names_without_the_sample_alone(sdata, tmp_path):
    section = read_sections(sdata)[0]
    names = section.table.obs_names[section.rows].to_numpy().astype(str)
    values = np.arange(len(names) * N, dtype=np.float32).reshape(-1, N)
    corners = (section.centers - 40).astype(int)
    path = write_tiles(tmp_path / "hest.h5", corners, values, barcodes=[name.partition("_")[2] for name in names])
    tiles = sth.io.read_features(path, name="conch")
    assert "sthisto" not in tiles.attrs  # 112 µm wide, but of how many px is not stated
    sth.pp.add_features(sdata, tiles, shapes_key=section.region)
    np.testing.assert_array_equal(sdata.tables["expression"].obsm["X_conch"][section.rows], values)
    path = write_tiles(tmp_path / "other.h5", corners, values, barcodes=[f"other{i}" for i in range(len(names))])
    with pytest.raises(ValueError, match="No spot has the name of a tile"):
        sth.pp.add_features(sdata, sth.io.read_features(path, name="conch"), shapes_key=section.region)


def test_the_width_of_tiles_is_the_distance_of_neighbors_on_grids_with_different_origins(tmp_path, caplog):
    corners, values = tile_grid(300)
    corners[len(corners) // 2 :] += [1000 * 300 + 7, 11]
    tiles = sth.io.read_features(write_tiles(tmp_path / "slide.h5", corners, values, patch_size=150, patch_level=1))
    assert tiles.tables["tiles_table"].uns["sthisto_features"]["X_features"]["width_px"] == 300
    assert "300 px, the distance between them" in caplog.text
    with pytest.raises(ValueError, match="as CLAM writes it, not TRIDENT"):
        sth.io.read_features(tmp_path / "slide.h5", format="trident")


READINGS = {
    "x and y are swapped": lambda corners, um: corners[:, ::-1],
    "they are in µm": lambda corners, um: corners * um,
    "they are in px of a level 4 times as coarse": lambda corners, um: corners / 4,
}


@pytest.mark.parametrize("what", READINGS)
def test_places_of_tiles_in_another_reading_are_refused(sdata, tmp_path, what):
    section = read_sections(sdata)[0]
    width, (right, bottom) = 80, section.centers.max(axis=0)
    x, y = np.meshgrid(np.arange(0, right, width), np.arange(0, bottom / 2, width))
    keep = section.centers[:, 1] < y.max() + width
    table = section.table
    table.obs["in_tissue"] = 0
    table.obs.iloc[section.rows[keep], table.obs.columns.get_loc("in_tissue")] = 1
    corners = np.column_stack([x.ravel(), y.ravel()])
    values = np.zeros((len(corners), N), dtype=np.float32)
    path = write_tiles(tmp_path / "right.h5", corners, values, patch_size_level0=width)
    sth.pp.add_features(sdata, sth.io.read_features(path, name="right"), shapes_key=section.region)
    wrong = READINGS[what](corners, section.um_per_px)
    own = float(np.median(np.diff(np.unique(wrong[:, 0]))))
    path = write_tiles(tmp_path / "wrong.h5", wrong, values, patch_size_level0=own)
    with pytest.raises(ValueError, match=f"lie beyond all tiles.*if {what}"):
        sth.pp.add_features(sdata, sth.io.read_features(path, name="wrong"), shapes_key=section.region)
    assert "X_wrong" not in table.obsm


@pytest.mark.parametrize("axis", ["(2, n)", "(n, 4)", "(n, 3)", "text"])
def test_coordinates_of_another_shape_are_refused(tmp_path, axis):
    corners, values = tile_grid(80)
    other = {
        "(2, n)": corners.T,
        "(n, 4)": np.hstack([corners, corners + 80]),
        "(n, 3)": np.pad(corners, ((0, 0), (0, 1))),
        "text": corners.astype("S"),
    }
    path = write_tiles(tmp_path / "slide.h5", other[axis], values, patch_size=80)
    with pytest.raises(ValueError, match=r"expected is \(n_tiles, 2\)"):
        sth.io.read_features(path)


@pytest.mark.parametrize("barcodes", [None, "names"])
def test_a_tile_with_two_different_features_is_refused(tmp_path, barcodes):
    corners, values = tile_grid(80)
    names = None if barcodes is None else [f"spot{i}" for i in range(len(values))] + ["spot0", "spot1"]
    twice = np.vstack([corners, corners[:2]])
    path = write_tiles(tmp_path / "again.h5", twice, np.vstack([values, values[:2] * 1.001]), barcodes=names)
    assert sth.io.read_features(path).tables["tiles_table"].n_obs == len(values) + 2
    path = write_tiles(tmp_path / "other.h5", twice, np.vstack([values, values[:2] + 1]), barcodes=names)
    with pytest.raises(ValueError, match="other features of a tile a second time, 2 in all"):
        sth.io.read_features(path)


def test_a_file_without_tiles_or_with_other_barcodes_is_refused(tmp_path):
    corners, values = tile_grid(80)
    with pytest.raises(ValueError, match="holds no tile"):
        sth.io.read_features(write_tiles(tmp_path / "empty.h5", corners[:0], values[:0]))
    with pytest.raises(ValueError, match="24 rows of features and 2 barcodes"):
        sth.io.read_features(write_tiles(tmp_path / "names.h5", corners, values, barcodes=["a", "b"]))


def test_tiles_of_another_slide_and_foreign_files_are_refused(sdata, tmp_path):
    corners, values = tile_grid(80)
    path = write_tiles(tmp_path / "far.h5", corners + 100_000, values, patch_size=80, patch_size_level0=80)
    with pytest.raises(ValueError, match="No spot of section 'S1_spots' lies in a tile"):
        sth.pp.add_features(sdata, sth.io.read_features(path))
    with pytest.raises(KeyError, match="'S2_spots'"):
        sth.pp.add_features(sdata, {"S1_spots": sth.io.read_features(path)}, shapes_key="S2_spots")
    (tmp_path / "text.h5").write_text("no HDF5")
    write_tiles(tmp_path / "short.h5", corners[1:], values, patch_size=80)
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["img"] = np.zeros(3)
    for name, error, words in (
        ("text.h5", ValueError, "HDF5"),
        ("short.h5", ValueError, "24 rows of features and 23"),
        ("images.h5", KeyError, "'img'"),
        ("missing.h5", FileNotFoundError, "no file"),
    ):
        with pytest.raises(error, match=words):
            sth.io.read_features(tmp_path / name)


@pytest.fixture
def featured(sdata):
    """Sections with features that follow the expression, and a few spots without any."""
    table = sdata.tables["expression"]
    rng = np.random.default_rng(5)
    signal = np.log1p(np.asarray(table[:, GENES].X.todense()))
    table.obsm["X_uni2"] = np.hstack([signal @ rng.normal(size=(3, 8)), rng.normal(size=(table.n_obs, 4))])
    table.obsm["X_conch"] = 100 * rng.normal(size=(table.n_obs, 6))
    table.uns["sthisto_features"] = {"X_uni2": {"width_px": 80.0, "width_um": 112.0}}
    return sdata


@pytest.mark.parametrize("method", ["ridge", "knn", "bleep", "danet", "hybrid", "kernel", "mlp", "recommended"])
def test_methods_are_fitted_on_given_features(featured, method, tmp_path):
    options = {"max_epochs": 2} if method in ("bleep", "danet", "hybrid") else {}
    model = sth.tl.fit(featured, method=method, genes=GENES, features="obsm:X_uni2", **options)
    model.save(tmp_path / "m.sthisto")
    again = sth.models.load(tmp_path / "m.sthisto")
    assert again.encoder.name == "obsm:X_uni2"
    for one, key in ((model, "first"), (again, "second")):
        sth.tl.predict(featured, one, key_added=key)
    table = featured.tables["expression"]
    np.testing.assert_array_equal(table.layers["first_pred"], table.layers["second_pred"])
    assert table.obs["first_seen"].all()


def test_given_features_predict_a_section_that_was_not_trained_on(featured):
    table = featured.tables["expression"]
    sth.pp.split(featured, by="patient", patient_key="patient", test=["P2"])
    model = sth.tl.fit(featured, method="ridge", genes=GENES, features="obsm:X_uni2")
    sth.tl.predict(featured, model)
    sth.tl.evaluate(featured)
    assert table.var.loc[GENES, "sthisto_pcc"].min() > 0.5


def test_spots_without_features_are_left_out_with_a_warning(featured, caplog):
    table = featured.tables["expression"]
    table.obsm["X_uni2"][:7] = np.nan
    with caplog.at_level(logging.WARNING, "sthisto"):
        model = sth.tl.fit(featured, method="ridge", genes=GENES, features="obsm:X_uni2")
        sth.tl.predict(featured, model)
    assert "have no features ('X_uni2')" in caplog.text
    predicted = table.layers["sthisto_pred"][:, table.var["sthisto_gene"].to_numpy()]
    assert np.isnan(predicted[:7]).all()
    assert np.isfinite(predicted[7:]).all()


def test_several_features_vary_alike_in_total(featured):
    model = sth.tl.fit(featured, method="ridge", genes=GENES, features=["obsm:X_uni2", "obsm:X_conch"])
    assert model.encoder.name == "obsm:X_uni2+obsm:X_conch"
    table = featured.tables["expression"]
    totals = [part.weight**2 * table.obsm[part.key].var(axis=0).sum() for part in model.encoder.parts]
    assert totals == pytest.approx([1, 1], rel=1e-3)
    sections = read_sections(featured)
    alone = given_features(sections, [np.arange(len(one)) for one in sections], ["X_conch"])
    assert alone.parts[0].weight == 1


def test_named_features_in_another_order_are_refused(sdata):
    cohort = [sdata, with_own_tables(sdata)]
    rng = np.random.default_rng(0)
    for one, names in zip(cohort, (["a", "b", "c"], ["c", "b", "a"]), strict=True):
        table = one.tables["expression"]
        table.obsm["X_named"] = pd.DataFrame(rng.normal(size=(table.n_obs, 3)), table.obs_names, names)
    with pytest.raises(ValueError, match=r"columns of obsm\['X_named'\] of section .* stand in another order"):
        sth.tl.fit(cohort, method="ridge", genes=GENES, features="obsm:X_named")


@pytest.mark.parametrize("kind", ["text", "complex"])
def test_features_that_are_no_numbers_are_refused(sdata, kind):
    table = sdata.tables["expression"]
    values = np.random.default_rng(0).normal(size=(table.n_obs, 3))
    named = pd.DataFrame(values, table.obs_names, list("abc")).assign(tile="t1")
    table.obsm["X_odd"] = named if kind == "text" else values * 1j
    with pytest.raises(ValueError, match=r"obsm\['X_odd'\] holds features that are no numbers"):
        sth.tl.fit(sdata, method="ridge", genes=GENES, features="obsm:X_odd")


def test_models_refuse_other_features(featured):
    model = sth.tl.fit(featured, method="ridge", genes=GENES, features="obsm:X_uni2")
    table = featured.tables["expression"]
    whole = table.obsm["X_uni2"]
    table.obsm["X_uni2"] = whole[:, :5]
    with pytest.raises(ValueError, match="has 5 columns; the model was fitted on 12"):
        sth.tl.predict(featured, model)
    table.obsm["X_uni2"] = whole
    table.uns["sthisto_features"]["X_uni2"]["width_um"] = 224.0
    with pytest.raises(ValueError, match=r"224 µm wide; the model was fitted on tiles of 112 µm"):
        sth.tl.predict(featured, model)
    del table.obsm["X_uni2"]
    with pytest.raises(KeyError, match="X_uni2"):
        sth.tl.predict(featured, model)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"features": "X_uni2"}, ValueError, "obsm:X_uni2"),
        ({"features": []}, ValueError, "names slots of obsm|is empty"),
        ({"features": "obsm:X_none"}, KeyError, "X_none"),
        ({"features": "obsm:X_uni2", "method": "color"}, ValueError, "uses no image encoder"),
        ({"features": "obsm:X_uni2", "method": "danet", "finetune": True}, ValueError, "trains its image encoder"),
    ],
)
def test_features_that_cant_be_used_are_refused(featured, arguments, error, words):
    with pytest.raises(error, match=words):
        sth.tl.fit(featured, **{"method": "ridge", "genes": GENES, **arguments})


@pytest.fixture
def lazyslide(tmp_path):
    """Tiles and features as LazySlide's `add_tiles` and `add_features` lay them."""
    slide = write_aperio(tmp_path / "P1.svs")
    corners, values = tile_grid(256)
    tiles = gpd.GeoDataFrame(
        {"tile_id": np.arange(len(corners)), "geometry": shapely.box(*corners.T, *(corners + 256).T)}
    )
    kept = np.random.default_rng(3).permutation(len(corners))[2:]
    obs = pd.DataFrame({"tile_id": kept, "library_id": pd.Categorical(["tiles"] * len(kept))}, index=kept.astype(str))
    table = TableModel.parse(
        ad.AnnData(values[kept], obs=obs), region="tiles", region_key="library_id", instance_key="tile_id"
    )
    wsi = sd.SpatialData(
        shapes={"tiles": ShapesModel.parse(tiles)},
        tables={"uni2_tiles": table},
        attrs={"slide_properties": {"mpp": 0.499, "magnification": 20}},
    )
    return wsi, slide, values, np.sort(kept)


@pytest.mark.parametrize("stored", [False, True])
def test_tiles_of_lazyslide_keep_features_and_resolution(lazyslide, stored, tmp_path):
    wsi, slide, values, kept = lazyslide
    if stored:
        wsi.write(tmp_path / "wsi.zarr")
        wsi = tmp_path / "wsi.zarr"
    sdata = sth.io.from_wsidata(wsi, slide=slide)
    features = sdata.tables["tiles_table"].obsm["X_uni2"]
    np.testing.assert_array_equal(features[kept], values[kept])
    assert np.isnan(features).any(axis=1).sum() == 2
    (section,) = read_sections(sdata)
    assert section.um_per_px == pytest.approx(0.499)
    assert section.image_key == "P1_image"
    np.testing.assert_allclose(section.centers[0], [128, 128])
    assert not sth.io.from_wsidata(wsi).images
    with pytest.raises(KeyError, match="tile_key"):
        sth.io.from_wsidata(wsi, tile_key="cells")
    with pytest.raises(FileNotFoundError):
        sth.io.from_wsidata(wsi, slide="missing.svs")


def test_tiles_of_the_real_wsidata_are_read(tmp_path, caplog):
    wsidata = pytest.importorskip("wsidata", reason="wsidata is not installed (pip install lazyslide)")
    lazyslide = pytest.importorskip("lazyslide", reason="LazySlide is not installed (pip install lazyslide)")
    wsi = wsidata.open_wsi(write_aperio(tmp_path / "P1.svs"))
    lazyslide.pp.tile_tissues(wsi, 128, mpp=0.998, tissue_key=None)
    n_tiles = len(wsi.shapes["tiles"])
    values = np.random.default_rng(0).random((n_tiles, 4), dtype=np.float32)
    wsidata.io.add_features(wsi, "uni2", "tiles", values)
    with caplog.at_level("INFO", "sthisto"):
        sdata = sth.io.from_wsidata(wsi)
    assert "'X_uni2'" in caplog.text
    np.testing.assert_array_equal(sdata.tables["tiles_table"].obsm["X_uni2"], values)
    (section,) = read_sections(sdata)
    assert section.um_per_px == pytest.approx(0.499)
    about = sdata.tables["tiles_table"].uns["sthisto_features"]["X_uni2"]
    assert about["width_um"] == pytest.approx(128 * 0.998, rel=0.01)
