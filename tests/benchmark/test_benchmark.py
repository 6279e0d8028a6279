import logging

import joblib
import numpy as np
import pandas as pd
import pytest
from tissue import encoder, make_tissue

import sthisto as sth
from sthisto._sdata.slots import KEY, UM_PER_UNIT
from sthisto.benchmark import COLUMNS, LEAKS, Protocol, _command, paper_values, run
from sthisto.benchmark import _figures as figures
from sthisto.benchmark import _paper as paper
from sthisto.benchmark import _tables as tables
from sthisto.cli import main
from sthisto.tl import _fold_run

PATIENTS = {"A1": "A", "A2": "A", "B1": "B", "C1": "C"}
SMALL = {"patch": {"patch_size": 16}, "seeds": 1}


def make(names=tuple(PATIENTS), seed=0):
    sdata = make_tissue(names, seed=seed, patients=PATIENTS)
    obs = sdata["counts"].obs
    obs["section"] = obs["region"].astype(str)
    obs["annotation"] = np.where(obs["region"] == "A1", np.where(obs["instance"] % 2, "tumor", "fat"), None)
    sdata.attrs[KEY] = {UM_PER_UNIT: dict.fromkeys(sdata.coordinate_systems, 4.0)}
    return sdata


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """One run by patient on two test sections, with its folder."""
    out = tmp_path_factory.mktemp("benchmark")
    protocol = Protocol(
        "her2st",
        ("knn:k=5", "ridge", "mean"),
        train=("B", "C1"),
        test=("A",),
        encoder=encoder(),
        genes=tuple(f"gene{i}" for i in range(12)),
        seeds=2,
        patch={"patch_size": 16},
    )
    sdata = make()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sth.settings, "cache_dir", out / "cache")
        patch.setattr(sth.settings, "progress", False)
        return protocol, sdata, out, run(sdata, protocol, out=out)


def one(scores, **values):
    for name, value in values.items():
        scores = scores[scores[name] == value]
    return scores


def test_table_has_the_columns_and_every_method_baseline_and_scope(outcome):
    scores = outcome[3]
    assert list(scores) == list(COLUMNS)
    assert set(scores["method"]) == {"knn:k=5", "ridge", "mean", "depth", "siblings", "reproducibility", "measured"}
    assert set(scores["test"]) == {"A1", "A2", "mean of A1+A2", "pooled A1+A2"}
    assert set(scores["train"]) == {"B1+C1"}
    assert set(scores.loc[scores["metric"] != "pcc of gene", "genes"]) == {"all modeled (12; given)"}
    assert set(one(scores, method="ridge")["seed"]) == {0, 1}
    assert one(scores, method="ridge")["seconds_fit"].gt(0).all()


def test_scores_are_those_of_evaluate(outcome):
    protocol, _, _, scores = outcome
    alone = make()
    model = sth.tl.fit(
        alone,
        method="ridge",
        image_encoder=protocol.encoder,
        genes=protocol.genes,
        patch_size=16,
        shapes_key=["B1", "C1"],
    )
    sth.tl.predict(alone, model, shapes_key=["A1", "A2"])
    sth.tl.evaluate(alone, shapes_key=["A1", "A2"])
    expected = sth.get.scores(alone, by="section").set_index("section")
    found = one(scores, seed=0, method="ridge")
    for metric, scale in (("pcc_residual", "pearson_residuals"), ("pcc", "log1p"), ("rmse", "log1p")):
        mine = one(found, metric=metric, normalization=scale).set_index("test")["value"]
        np.testing.assert_allclose(mine[["A1", "A2"]], expected.loc[["A1", "A2"], metric], rtol=1e-5)
    for method, column in (("reproducibility", "reproducibility"), ("siblings", "sibling")):
        mine = one(scores, method=method).set_index("test")["value"]
        np.testing.assert_allclose(mine[["A1", "A2"]], expected.loc[["A1", "A2"], column], rtol=1e-5, atol=1e-6)
    depth = one(scores, method="depth", metric="pcc_residual").set_index("test")["value"]
    np.testing.assert_allclose(depth[["A1", "A2"]], expected.loc[["A1", "A2"], "depth_pcc_residual"], rtol=1e-5)


def test_mean_and_pool_are_told_apart(outcome):
    found = one(outcome[3], method="ridge", seed=0, metric="pcc", normalization="log1p").set_index("test")["value"]
    assert found["mean of A1+A2"] == pytest.approx(found[["A1", "A2"]].mean())
    assert found["pooled A1+A2"] != pytest.approx(found["mean of A1+A2"], rel=1e-6)


def test_intervals_hold_the_score_and_differences_hold_zero_for_the_reference_itself(outcome):
    scores = outcome[3]
    shown = scores[scores["low"].notna()]
    assert ((shown["low"] <= shown["value"]) & (shown["value"] <= shown["high"])).all()
    less = one(scores, metric="pcc_residual less ridge", test="A1", seed=0)
    assert set(less["method"]) == {"knn:k=5"}
    raw = one(scores, metric="pcc_residual", test="A1", seed=0).set_index("method")["value"]
    assert less["value"].item() == pytest.approx(raw["knn:k=5"] - raw["ridge"])


def test_clusters_stand_beside_those_of_the_measured_expression_where_there_are_labels(outcome):
    found = one(outcome[3], metric="ari")
    assert set(found["test"]) == {"A1"}
    assert set(found["method"]) == {"knn:k=5", "ridge", "measured"}


def test_a_constant_prediction_has_an_error_and_no_correlation(outcome):
    found = one(outcome[3], method="mean")
    assert set(found["metric"]) == {"rmse"}


def test_killed_and_started_again_it_ends_with_the_same_table(tmp_path, monkeypatch, outcome):
    protocol, sdata, out, _ = outcome
    complete = run(sdata, protocol, out=out)
    fit, calls = _fold_run.fit, []

    def killed(*args, **kwargs):
        calls.append(kwargs["method"])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return fit(*args, **kwargs)

    monkeypatch.setattr(_fold_run, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        run(make(), protocol, out=tmp_path)
    assert len(list((tmp_path / "runs").glob("*.npz"))) == 3
    again = run(make(), protocol, out=tmp_path)
    assert len(calls) == 4 + 3
    seconds = ["seconds_fit", "seconds_predict"]
    pd.testing.assert_frame_equal(again.drop(columns=seconds), complete.drop(columns=seconds))


def test_several_jobs_find_the_same(tmp_path, outcome):
    protocol, sdata, _, expected = outcome
    with joblib.parallel_config("threading"):
        found = run(sdata, protocol, out=tmp_path, n_jobs=2)
    seconds = ["seconds_fit", "seconds_predict"]
    pd.testing.assert_frame_equal(
        pd.DataFrame(found).drop(columns=seconds), pd.DataFrame(expected).drop(columns=seconds)
    )


def test_a_patient_on_both_sides_is_refused_by_patient_and_said_by_section(tmp_path, caplog):
    sdata = make(("A1", "A2", "B1"))
    with pytest.raises(ValueError, match="Patients 'A' stand on both sides"):
        run(sdata, Protocol("her2st", ("mean",), train=("A1", "B1"), test=("A2",), **SMALL), out=tmp_path)
    with caplog.at_level(logging.WARNING, logger="sthisto"):
        run(sdata, Protocol("her2st", ("mean",), "section", train=("A1",), test=("A2",), **SMALL), out=tmp_path)
    assert "'A' stand on both sides" in caplog.text


def test_a_spot_under_another_name_is_recognized(tmp_path):
    sdata = make(("A1", "B1"))
    sdata["B1_image"].data = sdata["A1_image"].data
    with pytest.raises(ValueError, match="are training spots under another name"):
        run(sdata, Protocol("her2st", ("color",), train=("A1",), test=("B1",), **SMALL), out=tmp_path)


def test_without_names_each_group_is_held_out_in_turn():
    folds = Protocol("her2st", ("mean",)).folds(PATIENTS)
    assert folds["A"] == (["B1", "C1"], ["A1", "A2"])
    assert set(folds) == {"A", "B", "C"}
    folds = Protocol("her2st", ("mean",), "section").folds(PATIENTS)
    assert folds["A2"] == (["A1", "B1", "C1"], ["A2"])


def test_the_papers_split_tests_its_sections_by_models_of_all_others_with_its_settings():
    protocol = Protocol("her2st", ("danet", "danet:gene_encoder=identity,finetune=false", "knn"), "danet_paper")
    folds = protocol.folds(PATIENTS)
    assert set(folds) == {"A1", "B1", "C1"}
    assert folds["A1"] == (["A2", "B1", "C1"], ["A1"])
    plain, ablated, knn = protocol.specs()
    assert plain.options == {"finetune": True, "max_epochs": 25, "learning_rate": 2e-4, "batch_by": "section"}
    assert ablated.options == {**plain.options, "gene_encoder": "identity", "finetune": False}
    assert knn.options == {}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dataset": "cells"}, ValueError, "`dataset` is 'cells'"),
        ({"methods": ()}, ValueError, "`methods` is empty"),
        ({"split": "danet_paper", "dataset": "hest"}, ValueError, "no table of 'hest'"),
        ({"split": "danet_paper", "test": ("A1",)}, ValueError, "of its own"),
        ({"train": ("A",)}, ValueError, "`train` needs `test`"),
        ({"seeds": 0}, ValueError, "`seeds` must be positive"),
    ],
)
def test_impossible_protocols_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Protocol(**{"dataset": "her2st", "methods": ("mean",), **arguments})


def test_unknown_names_are_refused():
    with pytest.raises(KeyError, match="'Z' is no section and no patient"):
        Protocol("her2st", ("mean",), test=("Z",)).folds(PATIENTS)
    with pytest.raises(ValueError, match="'magic'"):
        Protocol("her2st", ("magic",)).specs()
    with pytest.raises(ValueError, match="NAME:OPTION=VALUE"):
        Protocol("her2st", ("knn:k",)).specs()
    with pytest.raises(ValueError, match="stand on both sides"):
        Protocol("her2st", ("mean",), "section", train=("A1",), test=("A",)).folds(PATIENTS)


def paper_scores(dataset, label, **values):
    row = {"dataset": dataset, "method": label, "seed": 0, "metric": "pcc", "normalization": "log1p in panel", **values}
    return pd.DataFrame([row])


def test_values_of_the_paper_stand_beside_ours():
    assert len(paper_values()) == 207
    protocol = Protocol("her2st", ("danet", "danet:projection=mlp"), "danet_paper")
    scores = pd.concat(
        [
            paper_scores("her2st", "danet", test="A1", genes="all modeled (785; given)", value=0.5),
            paper_scores("her2st", "danet:projection=mlp", test="B1", genes="all modeled (785; given)", value=0.25),
            paper_scores("her2st", "danet:dropout=0.5", test="C1", genes="all modeled (785; given)", value=0.75),
        ]
    )
    lines = paper.paper_table(scores, protocol).splitlines()
    assert "| 4 | DANet | PCC | A1 | 0.031 ± 0.010 | 0.500 |" in lines
    assert "| 6 | DANet | PCC all | A1 | 0.042 | 0.500 |" in lines
    assert "| 6 | DANet | PCC without RKAN | B1 | 0.233 | 0.250 |" in lines
    assert not any("0.750" in line for line in lines)
    liver = Protocol("liver", ("bleep", "danet"), "danet_paper")
    scores = pd.concat(
        [
            paper_scores("liver", "bleep", test="C1", genes="markers (8; given)", value=0.1),
            paper_scores("liver", "danet", test="C1", genes="50 most variable (50; given)", value=0.2),
        ]
    )
    lines = paper.paper_table(scores, liver).splitlines()
    assert "| 1 | BLEEP |  | MG | 0.217 ± 0.002 | 0.100 |" in lines
    assert "| 1 | DANet |  | HVG | 0.200 ± 0.013 | 0.200 |" in lines
    assert "| 3 | DANet | smoothed k=100 average | HVG | 0.200 ± 0.013 | 0.200 |" in lines


def test_replicates_are_summarized_as_the_papers_table_does():
    row = {"test": "C1", "genes": "markers (8; given)"}
    seeds = [
        paper_scores("liver", "danet", **row, value=value).assign(seed=i) for i, value in enumerate((0.1, 0.2, 0.6))
    ]
    lines = paper.paper_table(pd.concat(seeds), Protocol("liver", ("danet",), "danet_paper")).splitlines()
    assert "| 1 | DANet |  | MG | 0.265 ± 0.003 | 0.300 ± 0.300 |" in lines
    row = {"test": "A1", "genes": "all modeled (785; given)"}
    seeds = [paper_scores("her2st", "danet", **row, value=value).assign(seed=i) for i, value in enumerate((0.1, 0.3))]
    lines = paper.paper_table(pd.concat(seeds), Protocol("her2st", ("danet",), "danet_paper")).splitlines()
    assert "| 4 | DANet | PCC | A1 | 0.031 ± 0.010 | 0.200 ± 0.141 |" in lines
    assert "| 6 | DANet | PCC all | A1 | 0.042 | 0.100 |" in lines


def test_average_is_over_all_sections_of_the_paper_or_not_there():
    protocol = Protocol("her2st", ("danet",), "danet_paper")
    sections = ("A1", "B1", "C1", "D1", "E1", "F1", "G2", "H1")
    scores = pd.concat(
        [
            paper_scores("her2st", "danet", test=name, genes="all modeled (785; given)", value=i / 10)
            for i, name in enumerate(sections)
        ]
    )
    assert "| 4 | DANet | PCC | Avg | 0.094 ± 0.009 | 0.350 |" in paper.paper_table(scores, protocol).splitlines()
    assert "| Avg |" not in paper.paper_table(scores[scores["test"] != "H1"], protocol)


def test_best_genes_of_the_first_replicate_stand_beside_the_papers():
    genes = {"ALB": 0.5, "GLUL": 0.25}
    rows = [
        paper_scores("liver", "danet", test="C1", genes=gene, value=value + seed).assign(
            seed=seed, metric="pcc of gene"
        )
        for seed in (0, 1)
        for gene, value in genes.items()
    ]
    (*_, line) = paper.best_genes_table(pd.concat(rows), Protocol("liver", ("danet",), "danet_paper")).splitlines()
    assert line.startswith("| C1 | danet | CYP3A4 0.739, ORM1 0.681, ")
    assert line.endswith("; mean 0.676 | ALB 0.500, GLUL 0.250; mean 0.375 |")


def test_five_best_genes_of_a_method_are_those_of_the_highest_correlation(outcome):
    protocol, sdata, _, scores = outcome
    found = one(scores, metric="pcc of gene", method="ridge", seed=0, test="A1", normalization="log1p")
    sth.tl.predict(
        sdata,
        sth.tl.fit(
            sdata,
            method="ridge",
            image_encoder=protocol.encoder,
            genes=protocol.genes,
            patch_size=16,
            shapes_key=["B1", "C1"],
        ),
        shapes_key=["A1"],
    )
    sth.tl.evaluate(sdata, shapes_key=["A1"])
    expected = sth.get.scores(sdata).set_index("gene")["pcc"].nlargest(5)
    assert list(found["genes"]) == list(expected.index)
    np.testing.assert_allclose(found["value"], expected, rtol=1e-5)
    assert "| A1 | ridge |" in tables.markdown(scores, protocol)


def test_every_way_in_which_the_papers_protocol_leaks_is_told(tmp_path):
    sdata = make(("A1", "A2", "B1"))
    protocol = Protocol("her2st", ("color",), "danet_paper", **SMALL)
    text = tables.markdown(run(sdata, protocol, out=tmp_path), protocol)
    for leak in LEAKS:
        assert leak.what in text
    assert "How this protocol leaks" not in tables.markdown(
        run(sdata, Protocol("her2st", ("color",), **SMALL), out=tmp_path), Protocol("her2st", ("color",), **SMALL)
    )


def test_command_writes_tables_and_figure_and_says_errors(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_command, "_read", lambda options: make(("A1", "A2", "B1")))
    genes = tmp_path / "genes.txt"
    genes.write_text("gene0\ngene1\ngene2\ngene3\nNOT_THERE\n")
    arguments = ["benchmark", "her2st", "--methods", "color,mean", "--genes", str(genes), "--seeds", "1"]
    out = tmp_path / "out"
    assert main([*arguments, "--train", "B", "--test", "A", "--out", str(out)]) == 0
    assert "| color |" in capsys.readouterr().out
    scores = pd.read_csv(out / "scores.csv")
    assert list(scores) == list(COLUMNS)
    assert set(scores["genes"]) == {"all modeled (4; given)", "gene0", "gene1", "gene2", "gene3"}
    assert (out / "scores.md").read_text().startswith("# her2st, split by patient")
    assert (out / "scores.png").stat().st_size > 0
    assert main([*arguments, "--train", "A1", "--test", "A2", "--out", str(out)]) == 1
    assert "stand on both sides" in capsys.readouterr().err


def test_patches_have_one_width_of_tissue_but_in_the_paper():
    assert Protocol("her2st", ("mean",)).patches() == {"patch_size": 112, "patch_um": 77.0}
    assert Protocol("her2st", ("mean",), "danet_paper").patches() == {"patch_size": 112}
    assert Protocol("her2st", ("mean",), patch={"patch_size": 16}).patches() == {"patch_size": 16}


def test_command_asks_for_data_that_cannot_be_downloaded(tmp_path, capsys):
    arguments = ["--methods", "mean", "--out", str(tmp_path / "x")]
    assert main(["benchmark", "hest", *arguments]) == 1
    assert "--data" in capsys.readouterr().err
    for dataset in ("liver", "hest"):
        assert main(["benchmark", dataset, "--data", str(tmp_path), *arguments]) == 1
        assert "put there" in capsys.readouterr().err


def test_figure_draws_every_test_with_its_methods(outcome):
    drawn = figures.figure(outcome[3])
    titles = [ax.get_title() for ax in drawn.axes]
    assert len(titles) == 8
    assert titles[0] == "A1: pcc_residual (pearson_residuals)"
    labels = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
    assert labels == ["knn:k=5", "ridge", "depth"]
