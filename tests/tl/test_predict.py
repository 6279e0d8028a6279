import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from builders import Region, as_transformation, make_sdata, similarity
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, TableModel
from spatialdata.transformations import get_transformation
from tissue import GENES, PATCH, Pool, make_tissue, rows_of

import sthisto as sth

QUICK = {"image_encoder": Pool(), "patch_size": PATCH, "genes": GENES[:6]}


@pytest.fixture(scope="module")
def cohort():
    return make_tissue("ABC")


@pytest.fixture(scope="module")
def model(cohort):
    return sth.tl.fit(cohort, method="knn", shapes_key=["A", "B"], k=5, **QUICK)


@pytest.fixture
def tissue():
    return make_tissue("ABC")


def predicted(sdata, key="sthisto"):
    return sdata["counts"].layers[f"{key}_pred"][:, :6]


def by_spot(sdata, values):
    """Values in the order of region and instance."""
    obs = sdata["counts"].obs
    return values[np.lexsort([obs["instance"], obs["region"].astype(str)])]


def reordered(sdata, seed=5, n=None):
    """The same SpatialData with its rows in another order, or only some of them."""
    table = sdata["counts"]
    rows = np.random.default_rng(seed).permutation(table.n_obs)[:n]
    table = table[rows].copy()
    del table.uns[TableModel.ATTRS_KEY]
    regions = sorted(set(table.obs["region"].astype(str)))
    table = TableModel.parse(table, region=regions, region_key="region", instance_key="instance")
    elements = {name: sdata[name] for name in (*sdata.images, *sdata.shapes)}
    return SpatialData.init_from_elements(elements | {"counts": table})


def test_prediction_of_a_spot_follows_it_through_any_order_of_rows(tissue, model):
    sth.tl.predict(tissue, model)
    shuffled = reordered(make_tissue("ABC"))
    sth.tl.predict(shuffled, model)
    np.testing.assert_array_equal(by_spot(tissue, predicted(tissue)), by_spot(shuffled, predicted(shuffled)))


def test_every_region_gets_its_own_prediction(tissue, model):
    """Each region alone gives what all together give."""
    sth.tl.predict(tissue, model)
    for region in "ABC":
        alone = make_tissue("ABC")
        sth.tl.predict(alone, model, shapes_key=region)
        rows = rows_of(alone, region)
        np.testing.assert_array_equal(predicted(alone)[rows], predicted(tissue)[rows])
        others = np.setdiff1d(np.arange(alone["counts"].n_obs), rows)
        assert np.isnan(predicted(alone)[others]).all()
        assert np.isnan(alone["counts"].obs["sthisto_confidence"].iloc[others]).all()
        assert not alone["counts"].obs["sthisto_seen"].iloc[others].any()


def test_genes_that_are_not_modeled_are_nan(tissue, model):
    sth.tl.predict(tissue, model)
    table = tissue["counts"]
    assert table.layers["sthisto_pred"].dtype == np.float32
    assert np.isnan(table.layers["sthisto_pred"][:, 6:]).all()
    assert list(table.var_names[table.var["sthisto_gene"]]) == GENES[:6]


def test_genes_in_another_order_get_their_own_values(tissue, model):
    sth.tl.predict(tissue, model)
    turned = make_tissue("ABC")
    table = turned["counts"][:, ::-1].copy()
    del turned.tables["counts"]
    turned["counts"] = table
    sth.tl.predict(turned, model)
    np.testing.assert_array_equal(table.layers["sthisto_pred"][:, ::-1][:, :6], predicted(tissue))


def test_list_of_spatialdata_is_a_cohort(tissue, model):
    both = [make_tissue("ABC"), make_tissue("ABC", seed=9)]
    sth.tl.predict(both, model)
    sth.tl.predict(tissue, model)
    np.testing.assert_array_equal(predicted(both[0]), predicted(tissue))
    assert np.isfinite(predicted(both[1])).all()


def test_expression_is_not_looked_at(tissue, model):
    sth.tl.predict(tissue, model)
    blank = make_tissue("ABC")
    blank["counts"].X = sp.csr_matrix(blank["counts"].shape, dtype=np.float32)
    sth.tl.predict(blank, model)
    np.testing.assert_array_equal(predicted(blank), predicted(tissue))


def test_spots_off_tissue_stay_nan(model):
    in_tissue = np.ones(len(Region().centers), dtype=int)
    in_tissue[:7] = 0
    sdata = make_sdata(Region(in_tissue=in_tissue))
    sth.tl.predict(sdata, model)
    off = (sdata["counts"].obs["in_tissue"] == 0).to_numpy()
    np.testing.assert_array_equal(np.isnan(predicted(sdata)).all(axis=1), off)


def test_one_spot_is_predicted_and_an_empty_section_left_out(model, caplog):
    center = np.array([[100.0, 100.0]])
    lone = Region(name="lone", image_key="lone_image", system="lone", centers=center, in_tissue=np.ones(1, dtype=int))
    off = np.zeros(len(Region().centers), dtype=int)
    empty = Region(name="empty", image_key="empty_image", system="empty", in_tissue=off)
    sdata = make_sdata(lone, empty)
    sth.tl.predict(sdata, model)
    assert "'empty' has no spot on tissue" in caplog.text
    assert np.isfinite(predicted(sdata)).all(axis=1).sum() == 1


@pytest.mark.parametrize("factor", [2, 3])
def test_section_at_another_resolution_is_resampled(factor):
    """An image blown up by a whole factor predicts what the original does, once its µm per px say so."""
    tissue = make_tissue("ABC")
    model = sth.tl.fit(tissue, method="ridge", shapes_key=["A", "B"], um_per_px=1.0, **QUICK)
    sth.tl.predict(tissue, model, shapes_key="C", um_per_px=1.0)
    large = make_tissue("ABC")
    pixels = np.asarray(large["C_image"].data).repeat(factor, axis=1).repeat(factor, axis=2)
    to_slide = get_transformation(large["C_image"], "C_slide").to_affine_matrix(("x", "y"), ("x", "y"))
    del large.images["C_image"]
    image_to_slide = as_transformation(to_slide @ similarity(scale=1 / factor))
    large["C_image"] = Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations={"C_slide": image_to_slide})
    rows = rows_of(tissue, "C")
    sth.tl.predict(large, model, shapes_key="C", um_per_px=1 / factor)
    resampled = np.abs(predicted(large)[rows] - predicted(tissue)[rows]).mean()
    sth.tl.predict(large, model, shapes_key="C", um_per_px=1.0)
    wrong = np.abs(predicted(large)[rows] - predicted(tissue)[rows]).mean()
    assert resampled < 0.25 * wrong


def test_results_of_two_keys_stand_side_by_side(tissue, model):
    sth.tl.predict(tissue, model)
    first = predicted(tissue).copy()
    sth.tl.predict(tissue, sth.tl.fit(tissue, method="mean", genes=GENES[:6], key_added="mean"), key_added="mean")
    np.testing.assert_array_equal(predicted(tissue), first)
    assert not np.array_equal(predicted(tissue, "mean"), first)
    assert {"sthisto", "mean"} <= set(tissue["counts"].uns)


def test_second_prediction_under_a_key_leaves_nothing_of_the_first(tissue, model):
    sth.tl.predict(tissue, model)
    sth.tl.predict(tissue, sth.tl.fit(tissue, method="color", patch_size=PATCH, key_added="other"))
    table = tissue["counts"]
    assert "sthisto_pred" in table.layers
    assert "sthisto_pred_sd" not in table.layers
    sth.tl.predict(tissue, sth.tl.fit(tissue, method="mean", patch_size=PATCH, key_added="other"))
    assert "sthisto_confidence" not in table.obs


def test_missing_genes_are_named_with_the_remedies(model):
    sdata = make_sdata(n_genes=3)
    with pytest.raises(KeyError, match=r"3 of the model's 6 genes.*'gene3'.*gene_symbols=.*new_table_key="):
        sth.tl.predict(sdata, model)
    sth.tl.predict(sdata, model, new_table_key="predicted")
    assert list(sdata["predicted"].var_names) == GENES[:6]


def test_genes_are_matched_by_a_column_of_var(tissue, model):
    tissue["counts"].var["own"] = tissue["counts"].var_names
    tissue["counts"].var_names = [f"ENS{i}" for i in range(12)]
    sth.tl.predict(tissue, model, gene_symbols="own")
    assert np.isfinite(predicted(tissue)).all()
    assert tissue["counts"].uns["sthisto"]["gene_symbols"] == "own"


def test_new_table_holds_the_modeled_genes_of_the_predicted_spots(tissue, model):
    sth.tl.predict(tissue, model)
    rows = rows_of(tissue, "B")
    other = make_tissue("ABC")
    before = set(other["counts"].layers) | set(other["counts"].obs) | set(other["counts"].uns)
    sth.tl.predict(other, model, shapes_key="B", new_table_key="predicted")
    table = other["predicted"]
    assert list(table.var_names) == GENES[:6]
    assert list(table.obs_names) == list(tissue["counts"].obs_names[rows])
    np.testing.assert_array_equal(table.X, predicted(tissue)[rows])
    np.testing.assert_array_equal(table.layers["sthisto_pred"], table.X)
    assert table.uns["sthisto"]["holds_measurement"] is False
    assert table.uns[TableModel.ATTRS_KEY]["region"] in ("B", ["B"])
    assert set(other["counts"].layers) | set(other["counts"].obs) | set(other["counts"].uns) == before


def test_new_table_is_not_put_over_another(model):
    pair = [make_tissue("ABC"), make_tissue("ABC")]
    sth.tl.predict(pair[1], model, new_table_key="predicted")
    with pytest.raises(ValueError, match="There is a table 'predicted' already"):
        sth.tl.predict(pair, model, table_key="counts", new_table_key="predicted")
    assert "predicted" not in pair[0].tables


def test_new_tables_of_a_cohort_skip_one_without_spots(model):
    empty = Region(in_tissue=np.zeros(len(Region().centers), dtype=int))
    pair = [make_sdata(empty), make_tissue("ABC")]
    sth.tl.predict(pair, model, new_table_key="predicted")
    assert "predicted" not in pair[0].tables
    assert pair[1]["predicted"].n_obs == 147


def test_nothing_is_written_when_the_second_of_a_cohort_lacks_genes(tissue, model):
    with pytest.raises(KeyError, match="of the model's 6 genes"):
        sth.tl.predict([tissue, make_sdata(n_genes=3)], model)
    assert set(tissue["counts"].layers) - {None} == set()
    assert "sthisto" not in tissue["counts"].uns


def test_own_section_is_not_retrieved(tissue, model):
    neighbors = sth.get.neighbors(tissue, model)
    own = neighbors["section"] == neighbors["training_section"]
    assert not own.any()
    assert set(neighbors.loc[neighbors["section"] == "A", "training_section"]) == {"B"}
    assert set(neighbors.loc[neighbors["section"] == "C", "training_section"]) == {"A", "B"}


def test_own_section_is_recognized_by_its_pixels_after_renaming_subsetting_and_shuffling(model):
    original = make_tissue("ABC")
    sth.tl.predict(original, model, shapes_key="A")
    expected = by_spot(original, predicted(original))[:49]
    renamed = make_tissue("ABC")
    table = renamed["counts"]
    few = table[rows_of(renamed, "A")[::-2]].copy()
    few.obs["region"] = "Z"
    few.obs["region"] = few.obs["region"].astype("category")
    del few.uns[TableModel.ATTRS_KEY]
    few = TableModel.parse(few, region="Z", region_key="region", instance_key="instance")
    part = SpatialData(images={"scan": renamed["A_image"]}, shapes={"Z": renamed["A"]}, tables={"counts": few})
    neighbors = sth.get.neighbors(part, model)
    assert set(neighbors["training_section"]) == {"B"}
    sth.tl.predict(part, model)
    assert part["counts"].obs["sthisto_seen"].all()
    kept = few.obs["instance"].to_numpy() - 100
    np.testing.assert_array_equal(predicted(part), expected[kept])


def test_spot_rule_excludes_the_spot_alone_and_none_excludes_nothing(tissue, model):
    def itself(exclude):
        found = sth.get.neighbors(tissue, model, exclude=exclude, shapes_key="A")
        names = tissue["counts"].obs_names[rows_of(tissue, "A")]
        position = found["spot"].map({name: i for i, name in enumerate(names)})
        return found, (position == found["training_spot"]) & (found["training_section"] == "A")

    found, own = itself("spot")
    assert not own.any()
    assert "A" in set(found["training_section"])
    assert itself("none")[1].groupby(itself("none")[0]["spot"]).any().all()
    sth.tl.predict(tissue, model, exclude="none")
    assert tissue["counts"].uns["sthisto"]["excluded"] == "none"


def test_model_of_one_section_excludes_each_spot_alone_says_so_and_records_it(tissue, caplog):
    model = sth.tl.fit(tissue, method="knn", shapes_key="A", k=5, **QUICK)
    sth.tl.predict(tissue, model)
    assert "never themselves" in caplog.text
    assert tissue["counts"].uns["sthisto"]["excluded"] == "spot"
    sth.tl.predict(tissue, model, shapes_key="C")
    assert tissue["counts"].uns["sthisto"]["excluded"] == "section"
    with pytest.raises(ValueError, match="all of them are excluded"):
        sth.tl.predict(tissue, model, shapes_key="A", exclude="section")
    with pytest.raises(ValueError, match="'section', 'spot', 'none'"):
        sth.tl.predict(tissue, model, exclude="patient")


def test_fewer_allowed_spots_than_k_are_averaged_and_said(tissue, caplog):
    model = sth.tl.fit(tissue, method="knn", shapes_key=["A", "B"], k=80, **QUICK)
    sth.tl.predict(tissue, model, shapes_key="A")
    assert "only 49 training spots" in caplog.text
    expected = model._bank.expression[model.training_spots.section == 1].mean(axis=0)
    np.testing.assert_allclose(predicted(tissue)[rows_of(tissue, "A")], np.tile(expected, (49, 1)), rtol=1e-5)


def test_saved_model_predicts_the_same_in_another_process(tissue, model, tmp_path):
    sth.tl.predict(tissue, model)
    model.save(tmp_path / "model")
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "import numpy as np, sthisto as sth\n"
        "from tissue import Pool, make_tissue\n"
        "sth.settings.progress = sth.settings.cache_features = False\n"
        f"model = sth.models.load({str(tmp_path / 'model')!r}, image_encoder=Pool())\n"
        "tissue = make_tissue('ABC')\n"
        "sth.tl.predict(tissue, model)\n"
        f"np.save({str(tmp_path / 'prediction.npy')!r}, tissue['counts'].layers['sthisto_pred'])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    np.testing.assert_array_equal(np.load(tmp_path / "prediction.npy")[:, :6], predicted(tissue))


def test_results_survive_writing_and_reading(tissue, model, tmp_path):
    sth.pp.split(tissue, by="section", test=["C"])
    sth.tl.predict(tissue, model)
    sth.tl.evaluate(tissue)
    sth.tl.predict(tissue, sth.tl.fit(tissue, method="mean", key_added="mean"), key_added="mean")
    tissue.write(tmp_path / "tissue.zarr")
    stored, table = SpatialData.read(tmp_path / "tissue.zarr")["counts"], tissue["counts"]
    for name in ("sthisto_pred", "sthisto_pred_sd", "mean_pred"):
        np.testing.assert_array_equal(stored.layers[name], table.layers[name])
    for column in ("sthisto_confidence", "sthisto_seen", "sthisto_split"):
        assert stored.obs[column].astype(str).tolist() == table.obs[column].astype(str).tolist()
    for column in ("sthisto_gene", "sthisto_pcc", "sthisto_pcc_residual", "sthisto_sibling", "sthisto_ceiling"):
        np.testing.assert_array_equal(stored.var[column], table.var[column])
    for key in ("sthisto", "mean"):
        was, found = table.uns[key], stored.uns[key]
        assert found.keys() == was.keys()
        assert np.isnan(found["patch"]["um_per_px"])
        assert list(found["training_sections"]) == list(was["training_sections"])
        assert dict(found["normalization"]) == was["normalization"]
        assert len(found["history"]) == 0
    scores = stored.uns["sthisto"]["scores"].reset_index(drop=True)
    for column in scores:
        assert scores[column].tolist() == pytest.approx(table.uns["sthisto"]["scores"][column].tolist(), nan_ok=True)
    sth.tl.evaluate(SpatialData.read(tmp_path / "tissue.zarr"))


def test_unfitted_model_is_refused(tissue, model):
    fresh = type(model)(GENES[:6], patch=model.patch, encoder=model.encoder)
    with pytest.raises(RuntimeError, match="'knn' model is not fitted"):
        sth.tl.predict(tissue, fresh)
