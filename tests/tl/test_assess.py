import json
import logging

import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from tissue import GENES, encoder, make_tissue, mark_split, rows_of

import sthisto as sth
from sthisto._sdata.sections import read_sections
from sthisto.models import pixels
from sthisto.models.methods import color
from sthisto.models.passport import COLUMNS, NUMBERS
from sthisto.tl import _fold_run

PATCH = {"patch_size": 16}
FOUR = {"A": "P1", "B": "P2", "C": "P3", "D": "P4"}
FOLLOWS, NOISE, FILLER, TEXTURE = GENES[:8], GENES[8:10], GENES[10], GENES[11]
"""Genes that follow the color of the patch, nothing, the rest of the counts, and (with `textured`) the patch's side."""


def make(names="ABCD", *, patients=FOUR, side=9, seed=0):
    """Return tissue in which most counts are of one gene, so that no gene is down because others are up."""
    sdata = make_tissue(names, patients=patients, side=side, seed=seed)
    table = sdata["counts"]
    dense = table.X.toarray()
    dense[:, 10] = np.random.default_rng(1).poisson(20_000, len(dense))
    table.X = type(table.X)(dense)
    return sdata


def assessed(sdata, method="ridge", **arguments):
    own = {"image_encoder": encoder()} if method != "color" else {}
    model = sth.tl.fit(sdata, method=method, **own, **PATCH)
    sth.tl.assess(sdata, model, **arguments)
    return model


def verdicts(model):
    return model.passport.set_index("gene")["verdict"]


@pytest.fixture(scope="module")
def cohort():
    return make()


@pytest.fixture(scope="module")
def model(cohort):
    return assessed(cohort)


def permute(sdata, region, gene, seed=0):
    table = sdata["counts"]
    rows = rows_of(sdata, region)
    dense = table.X.toarray()
    column = list(table.var_names).index(gene)
    dense[rows, column] = np.random.default_rng(seed).permutation(dense[rows, column])
    table.X = type(table.X)(dense)


def test_the_passport_says_of_every_gene_how_it_was_predicted(model):
    passport = model.passport
    assert list(passport.columns) == list(COLUMNS)
    assert passport["gene"].tolist() == list(model.genes)
    assert set(passport["groups"]) == {"patient"}
    assert set(passport["n_groups"]) == {4}
    follows, noise = (passport["gene"].isin(genes) for genes in (FOLLOWS, NOISE))
    assert (passport.loc[follows, "pcc_residual_low"] > 0).all()
    assert (passport.loc[follows, ["pcc_residual", "pcc"]] > 0.4).all(axis=None)
    assert (passport.loc[noise, "verdict"] == "do not use").all()
    between = passport["pcc_residual"].between(passport["pcc_residual_low"], passport["pcc_residual_high"])
    assert between.all()
    assert passport[list(NUMBERS)].drop(columns="reproducibility").notna().all(axis=None)


def test_what_color_says_as_well_is_a_pattern_only(cohort):
    """All that these genes follow is the mean color of a patch, so nothing is more than color."""
    found = verdicts(assessed(cohort, "color"))
    assert set(found[FOLLOWS]) == {"pattern only"}
    assert set(found[NOISE]) == {"do not use"}


def test_what_color_does_not_say_can_be_used():
    """A gene that follows where in the patch the color lies, which the mean color does not tell."""
    sdata = make()
    textured(sdata)
    found = verdicts(assessed(sdata))
    assert found[TEXTURE] == "use"
    assert set(found[NOISE]) == {"do not use"}


def textured(sdata):
    """Make the left or the right half of each patch dark, at random, and the last gene follow the side."""
    rng = np.random.default_rng(5)
    table = sdata["counts"]
    dense = table.X.toarray()
    for section in read_sections(sdata):
        image = sdata[section.image_key]
        pixels = image.to_numpy().copy()
        side = rng.integers(0, 2, len(section))
        for (x, y), right in zip(section.centers.astype(int), side, strict=True):
            start = x if right else x - 8
            pixels[:, y - 8 : y + 8, start : start + 8] //= 2
        image.data = da.from_array(pixels)
        dense[section.rows, 11] = rng.poisson(np.where(side, 60, 12))
    table.X = type(table.X)(dense)


def test_a_gene_that_was_permuted_in_a_held_out_group_is_not_to_be_used():
    """If held-out spots were trained on, their permuted counts would be predicted well too."""
    sdata = make("ABC")
    textured(sdata)
    whole = assessed(sdata).passport.set_index("gene")
    permute(sdata, "B", TEXTURE)
    found = assessed(sdata).passport.set_index("gene")
    assert whole["verdict"][TEXTURE] == "use"
    assert found["verdict"][TEXTURE] != "use"
    assert found["pcc_residual"][TEXTURE] < whole["pcc_residual"][TEXTURE] - 0.15


def test_scores_are_those_of_cross_validation(cohort, model):
    cohort = make()
    sth.tl.cross_validate(
        cohort, "ridge", seeds=1, image_encoder=encoder(), genes=list(model.genes), groups="patient", **PATCH
    )
    scores = sth.get.scores(cohort, key_added="sthisto_cv")
    means = scores.groupby("gene")[["pcc_residual", "pcc", "depth_pcc_residual", "sibling"]].mean()
    passport = model.passport.set_index("gene")
    for name, column in {"pcc_residual": "pcc_residual", "pcc": "pcc", "depth_pcc_residual": "depth"}.items():
        np.testing.assert_allclose(passport[column], means.loc[passport.index, name], atol=1e-5)
    np.testing.assert_allclose(passport["ridge"], passport["pcc_residual"], atol=1e-6)


def test_folds_share_what_was_measured_of_the_pixels(cohort, monkeypatch, tmp_path):
    monkeypatch.setattr(sth.settings, "cache_dir", tmp_path)
    measured = []
    for module in (pixels, color):
        own = module.color_numbers
        monkeypatch.setattr(
            module, "color_numbers", lambda patches, own=own: measured.append(len(patches)) or own(patches)
        )
    first = assessed(cohort)
    assert sum(measured) == 2 * cohort["counts"].n_obs  # for the confidence, and for the baseline
    pd.testing.assert_frame_equal(assessed(cohort).passport, first.passport)
    assert sum(measured) == 2 * cohort["counts"].n_obs


def test_test_spots_take_no_part():
    sdata = make(side=7)
    mark_split(sdata, {"A": "train", "B": "train", "C": "train", "D": "test"})
    first = assessed(sdata).passport
    table = sdata["counts"]
    dense = table.X.toarray()
    dense[rows_of(sdata, "D")] = 1
    table.X = type(table.X)(dense)
    pd.testing.assert_frame_equal(first, assessed(sdata).passport)
    assert set(first["n_groups"]) == {3}


@pytest.mark.parametrize(
    ("names", "patients", "groups"),
    [("AB", {"A": "P1", "B": "P1"}, "section"), ("A", {"A": "P1"}, "block"), ("AB", None, "section")],
)
def test_without_patients_sections_are_held_out_and_without_these_blocks(names, patients, groups, caplog):
    sdata = make(names, patients=patients, side=12)
    if patients is None:
        del sdata["counts"].obs["patient"]
    model = assessed(sdata)
    assert set(model.passport["groups"]) == {groups}
    assert f"Held out by {groups}" in caplog.text
    assert "say nothing of new ones" in caplog.text
    assert (verdicts(model)[NOISE] == "do not use").all()
    assert (model.passport.set_index("gene").loc[FOLLOWS, "pcc_residual_low"] > 0).mean() > 0.8


def test_patients_are_named_in_the_log(cohort, caplog):
    caplog.set_level(logging.INFO, "sthisto")
    assessed(cohort, "color")
    assert "Held out by patient, 4 folds: 'P1', 'P2', 'P3', 'P4'" in caplog.text
    assert "Verdicts on 12 genes: 0 'use'" in caplog.text


def test_another_column_and_fewer_folds(cohort):
    cohort["counts"].obs["site"] = cohort["counts"].obs["region"].isin(["A", "B"]).map({True: "X", False: "Y"})
    assert set(assessed(cohort, "color", groups="site").passport["groups"]) == {"site"}
    assert set(assessed(cohort, "color", n_folds=2).passport["n_groups"]) == {4}
    with pytest.raises(KeyError, match="nope"):
        assessed(cohort, "color", groups="nope")


def test_a_constant_prediction_is_not_to_be_used(cohort):
    model = sth.tl.fit(cohort, method="mean", **PATCH)
    sth.tl.assess(cohort, model)
    assert set(model.passport["verdict"]) == {"do not use"}
    assert (model.passport["pcc_residual"] == 0).all()
    assert model.passport["ridge"].isna().all()


def test_other_data_than_the_models_are_refused(cohort, model):
    other = make_tissue("XY")
    with pytest.raises(ValueError, match=r"trained on 'A', 'B', 'C', 'D'.*holds 'X', 'Y'"):
        sth.tl.assess(other, model)


def test_killed_and_called_again_it_goes_on(tmp_path, monkeypatch):
    sdata = make("ABC", side=7)
    model = sth.tl.fit(sdata, method="knn", image_encoder=encoder(), k=5, **PATCH)
    sth.tl.assess(sdata, model, seeds=2)
    undisturbed, fit, calls = model.passport, _fold_run.fit, []

    def killed(*args, **kwargs):
        if len(calls) == 4:
            raise KeyboardInterrupt
        return counted(*args, **kwargs)

    def counted(*args, **kwargs):
        calls.append(kwargs["method"])
        return fit(*args, **kwargs)

    monkeypatch.setattr(_fold_run, "fit", killed)
    model.passport = None
    with pytest.raises(KeyboardInterrupt):
        sth.tl.assess(sdata, model, seeds=2, out=tmp_path)
    assert model.passport is None
    monkeypatch.setattr(_fold_run, "fit", counted)
    sth.tl.assess(sdata, model, seeds=2, out=tmp_path)
    assert len(calls) == 3 * (2 + 2)
    pd.testing.assert_frame_equal(model.passport, undisturbed)


def test_a_model_with_epochs_and_an_ensemble_are_refitted_with_their_options(cohort):
    small = {"max_epochs": 1, "embedding_dim": 8, "bottleneck": 4, "batch_size": 64, "k": 5}
    sdata = make("ABC", side=7)
    for more in ({}, {"n_models": 2}):
        model = sth.tl.fit(sdata, method="danet", image_encoder=encoder(), **small, **more, **PATCH)
        sth.tl.assess(sdata, model)
        assert model.passport["pcc_residual"].notna().all()


def test_the_passport_is_written_to_the_folder_of_the_model(cohort, tmp_path):
    path = tmp_path / "model"
    sth.tl.fit(cohort, method="color", **PATCH).save(path)
    assert sth.models.load(path).passport is None
    sth.tl.assess(cohort, path)
    loaded = sth.models.load(path)
    assert set(loaded.passport["groups"]) == {"patient"}
    assert "passport.parquet" in json.loads((path / "manifest.json").read_text())["files"]
    assert "pattern only" in (path / "README.md").read_text()
    assert "P1, P2, P3, P4" in (path / "README.md").read_text()
    sth.tl.assess(cohort, loaded, groups="section")
    assert set(sth.models.load(path).passport["groups"]) == {"section"}


def test_another_model_in_the_folder_is_left_alone(cohort, tmp_path, caplog):
    first = sth.tl.fit(cohort, method="color", **PATCH)
    first.save(tmp_path / "model")
    sth.tl.fit(cohort, method="mean", **PATCH).save(tmp_path / "model", overwrite=True)
    sth.tl.assess(cohort, first)
    assert first.passport is not None
    assert "does not hold this model any more" in caplog.text
    assert sth.models.load(tmp_path / "model").passport is None


def test_given_features_are_assessed_too():
    sdata = make("ABC")
    table = sdata["counts"]
    features = np.log1p(table.X.toarray()[:, [0, 5]])
    table.obsm["X_own"] = features + np.random.default_rng(0).normal(0, 0.01, features.shape).astype(np.float32)
    model = sth.tl.fit(sdata, method="ridge", features="obsm:X_own", **PATCH)
    sth.tl.assess(sdata, model)
    assert (model.passport.set_index("gene").loc[FOLLOWS, "pcc_residual"] > 0.5).all()
    np.testing.assert_allclose(model.passport["ridge"], model.passport["pcc_residual"], atol=1e-6)


def test_genes_below_the_bar_are_nan(cohort, model, caplog):
    table = cohort["counts"]
    sth.tl.predict(cohort, model, min_score=0.5)
    found = model.passport.set_index("gene")["pcc_residual"] >= 0.5
    predicted = np.isfinite(table.layers["sthisto_pred"])
    np.testing.assert_array_equal(predicted.all(axis=0), found.loc[table.var_names])
    np.testing.assert_array_equal(predicted.any(axis=0), table.var["sthisto_gene"])
    assert f"{(~found).sum()} of 12 genes are not predicted and NaN" in caplog.text
    assert table.var["sthisto_verdict"].astype(str).to_dict() == verdicts(model).to_dict()
    pd.testing.assert_frame_equal(sth.get.passport(cohort), model.passport)
    with pytest.raises(ValueError, match="Lower the bar"):
        sth.tl.predict(cohort, model, genes="use", min_score=1.0)


def test_chosen_genes_are_scored_and_drawn_alone(model):
    sdata = make("EF", patients={"E": "P5", "F": "P6"}, seed=1)
    sth.tl.predict(sdata, model, genes=FOLLOWS[:3])
    sth.tl.evaluate(sdata)
    assert set(sth.get.scores(sdata)["gene"]) == set(FOLLOWS[:3])
    assert sth.get.predictions(sdata, FOLLOWS[0]).notna().all(axis=None)
    with pytest.raises(KeyError, match="gene5"):
        sth.pl.gene_compare(sdata, "gene5")


def test_without_a_passport_genes_are_not_assessed(cohort, tmp_path):
    model = sth.tl.fit(cohort, method="color", genes=FOLLOWS, **PATCH)
    sth.tl.predict(cohort, model, key_added="plain")
    cohort.write(tmp_path / "cohort.zarr")
    column = sd.read_zarr(tmp_path / "cohort.zarr")["counts"].var["plain_verdict"].astype(str)
    assert set(column[FOLLOWS]) == {"not assessed"}
    assert set(column[NOISE]) == {""}
    for missing in (cohort, model):
        with pytest.raises(KeyError, match=r"sth\.tl\.assess"):
            sth.get.passport(missing, key_added="plain")


def test_verdicts_stand_in_titles_and_the_passport_is_drawn(cohort, model):
    sth.tl.predict(cohort, model)
    figure = sth.pl.gene_compare(cohort, ["gene0", "gene8"], sections="A", show_image=False)
    titles = [ax.get_title().replace("\n", " ") for ax in figure.axes]
    assert any(title.endswith(verdicts(model)["gene0"]) for title in titles)
    assert any(title.endswith(verdicts(model)["gene8"]) for title in titles)
    figure = sth.pl.passport(model)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    ranked = model.passport.sort_values("pcc_residual", ascending=False)
    assert labels == ranked["gene"].tolist()
    points = figure.axes[0].collections[1].get_offsets()
    np.testing.assert_allclose(points[:, 1], ranked["pcc_residual"])
    counts = model.passport["verdict"].value_counts()
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend[0] == f"use ({counts.get('use', 0)})"
    assert legend[2] == f"do not use ({counts['do not use']})"


def test_a_passport_that_cannot_be_drawn_leaves_no_figure(model, monkeypatch):
    def fail(*_args, **_kwargs):
        raise ZeroDivisionError

    plt.close("all")
    monkeypatch.setattr("matplotlib.axes.Axes.scatter", fail)
    with pytest.raises(ZeroDivisionError):
        sth.pl.passport(model)
    assert not plt.get_fignums()
