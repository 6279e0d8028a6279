import dataclasses
import itertools
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tissue import encoder, make_tissue
from torch import nn

import sthisto as sth
from sthisto._splits import folds
from sthisto._splits.blocks import shares_pixels, spatial_bands
from sthisto._splits.folds import group_folds
from sthisto.models import METHODS, ExpressionModel, Prediction
from sthisto.tl import _fold_run

PATCH = {"patch_size": 16}
SECONDS = ["seconds_fit", "seconds_predict"]


@pytest.fixture
def tissue():
    return make_tissue("ABC", patients={"A": "P1", "B": "P2", "C": "P2"})


def tables(sdata):
    return [sth.get.scores(sdata, key_added="sthisto_cv", by=by) for by in ("gene", "section")]


def test_every_section_is_scored_by_models_of_the_other_patients(tissue):
    sth.tl.cross_validate(
        tissue, ["color", "knn"], seeds=2, image_encoder=encoder(), options={"knn": {"k": 5}}, **PATCH
    )
    scores, summary = tables(tissue)
    assert set(scores.groupby("section")["fold"].unique().map(tuple).items()) == {
        ("A", ("P1",)),
        ("B", ("P2",)),
        ("C", ("P2",)),
    }
    assert set(zip(scores["method"], scores["seed"], strict=True)) == {(m, s) for m in ("color", "knn") for s in (0, 1)}
    overall = summary[summary["section"] == "all"].set_index(["method", "seed"])
    by_section = summary[summary["section"] != "all"].groupby(["method", "seed"])
    np.testing.assert_allclose(overall["pcc"], by_section["pcc"].mean()[overall.index])
    assert (overall["n_spots"] == 3 * 49).all()
    assert (overall["pcc_residual"] > 0.2).all()


def test_scores_are_those_of_a_fit_on_the_training_sections_alone(tissue):
    sth.tl.cross_validate(tissue, "color", seeds=1, **PATCH)
    found = tables(tissue)[0].query("fold == 'P1'").set_index("gene")
    alone = make_tissue("ABC", patients={"A": "P1", "B": "P2", "C": "P2"})
    model = sth.tl.fit(alone, method="color", shapes_key=["B", "C"], **PATCH)
    sth.tl.predict(alone, model, shapes_key="A")
    sth.tl.evaluate(alone, shapes_key="A")
    expected = sth.get.scores(alone).set_index("gene")
    pd.testing.assert_series_equal(found["pcc_residual"], expected["pcc_residual"].loc[found.index])


class OneChannel(nn.Module):
    """An encoder that sees one color, by its weights."""

    def __init__(self, channel):
        super().__init__()
        self.weight = nn.Parameter(nn.functional.one_hot(torch.tensor(channel), 3).float())

    def forward(self, pixels):
        return (pixels * self.weight.view(1, 3, 1, 1)).sum(1).flatten(1).unfold(1, 64, 64).mean(-1)


def test_an_encoder_of_a_methods_own_is_told_apart_by_its_weights(tissue, tmp_path):
    arguments = {"seeds": 1, "out": tmp_path, "image_encoder": encoder(), **PATCH}
    found = []
    for channel in (0, 1):
        own = {"ridge": {"image_encoder": OneChannel(channel)}}
        sth.tl.cross_validate(tissue, "ridge", options=own, **arguments)
        found.append(tables(tissue)[0]["pcc"].to_numpy())
    assert len(list(tmp_path.glob("*.parquet"))) == 2 * 2
    assert np.abs(found[0] - found[1]).max() > 0.05


def test_nothing_is_written_but_the_table_and_it_survives_disk(tissue, tmp_path):
    import spatialdata as sd

    table = tissue["counts"]
    before = table.copy()
    sth.tl.cross_validate(tissue, "mean", seeds=1, **PATCH)
    assert set(table.uns) - set(before.uns) == {"sthisto_cv"}
    assert list(table.obs) == list(before.obs)
    assert list(table.var) == list(before.var)
    assert (table.X != before.X).nnz == 0
    tissue.write(tmp_path / "cv.zarr")
    again = sth.get.scores(sd.read_zarr(tmp_path / "cv.zarr"), key_added="sthisto_cv")
    assert again["gene"].tolist() == tables(tissue)[0]["gene"].tolist()


def test_killed_and_started_again_it_ends_with_the_same_table(tissue, tmp_path, monkeypatch):
    arguments = {"seeds": 2, "image_encoder": encoder(), "options": {"knn": {"k": 5}}, **PATCH}
    sth.tl.cross_validate(tissue, ["knn", "color"], **arguments)
    undisturbed = tables(tissue)
    fit, calls = _fold_run.fit, []

    def count(*args, **kwargs):
        calls.append(kwargs["method"])
        return fit(*args, **kwargs)

    def killed(*args, **kwargs):
        if len(calls) == 5:
            raise KeyboardInterrupt
        return count(*args, **kwargs)

    other = make_tissue("ABC", patients={"A": "P1", "B": "P2", "C": "P2"})
    monkeypatch.setattr(_fold_run, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        sth.tl.cross_validate(other, ["knn", "color"], out=tmp_path, **arguments)
    assert "sthisto_cv" not in other["counts"].uns
    assert len(list(tmp_path.glob("*.parquet"))) == len(list(tmp_path.iterdir())) == 5
    monkeypatch.setattr(_fold_run, "fit", count)
    sth.tl.cross_validate(other, ["knn", "color"], out=tmp_path, **arguments)
    assert len(calls) == 8
    for found, expected in zip(tables(other), undisturbed, strict=True):
        pd.testing.assert_frame_equal(
            found.drop(columns=SECONDS, errors="ignore"), expected.drop(columns=SECONDS, errors="ignore")
        )


def test_kept_folds_are_not_taken_for_other_data_or_arguments(tissue, tmp_path):
    sth.tl.cross_validate(tissue, "mean", seeds=1, out=tmp_path, **PATCH)
    sth.tl.cross_validate(tissue, "mean", seeds=1, out=tmp_path, genes=["gene0", "gene1", "gene2"], **PATCH)
    assert set(tables(tissue)[0]["gene"]) == {"gene0", "gene1", "gene2"}
    assert tissue["counts"].uns["sthisto_cv"]["genes_rule"] == "given"
    other = make_tissue("ABC", seed=1, patients={"A": "P1", "B": "P2", "C": "P2"})
    sth.tl.cross_validate(other, "mean", seeds=1, out=tmp_path, **PATCH)
    assert len(list(tmp_path.glob("*.parquet"))) == 6


def test_a_damaged_file_is_named(tissue, tmp_path):
    sth.tl.cross_validate(tissue, "mean", seeds=1, out=tmp_path, **PATCH)
    file = sorted(tmp_path.glob("*.parquet"))[0]
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{file.name} is damaged.*Delete it"):
        sth.tl.cross_validate(tissue, "mean", seeds=1, out=tmp_path, **PATCH)


class Cheat(ExpressionModel):
    """Remembers all expression that it can lay hands on, by the pixels of the spots."""

    method = "cheat"
    uses_encoder = False
    known: dict = {}  # noqa: RUF012

    def fit_sections(self, sections, seed):
        for section in sections:
            prints = section.inputs.fingerprint()
            rows = np.isfinite(section.expression).all(axis=1)
            type(self).known = {**type(self).known, **dict(zip(prints[rows], section.expression[rows], strict=True))}

    def predict_section(self, section, exclude):
        prints = section.fingerprint()
        rng = np.random.default_rng(0)
        guess = rng.normal(size=(len(prints), len(self.genes)))
        rows = [self.known.get(p, g) for p, g in zip(prints, guess, strict=True)]
        return Prediction(np.asarray(rows, dtype=np.float32), self.seen(prints))

    def state(self):
        return {}

    def load_state(self, state):
        pass


@pytest.fixture
def cheat(monkeypatch):
    monkeypatch.setitem(METHODS, "cheat", Cheat)
    monkeypatch.setattr(Cheat, "known", {})


@pytest.mark.parametrize("groups", ["patient", "section", "block"])
def test_a_method_that_remembers_expression_gains_nothing(cheat, tissue, groups, monkeypatch):
    fit = _fold_run.fit

    def forgetful(*args, **kwargs):
        Cheat.known = {}
        return fit(*args, **kwargs)

    monkeypatch.setattr(_fold_run, "fit", forgetful)
    sth.tl.cross_validate(tissue, "cheat", groups=groups, seeds=1, **PATCH)
    overall = tables(tissue)[1].query("section == 'all'")
    assert overall["pcc"].abs().max() < 0.15
    assert overall["pcc_residual"].abs().max() < 0.15


def test_a_method_that_remembers_expression_is_refused_a_score_on_what_it_saw(cheat, tissue):
    model = sth.tl.fit(tissue, method="cheat", **PATCH)
    sth.tl.predict(tissue, model)
    with pytest.raises(ValueError, match="trained on 49 of the spots to score"):
        sth.tl.evaluate(tissue)


def test_expression_of_held_out_spots_is_nowhere_before_the_scoring(tissue, monkeypatch):
    fit, predict, seen = _fold_run.fit, _fold_run.predict, []

    def watched_fit(cohort, **kwargs):
        seen.append({str(name) for one in cohort for name in one["counts"].obs["region"]})
        return fit(cohort, **kwargs)

    def watched_predict(cohort, model, **kwargs):
        for one in cohort:
            assert one["counts"].X.nnz == 0
            assert not set(one["counts"].obs["region"].astype(str)) & seen[-1]
        return predict(cohort, model, **kwargs)

    monkeypatch.setattr(_fold_run, "fit", watched_fit)
    monkeypatch.setattr(_fold_run, "predict", watched_predict)
    sth.tl.cross_validate(tissue, "mean", seeds=1, **PATCH)
    assert seen == [{"B", "C"}, {"A"}]


def test_the_same_spot_under_another_name_on_the_other_side_is_refused():
    twins = [make_tissue(["A"], patients={"A": name}) for name in ("P1", "P2")]
    with pytest.raises(ValueError, match="trained on 49 of the spots"):
        sth.tl.cross_validate(twins, "color", seeds=1, **PATCH)


def test_sections_of_a_cohort_keep_their_names():
    cohort = [make_tissue(["A"], seed=seed, patients={"A": f"P{seed}"}) for seed in range(2)]
    sth.tl.cross_validate(cohort, "mean", seeds=1, **PATCH)
    scores = tables(cohort)[0]
    assert set(zip(scores["fold"], scores["section"], strict=True)) == {("P0", "0:A"), ("P1", "1:A")}


def test_a_panel_is_kept_in_every_fold_and_names_are_part_of_the_kept_files(tissue, tmp_path):
    table = tissue["counts"]
    table.var["symbol"] = [f"symbol{i}" for i in range(table.n_vars)]
    panel = ["symbol1", "symbol2", "symbol3"]
    sth.pp.select_genes(tissue, panel, gene_symbols="symbol")
    for _ in range(2):
        sth.tl.cross_validate(tissue, "mean", seeds=1, out=tmp_path, gene_symbols="symbol", **PATCH)
        assert set(tables(tissue)[0]["gene"]) == set(panel)
        assert table.uns["sthisto_cv"]["genes_rule"] == "given"
    n_files = len(list(tmp_path.glob("*.parquet")))
    table.var["symbol"] = np.roll(table.var["symbol"], 1)
    sth.tl.cross_validate(tissue, "mean", seeds=1, out=tmp_path, gene_symbols="symbol", **PATCH)
    assert len(list(tmp_path.glob("*.parquet"))) == 2 * n_files


def test_genes_are_chosen_on_the_training_spots_of_each_fold(tissue):
    table = tissue["counts"]
    counts = table.X.toarray()
    counts[:, 1:] = np.where(counts[:, 1:] > 0, 30, 0)
    in_a = (table.obs["region"] == "A").to_numpy()
    counts[np.ix_(in_a, [3])] = np.random.default_rng(0).poisson(40, (in_a.sum(), 1))
    counts[np.ix_(~in_a, [3])] = 0
    table.X = type(table.X)(counts.astype(np.float32))
    sth.tl.cross_validate(tissue, "mean", seeds=1, **PATCH)
    genes = tables(tissue)[0].groupby("fold")["gene"].agg(set)
    assert "gene3" not in genes["P1"]
    assert "gene3" in genes["P2"]


def test_bands_leave_no_pixel_on_both_sides(tissue, monkeypatch):
    fit, predict, sides = _fold_run.fit, _fold_run.predict, []

    def spots(cohort):
        return {s.name: s.centers for s in _fold_run.read_sections(cohort)}

    def watched_fit(cohort, **kwargs):
        sides.append([spots(cohort)])
        return fit(cohort, **kwargs)

    def watched_predict(cohort, model, **kwargs):
        sides[-1].append(spots(cohort))
        return predict(cohort, model, **kwargs)

    monkeypatch.setattr(_fold_run, "fit", watched_fit)
    monkeypatch.setattr(_fold_run, "predict", watched_predict)
    sth.tl.cross_validate(tissue, "color", groups="block", n_folds=3, seeds=1, patch_size=16, context=(1.0, 2.0))
    assert len(sides) == 3
    for train, test in sides:
        for name, centers in test.items():
            assert np.abs(train[name][:, None] - centers[None]).max(axis=2).min() >= 32
    assert sum(len(test["A"]) for _, test in sides) == 49


def test_a_patient_on_both_sides_is_said(tissue, caplog):
    with caplog.at_level(logging.WARNING, logger="sthisto"):
        sth.tl.cross_validate(tissue, "mean", groups="section", patient_key="patient", seeds=1, **PATCH)
        assert "'P2' stand on both sides" in caplog.text
        assert "'P1'" not in caplog.text
        caplog.clear()
        sth.tl.cross_validate(tissue, "mean", groups="section", seeds=1, **PATCH)
        assert "not held out by patient" in caplog.text
        caplog.clear()
        sth.tl.cross_validate(tissue, "mean", seeds=1, **PATCH)
        assert "both sides" not in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"methods": "magic"}, ValueError, "`methods` is 'magic'"),
        ({"methods": "mean", "groups": "donor"}, KeyError, "'donor'.*Available.*'patient'"),
        ({"methods": "mean", "n_folds": 3}, ValueError, "more than the 2 groups"),
        ({"methods": "mean", "n_folds": 1}, ValueError, "at least 2"),
        ({"methods": "mean", "seeds": 0}, ValueError, "`seeds` must be positive"),
        ({"methods": "mean", "seed": 1}, TypeError, "`seed` is no argument here"),
        ({"methods": "mean", "options": {"knn": {}}}, ValueError, "`options` is 'knn'"),
        ({"methods": "mean", "options": {"mean": {"key_added": "x"}}}, TypeError, "`key_added` is no argument here"),
        ({"methods": "mean", "options": {"mean": {"shapes_key": "A"}}}, TypeError, "the same for all methods"),
        ({"methods": "color", "groups": "block", "patch_size": 400}, ValueError, "No training spot is left"),
    ],
)
def test_what_cannot_be_done_is_refused(tissue, arguments, error, message):
    with pytest.raises(error, match=message):
        sth.tl.cross_validate(tissue, **arguments)
    assert "sthisto_cv" not in tissue["counts"].uns


def test_folds_hold_out_each_group_once():
    groups = list("aabbbcdef")
    assert group_folds(groups) == {name: {name} for name in "abcdef"}
    dealt = group_folds(groups, 4, seed=3)
    assert sorted(name for fold in dealt.values() for name in fold) == list("abcdef")
    assert {len(fold) for fold in dealt.values()} == {1, 2}
    with pytest.raises(ValueError, match="at least two groups"):
        group_folds(["a", "a"])


def test_bands_hold_equally_many_spots_across_the_longer_side():
    positions = np.random.default_rng(0).uniform(0, (100, 400), (103, 2))
    fold = spatial_bands(positions, 4)
    assert set(np.bincount(fold)) == {25, 26}
    ends = [(positions[fold == i, 1].min(), positions[fold == i, 1].max()) for i in range(4)]
    assert all(high < low for (_, high), (low, _) in itertools.pairwise(ends))


def test_spots_whose_patches_overlap_with_held_out_ones_are_found():
    positions = np.random.default_rng(1).uniform(0, 100, (80, 2))
    out = positions[:, 0] < 30
    gap = np.abs(positions[:, None] - positions[None, out]).max(axis=2).min(axis=1)
    np.testing.assert_array_equal(shares_pixels(positions, out, 12), (gap < 12) & ~out)
    assert not shares_pixels(positions, out, 0).any()


def test_margin_of_bands_is_that_of_a_methods_own_context(tissue, monkeypatch):
    seen = []
    monkeypatch.setattr(folds, "shares_pixels", lambda *args: seen.append(args[2]) or shares_pixels(*args))
    options = {"color": {"context": (1.0, 3.0)}}
    sth.tl.cross_validate(tissue, ["color", "mean"], groups="block", n_folds=2, seeds=1, options=options, **PATCH)
    assert set(seen) == {48.0}


def test_panels_that_differ_in_the_middle_are_kept_apart(tissue):
    sections = _fold_run.read_sections(tissue)
    fold = folds.make_folds(sections, "patient", None, None, [16.0] * 3)[0]
    paths = set()
    for middle in ("a", "b"):
        genes = pd.Index([f"g{i}" for i in range(100)] + [middle] + [f"h{i}" for i in range(100)])
        job = _fold_run.FoldContext([tissue], sections, None, {"genes": genes}, None)
        paths.add(job.path(_fold_run.FoldRun(fold, "mean", 0, {}), Path("out"), ".parquet"))
    assert len(paths) == 2


def test_names_of_files_stay_short(tissue):
    sections = _fold_run.read_sections(tissue)
    fold = folds.make_folds(sections, "patient", None, None, [16.0] * 3)[0]
    long = dataclasses.replace(fold, name="+".join(["TENX95"] * 60))
    assert (
        len(
            _fold_run.FoldContext([tissue], sections, None, {}, None)
            .path(_fold_run.FoldRun(long, "mean", 0, {}), Path(), ".parquet")
            .name
        )
        < 120
    )


def test_folds_in_two_processes_have_the_same_scores(tissue, tmp_path):
    arguments = {"seeds": 1, "image_encoder": encoder(), "options": {"knn": {"k": 5}}, **PATCH}
    sth.tl.cross_validate(tissue, ["color", "knn"], **arguments)
    alone = tables(tissue)
    sth.tl.cross_validate(tissue, ["color", "knn"], out=tmp_path, n_jobs=2, **arguments)
    assert len(list(tmp_path.glob("*.parquet"))) == 4
    for found, expected in zip(tables(tissue), alone, strict=True):
        pd.testing.assert_frame_equal(
            found.drop(columns=SECONDS, errors="ignore"), expected.drop(columns=SECONDS, errors="ignore")
        )
