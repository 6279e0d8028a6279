"""Sets of genes and proportions of cell types in place of genes: learned, predicted, scored, drawn, saved."""

from __future__ import annotations

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from tissue import GENES, PATCH, Pool, encoder, make_tissue, mark_split, rows_of

import sthisto as sth
from sthisto import metrics
from sthisto.models.simplex import to_simplex

SETS = {"first": GENES[:4], "second/half": GENES[4:8]}
QUICK = {"patch_size": PATCH, "image_encoder": encoder()}
MIXED = {"method": "color", "patch_size": PATCH}


def with_types(sdata) -> sd.SpatialData:
    """Give every spot proportions of three types that follow its genes, as a DataFrame."""
    table = sdata["counts"]
    counts = table.X.toarray()
    shares = np.stack([counts[:, :4].sum(1), counts[:, 4:8].sum(1), counts[:, 8:].sum(1)], axis=1)
    shares /= shares.sum(axis=1, keepdims=True)
    table.obsm["types"] = pd.DataFrame(shares, index=table.obs_names, columns=["tumor", "T and B cells", "stroma"])
    return sdata


@pytest.fixture
def tissue():
    sdata = with_types(make_tissue("ABC", patients={"A": "P1", "B": "P2", "C": "P3"}))
    mark_split(sdata, {"A": "train", "B": "train", "C": "test"})
    return sdata


def test_the_target_of_a_set_is_the_mean_of_its_residuals(tissue):
    model = sth.tl.fit(tissue, target_sets=SETS, **MIXED)
    assert model.genes == ("first", "second/half")
    sth.tl.predict(tissue, model)
    sth.tl.evaluate(tissue, n_boot=20)
    table, rows = tissue["counts"], rows_of(tissue, "C")
    found = sth.get.predictions(tissue)
    assert list(found.columns) == ["first", "second/half"]
    np.testing.assert_array_equal(found.to_numpy(), table.obsm["sthisto_pred"])
    residuals = metrics.pearson_residuals(table.X[rows])
    truth = np.stack([residuals[:, :4].mean(axis=1), residuals[:, 4:8].mean(axis=1)], axis=1)
    expected = metrics.pearson(truth, found.to_numpy()[rows])
    scores = sth.get.scores(tissue).set_index("gene")
    np.testing.assert_allclose(scores["pcc_residual"], expected, rtol=1e-5)
    np.testing.assert_allclose(scores["pcc"], expected, rtol=1e-5)
    assert expected.min() > 0.6
    assert scores["pcc_residual"].mean() > 0.5


def test_noise_averages_out_in_a_set(tissue):
    table, rows = tissue["counts"], rows_of(tissue, "C")
    weights = np.zeros((12, 1))
    weights[:4] = 0.25
    of_set = metrics.reproducibility(table.X[rows], set_weights=weights)
    of_genes = metrics.reproducibility(table.X[rows])
    assert of_set.reliability[0] > of_genes.reliability[:4].max()
    single = metrics.reproducibility(table.X[rows], set_weights=np.eye(12))
    np.testing.assert_allclose(single.reliability, of_genes.reliability)
    np.testing.assert_allclose(single.reliability_low, of_genes.reliability_low)
    with pytest.raises(ValueError, match="a row for each of 12 genes"):
        metrics.reproducibility(table.X[rows], set_weights=np.eye(3))


@pytest.mark.parametrize("method", ["color", "ridge", "knn", "mean"])
def test_predicted_proportions_are_not_negative_and_add_up_to_one(tissue, method):
    own = MIXED if method == "color" else {"method": method, **QUICK} | ({"k": 5} if method == "knn" else {})
    model = sth.tl.fit(tissue, target="obsm:types", **own)
    sth.tl.predict(tissue, model, smooth=0.3)
    found = sth.get.predictions(tissue)
    assert list(found.columns) == ["tumor", "T and B cells", "stroma"]
    assert found.to_numpy().min() >= 0
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_types_are_found_by_their_names_in_any_order(tissue):
    table = tissue["counts"]
    sth.tl.predict(tissue, sth.tl.fit(tissue, target="obsm:types", **MIXED))
    sth.tl.evaluate(tissue, n_boot=0)
    before = sth.get.scores(tissue).set_index("gene")["pcc"]
    table.obsm["types"] = table.obsm["types"][table.obsm["types"].columns[::-1]]
    sth.tl.evaluate(tissue, n_boot=0)
    pd.testing.assert_series_equal(sth.get.scores(tissue).set_index("gene")["pcc"], before)
    table.obsm["types"] = table.obsm["types"].rename(columns={"stroma": "other"})
    with pytest.raises(ValueError, match=r"has the columns 'other'.* expected 'tumor'"):
        sth.tl.evaluate(tissue, n_boot=0)


def test_proportions_are_scored_without_counts(tissue):
    table = tissue["counts"]
    table.X = np.log1p(table.X.toarray() / 3.0)
    sth.tl.predict(tissue, sth.tl.fit(tissue, target="obsm:types", **MIXED))
    sth.tl.evaluate(tissue, n_boot=20)
    rows = rows_of(tissue, "C")
    expected = metrics.pearson(table.obsm["types"].to_numpy()[rows], table.obsm["sthisto_pred"][rows])
    scores = sth.get.scores(tissue)
    np.testing.assert_allclose(scores["pcc"], expected, rtol=1e-5)
    assert scores[["reproducibility", "depth_pcc"]].isna().all(axis=None)
    assert sth.get.scores(tissue, by="section")["pcc_residual"].notna().all()


@pytest.mark.parametrize("arguments", [{"target_sets": SETS}, {"target": "obsm:types"}])
def test_models_of_targets_survive_disk_and_are_drawn_and_exported(tissue, tmp_path, arguments):
    model = sth.tl.fit(tissue, **arguments, **MIXED)
    model.save(tmp_path / "model.sthisto")
    again = sth.models.load(tmp_path / "model.sthisto")
    assert again.normalization == model.normalization
    sth.tl.predict(tissue, again)
    expected = sth.get.predictions(tissue)
    tissue.write(tmp_path / "tissue.zarr")
    stored = sd.read_zarr(tmp_path / "tissue.zarr")
    pd.testing.assert_frame_equal(sth.get.predictions(stored), expected)
    sth.tl.evaluate(stored, n_boot=0)
    name = model.genes[1]
    assert sth.get.anndata(stored, name).var_names.tolist() == [name]
    plt.close(sth.pl.gene_compare(stored, name, sections="C"))
    plt.close(sth.pl.scores(stored))
    sth.tl.predict(stored, again, new_table_key="predicted")
    of_table = sth.get.predictions(stored, table_key="predicted").sort_index()
    pd.testing.assert_frame_equal(of_table, expected.sort_index(), check_names=False)


@pytest.mark.parametrize("arguments", [{"target_sets": SETS}, {"target": "obsm:types"}])
def test_models_of_targets_are_assessed_and_reported_as_those_of_genes(tmp_path, arguments):
    names = {"A": "P1", "B": "P2", "C": "P3", "D": "P4"}
    tissue = with_types(make_tissue("ABCD", patients=names, side=9))
    mark_split(tissue, {"A": "train", "B": "train", "C": "train", "D": "test"})
    model = sth.tl.fit(tissue, method="ridge", **QUICK, **arguments)
    sth.tl.assess(tissue, model, n_boot=50)
    passport = model.passport
    assert passport["gene"].tolist() == list(model.genes)
    assert set(passport["n_groups"]) == {3}
    sth.tl.cross_validate(tissue, "ridge", seeds=1, groups="patient", shapes_key=["A", "B", "C"], **QUICK, **arguments)
    scores = sth.get.scores(tissue, key_added="sthisto_cv").groupby("gene")["pcc_residual"].mean()
    np.testing.assert_allclose(passport["pcc_residual"], scores[list(model.genes)], atol=1e-5)
    model.save(tmp_path / "model.sthisto")
    card = (tmp_path / "model.sthisto" / "README.md").read_text(encoding="utf-8")
    assert "genes=genes" not in card
    assert ("target_sets=target_sets" in card) == ("target_sets" in arguments)
    again = sth.models.load(tmp_path / "model.sthisto", image_encoder=Pool())
    pd.testing.assert_frame_equal(again.passport, passport)
    sth.tl.predict(tissue, again, genes=[model.genes[0]])
    sth.tl.evaluate(tissue, n_boot=20)
    sth.tl.report(tissue, out=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    what = "sets of genes" if "target_sets" in arguments else "cell types"
    assert f"Passport: which {what}" in page
    assert f"over 1 {what} and" in page
    assert "nan" not in re.sub(r"base64,[\w+/=]+", "", page).lower()


def test_a_model_of_genes_and_one_of_sets_replace_each_other(tissue):
    table = tissue["counts"]
    sth.tl.predict(tissue, sth.tl.fit(tissue, target_sets=SETS, **MIXED))
    sth.tl.predict(tissue, sth.tl.fit(tissue, genes=GENES, **MIXED))
    assert "sthisto_pred" not in table.obsm
    assert list(sth.get.predictions(tissue).columns) == GENES
    sth.tl.predict(tissue, sth.tl.fit(tissue, target_sets=SETS, **MIXED))
    assert "sthisto_pred" not in table.layers
    assert "sthisto_gene" not in table.var


def test_folds_hold_out_proportions_and_keep_given_features(tissue, monkeypatch):
    from sthisto.tl import _fold_run

    table = tissue["counts"]
    table.obsm["X_given"] = table.X.toarray()[:, :6] + 0.5
    table.uns["sthisto_features"] = {"X_given": {"width_um": 112.0}}
    seen, predict = [], _fold_run.predict

    def look(sdata, model, **more):
        seen.extend(list(one["counts"].obsm) for one in sdata)
        return predict(sdata, model, **more)

    monkeypatch.setattr(_fold_run, "predict", look)
    shared = {"features": "obsm:X_given", "patch_size": PATCH, "seeds": 1}
    sth.tl.cross_validate(tissue, "ridge", target="obsm:types", **shared)
    assert seen == [["X_given"]] * 3
    scores = sth.get.scores(tissue, key_added="sthisto_cv")
    assert set(scores["gene"]) == {"tumor", "T and B cells", "stroma"}
    assert scores.loc[scores["gene"] == "tumor", "pcc"].min() > 0.8
    sth.tl.cross_validate(tissue, "ridge", target_sets=SETS, **shared)
    assert set(sth.get.scores(tissue, key_added="sthisto_cv")["gene"]) == set(SETS)


def test_sets_are_read_from_a_gmt_file(tissue, tmp_path, caplog):
    path = tmp_path / "sets.gmt"
    path.write_text("first\tof a test\t" + "\t".join([*GENES[:4], "MISSING", ""]) + "\n\nsecond\t\tgene5\n")
    model = sth.tl.fit(tissue, target_sets=path, **MIXED)
    assert model.normalization["targets"] == ["\t".join(["first", *GENES[:4]]), "second\tgene5"]
    assert "first (4 of 5)" in caplog.text
    path.write_text("first\x85name\tof a test\tgene1\r\n", encoding="utf-8")
    assert sth.tl.fit(tissue, target_sets=path, **MIXED).genes == ("first\x85name",)
    for text, words in (
        (b"first\tonly\n", "no set of genes"),
        (b"a\tb\tgene1\na\tb\tgene2\n", "Line 2 .* second set named 'a'"),
        (b"", "holds no set"),
        ("ä\tb\tgene1\n".encode("latin-1"), "no text in UTF-8"),
    ):
        path.write_bytes(text)
        with pytest.raises(ValueError, match=words):
            sth.tl.fit(tissue, target_sets=path, **MIXED)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"target_sets": {"a": ["nope"]}}, KeyError, "No gene of 'a'"),
        ({"target_sets": {"a": []}}, ValueError, "GMT|empty"),
        ({"target_sets": {}}, ValueError, "has no set of genes"),
        ({"target_sets": {"a": "gene1"}}, ValueError, "is the text 'gene1'"),
        ({"target_sets": 3}, TypeError, "a GMT file, or a mapping"),
        ({"target_sets": "missing.gmt"}, FileNotFoundError, "no file"),
        ({"target_sets": SETS, "genes": GENES}, ValueError, "Leave one of them out"),
        ({"target_sets": SETS, "target": "log1p"}, ValueError, "Leave one of them out"),
        ({"target": "obsm:nope"}, KeyError, "the slots of obsm"),
        ({"target": "obsm:"}, ValueError, "'obsm:KEY'"),
        ({"target": "obsm:wrong"}, ValueError, "no proportions"),
        ({"target": "obsm:text"}, ValueError, "no proportions"),
        ({"target": "obsm:same"}, ValueError, "need names of their own"),
    ],
)
def test_targets_that_cannot_be_learned_are_refused(tissue, arguments, error, words):
    table = tissue["counts"]
    table.obsm["wrong"] = np.full((table.n_obs, 2), -1.0)
    table.obsm["text"] = pd.DataFrame({"a": 0.5, "b": "half"}, index=table.obs_names)
    table.obsm["same"] = pd.DataFrame(np.full((table.n_obs, 2), 0.5), index=table.obs_names, columns=["a", "a"])
    before = set(tissue["counts"].obsm)
    with pytest.raises(error, match=words):
        sth.tl.fit(tissue, **arguments, **MIXED)
    assert set(tissue["counts"].obsm) == before


def test_the_nearest_proportions_minimize_the_distance():
    rng = np.random.default_rng(0)
    values, others = rng.normal(size=(50, 4)), rng.dirichlet(np.ones(4), 2000)
    found = to_simplex(values)
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    distance = np.linalg.norm(values - found, axis=1)
    assert (distance[:, None] <= np.linalg.norm(values[:, None] - others, axis=2) + 1e-6).all()
    np.testing.assert_allclose(to_simplex(others[:9]), others[:9], atol=1e-6)
    assert np.isnan(to_simplex(np.full((1, 3), np.nan))).all()
