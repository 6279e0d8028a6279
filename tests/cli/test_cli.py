from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from PIL import Image
from visium import Visium

import sthisto as sth
from sthisto._utils.logging import _warned, logger
from sthisto.cli import main
from sthisto.cli.fit import _last_epochs
from sthisto.cli.main import build_parser
from sthisto.cli.options import image_key, read_names
from sthisto.cli.wording import in_options

(COMMANDS,) = [action.choices for action in build_parser()._actions if isinstance(action.choices, dict)]
pytestmark = pytest.mark.filterwarnings("ignore:zarr v3 autosharding:UserWarning")


@pytest.fixture(autouse=True)
def settings_as_before(monkeypatch):
    """What a command sets for its process is undone."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    before = sth.settings.progress
    yield
    sth.settings.verbosity = sth.settings.log_file = None
    sth.settings.progress = before


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    sdata = sth.datasets.synthetic(n_sections=2, n_patients=2, n_spots=60)
    sth.pp.split(sdata, by="patient", patient_key="patient", test=["P2"])
    path = tmp_path_factory.mktemp("written") / "sections.zarr"
    sdata.write(path)
    return path


@pytest.fixture
def store(written, tmp_path):
    return shutil.copytree(written, tmp_path / "sections.zarr")


def test_fit_predict_and_evaluate_run_from_store_to_scores(store, tmp_path, capsys):
    model, predicted = tmp_path / "color.sthisto", tmp_path / "predicted.zarr"
    assert main(["fit", str(store), "--model", str(model), "--method", "color"]) == 0
    assert main(["predict", str(store), "--model", str(model), "--out", str(predicted)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(predicted), "--json", "--out", str(tmp_path / "scored.zarr")]) == 0
    scores = json.loads(capsys.readouterr().out)
    overall = next(row for row in scores if row["section"] == "all" and row["genes"] == "all modeled")
    assert overall["pcc_residual"] > 0.1
    picture = tmp_path / "genes.png"
    assert main(["plot", str(tmp_path / "scored.zarr"), "--genes", "EPCAM", "--out", str(picture)]) == 0
    assert main(["plot", str(tmp_path / "scored.zarr"), "--kind", "scores", "--out", str(picture)]) == 1
    assert main(["plot", str(tmp_path / "scored.zarr"), "--kind", "scores", "--out", str(picture), "--overwrite"]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_assess_keeps_the_passport_with_the_model_and_predict_obeys_it(tmp_path, capsys):
    store, model = tmp_path / "sections.zarr", tmp_path / "model"
    sdata = sth.datasets.synthetic(n_sections=3, n_patients=3, n_spots=40)
    sdata.write(store)
    sth.tl.fit(sdata, method="ridge", image_encoder="texture", n_top_genes=40, patch_size=48).save(model)
    assert main(["predict", str(store), "--model", str(model), "--out", str(tmp_path / "no"), "--genes", "use"]) == 1
    assert "Call sthisto assess first" in capsys.readouterr().err
    assert main(["assess", str(store), "--model", str(model), "--json"]) == 0
    told = {row["gene"]: row["verdict"] for row in json.loads(capsys.readouterr().out)}
    assert set(told.values()) <= {"use", "pattern only", "do not use"}
    out = tmp_path / "predicted.zarr"
    genes = tmp_path / "genes.txt"
    genes.write_text("\n".join(list(told)[:3]))
    assert main(["predict", str(store), "--model", str(model), "--out", str(out), "--genes", str(genes)]) == 0
    var = sd.read_zarr(out)["expression"].var
    assert set(var.index[var["sthisto_gene"]]) == set(list(told)[:3])
    assert var.loc[list(told), "sthisto_verdict"].to_dict() == told
    assert main(["predict", str(store), "--model", str(model), "--out", str(tmp_path / "no"), "--genes", "best"]) == 1
    assert "all, use, or a file" in capsys.readouterr().err


def test_assess_takes_several_stores_and_prints_a_summary(tmp_path, capsys, caplog):
    stores = [tmp_path / f"P{i}.zarr" for i in range(3)]
    sections = [sth.datasets.synthetic(n_sections=1, n_spots=40, seed=i) for i in range(3)]
    for sdata, path in zip(sections, stores, strict=True):
        table = sdata["expression"]
        table.var["feature_types"] = ["Antibody Capture"] * 2 + ["Gene Expression"] * (table.n_vars - 2)
        table.obs["patient"] = path.stem
        sdata.write(path)
    model, csv = tmp_path / "model", tmp_path / "passport.csv"
    sth.tl.fit(sections, method="color", n_top_genes=30, patch_size=48).save(model)
    caplog.clear()
    _warned.clear()
    command = ["assess", *map(str, stores), "--model", str(model)]
    assert main([*command, "--csv", str(csv)]) == 0
    printed = capsys.readouterr().out
    passport = sth.get.passport(model)
    assert pd.read_csv(csv)["gene"].tolist() == passport["gene"].tolist()
    assert set(passport["groups"]) == {"patient"}
    assert f"use: {(passport['verdict'] == 'use').sum()} of 30; pattern only: " in printed
    ranked = passport.sort_values("pcc_residual", ascending=False)["gene"]
    shown = [line.split()[0] for line in printed.splitlines() if line.strip()]
    assert [word for word in shown if word in set(ranked)] == ranked.head(10).tolist()
    assert f"{model / 'passport.parquet'} and {csv}" in printed
    assert caplog.text.count("are no genes") == 1
    assert main([*command, "--csv", str(csv)]) == 1
    assert "Choose another --csv" in capsys.readouterr().err


def test_a_single_section_is_printed_once(store, tmp_path, capsys):
    sdata = sd.read_zarr(store)
    sth.tl.predict(sdata, sth.tl.fit(sdata, method="color"))
    path = tmp_path / "predicted.zarr"
    sdata.write(path)
    command = ["evaluate", str(path), "--shapes", "S2_spots"]
    assert main([*command, "--json"]) == 0
    assert {row["section"] for row in json.loads(capsys.readouterr().out)} == {"S2_spots", "all"}
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "all modeled" in printed
    assert "S2_spots" not in printed


def test_fit_prints_the_last_epochs_without_losses_that_were_not_computed(capsys):
    history = pd.DataFrame({"epoch": range(30), "train_loss": 0.5, "val_loss": np.nan})
    options = argparse.Namespace(json=False, quiet=False)
    shown = _last_epochs(history, options)
    assert list(shown.columns) == ["epoch", "train_loss"]
    assert shown["epoch"].tolist() == [25, 26, 27, 28, 29]
    assert "last 5 of 30 epochs" in capsys.readouterr().out
    assert len(_last_epochs(history.head(3), options)) == 3
    assert capsys.readouterr().out == ""


def test_predict_writes_intervals_and_says_whom_they_hold_for(tmp_path, capsys):
    store, split, model, out = (tmp_path / name for name in ("sections.zarr", "split.zarr", "model", "predicted.zarr"))
    sth.datasets.synthetic(n_sections=3, n_patients=3, n_spots=60).write(store)
    assert main(["split", str(store), "--patient-key", "patient", "--calibration", "0.3", "--out", str(split)]) == 0
    assert "calibration" in capsys.readouterr().out
    assert main(["fit", str(split), "--model", str(model), "--method", "color"]) == 0
    command = ["predict", str(split), "--model", str(model), "--out", str(out)]
    assert main([*command, "--interval", "0.999"]) == 1
    assert "needs at least 999 patients or spatial blocks" in capsys.readouterr().err
    assert main([*command, "--interval", "0.8"]) == 0
    assert "with intervals at 0.8 that hold for same patients" in capsys.readouterr().out
    table = sd.read_zarr(out)["expression"]
    assert table.uns["sthisto"]["interval"] == 0.8
    assert (table.layers["sthisto_low"] <= table.layers["sthisto_high"])[:, table.var["sthisto_gene"]].all()


def test_method_options_reach_the_method(store, tmp_path, capsys):
    model = tmp_path / "knn.sthisto"
    arguments = ["fit", str(store), "--model", str(model), "--method", "knn", "--option", "k=7"]
    assert main([*arguments, "--image-encoder", "efficientnet_lite0"]) == 0
    assert sth.models.load(model).options.k == 7


@pytest.mark.parametrize("command", ["demo", "read", "split", "fit", "assess", "grid", "predict", "evaluate", "plot"])
def test_help_of_every_command_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "Example: sthisto" in capsys.readouterr().out


def test_error_is_one_line_and_exit_code_1(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "absent.zarr")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("sthisto: There is no SpatialData store at")
    assert error.count("\n") == 1


def test_a_folder_that_is_no_store_is_said_with_what_to_do(tmp_path, capsys):
    assert main(["fit", str(tmp_path), "--model", str(tmp_path / "m")]) == 1
    error = capsys.readouterr().err
    assert "is no SpatialData store" in error
    assert f"sthisto read {tmp_path} --out" in error


def test_folders_of_one_name_that_are_no_stores_are_told_so(tmp_path, capsys):
    outs = [tmp_path / name / "outs" for name in ("A", "B")]
    for one in outs:
        one.mkdir(parents=True)
    assert main(["split", *map(str, outs), "--patient-key", "patient", "--out", str(tmp_path / "out")]) == 1
    assert f"sthisto read {outs[0]} --out" in capsys.readouterr().err


def test_read_makes_a_store_of_a_run_that_the_other_commands_take(tmp_path, capsys):
    stores = []
    for seed, name in enumerate(("P1", "P2")):
        image = tmp_path / f"{name}.tif"
        outs = Visium(seed=seed).write(tmp_path / name / "outs")
        (outs / "he.tif").rename(image)
        stores.append(str(tmp_path / f"{name}.zarr"))
        command = ["read", str(outs), "--image", str(image), "--obs", f"patient={name}", "--out", stores[-1], "--json"]
        assert main(command) == 0
        assert json.loads(capsys.readouterr().out)["spots"] == {"table": 120}
    assert "P1_full_image" in sd.read_zarr(stores[0]).images
    assert main(["read", str(outs), "--out", stores[0]]) == 1
    assert "exists" in capsys.readouterr().err
    key = sd.read_zarr(stores[0])["table"].uns["spatialdata_attrs"]["region_key"]
    linked = ["read", str(outs), "--image", str(image), "--obs", f"{key}=P1", "--out", str(tmp_path / "linked.zarr")]
    assert main(linked) == 1
    assert "links the spots to their region" in capsys.readouterr().err
    assert not (tmp_path / "linked.zarr").exists()
    split = tmp_path / "split"
    assert main(["split", *stores, "--patient-key", "patient", "--test", "P2", "--out", str(split)]) == 0
    roles = sd.read_zarr(split / "P2.zarr")["table"].obs["sthisto_split"]
    assert set(roles) == {"test"}


def test_read_refuses_a_column_without_a_value(tmp_path, capsys):
    assert main(["read", str(tmp_path), "--out", str(tmp_path / "out.zarr"), "--obs", "patient"]) == 1
    assert "--obs takes COLUMN=VALUE, found 'patient'" in capsys.readouterr().err


def test_prediction_without_a_measurement_is_drawn_alone(store, tmp_path, capsys):
    sdata = sd.read_zarr(store)
    sth.tl.predict(sdata, sth.tl.fit(sdata, method="mean", genes=["EPCAM"]), new_table_key="predicted")
    del sdata.tables["expression"]
    path, out = tmp_path / "slide.zarr", tmp_path / "genes.png"
    sdata.write(path)
    assert main(["plot", str(path), "--genes", "EPCAM", "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert "with --no-measured" in error
    assert "sthisto_pred" not in error
    assert main(["plot", str(path), "--genes", "EPCAM", "--out", str(out), "--no-measured"]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_unknown_option_of_a_method_is_an_error(store, tmp_path, capsys):
    arguments = ["fit", str(store), "--model", str(tmp_path / "m"), "--method", "color", "--option", "depth=3"]
    assert main(arguments) == 1
    assert "depth" in capsys.readouterr().err


def test_existing_model_is_not_replaced_unasked(store, tmp_path, capsys):
    (tmp_path / "model").mkdir()
    assert main(["fit", str(store), "--model", str(tmp_path / "model"), "--method", "mean"]) == 1
    assert "exists" in capsys.readouterr().err


def test_unknown_command_exits_with_2():
    with pytest.raises(SystemExit) as stop:
        main(["paint"])
    assert stop.value.code == 2


def test_demo_refuses_a_folder_that_is_in_use(tmp_path, capsys):
    (tmp_path / "something").touch()
    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert "not empty" in capsys.readouterr().err


def test_images_are_named_for_all_regions_or_for_each():
    assert image_key(None) is None
    assert image_key(["he"]) == "he"
    assert image_key(["A=A_full", "B=B_full"]) == {"A": "A_full", "B": "B_full"}
    with pytest.raises(ValueError, match="REGION=IMAGE for each region, found he B=B_full"):
        image_key(["he", "B=B_full"])


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "sthisto", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sth.__version__


def test_a_gene_list_of_any_editor_is_read(tmp_path):
    path = tmp_path / "genes.txt"
    path.write_bytes(b"\xef\xbb\xbfALB\r\n\r\n# markers\r\n  CYP3A4 \r\n")
    assert read_names(path) == ["ALB", "CYP3A4"]


def test_the_bare_command_prints_help(capsys):
    assert main([]) == 0
    assert "predict" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["evaluate", "absent.zarr"], ["predict", "absent.zarr", "--model", "m"], ["fit"]]
)
def test_mistakes_are_found_before_anything_heavy_is_imported(arguments, tmp_path):
    code = (
        "import sys; from sthisto.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'spatialdata', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    (tmp_path / "m").mkdir()
    arguments = [*arguments, "--out", "x.zarr"] if "predict" in arguments else arguments
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
    assert any(text in done.stderr for text in ("absent.zarr", "required"))


def test_stores_are_split_together_and_written_beside_each_other(store, tmp_path, capsys):
    other = tmp_path / "more" / "third.zarr"
    sth.datasets.synthetic(n_sections=1, n_spots=40, seed=3).write(other)
    command = [
        "split",
        str(store),
        str(other),
        "--by",
        "section",
        "--test",
        "0:S1_spots",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--json"]) == 0
    rows = {row["split"]: row["spots"] for row in json.loads(capsys.readouterr().out)}
    assert rows["test"] == 60
    assert sum(rows.values()) == 160
    written = sd.read_zarr(tmp_path / "out" / "third.zarr")["expression"]
    assert set(written.obs["sthisto_split"]) == {"train", "val"}
    assert main(command) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite", "-q"]) == 0
    assert capsys.readouterr().out == ""


def test_two_stores_of_one_name_are_not_written_over_each_other(store, tmp_path, capsys):
    assert main(["fit", str(store), str(store), "--model", str(tmp_path / "m"), "--out", str(tmp_path / "out")]) == 1
    assert "same name" in capsys.readouterr().err


def test_scores_go_to_a_table(store, tmp_path, capsys):
    model, predicted, table = tmp_path / "m", tmp_path / "predicted.zarr", tmp_path / "scores.csv"
    assert main(["fit", str(store), "--model", str(model), "--method", "color", "-q"]) == 0
    assert main(["predict", str(store), "--model", str(model), "--out", str(predicted), "-q"]) == 0
    assert main(["evaluate", str(predicted), "--by", "gene", "--out", str(table), "-q"]) == 0
    assert capsys.readouterr().out == ""
    assert pd.read_csv(table)["gene"].nunique() > 100


def test_fit_writes_data_with_embeddings_and_says_what_it_fitted(store, tmp_path, capsys):
    arguments = [
        "fit",
        str(store),
        "--model",
        str(tmp_path / "m"),
        "--method",
        "color",
        "--out",
        str(tmp_path / "e.zarr"),
    ]
    assert main(arguments) == 0
    assert "Color: 198 genes" in capsys.readouterr().out
    assert sd.read_zarr(tmp_path / "e.zarr")["expression"].uns["sthisto"]["method"] == "color"


def test_a_slide_gets_a_grid(tmp_path, capsys):
    pixels = np.full((600, 600, 3), 245, np.uint8)
    pixels[150:450, 150:450] = np.random.default_rng(0).integers((140, 60, 130), (220, 140, 200), (300, 300, 3))
    Image.fromarray(pixels).save(tmp_path / "slide.png")
    command = ["grid", str(tmp_path / "slide.png"), "--out", str(tmp_path / "slide.zarr")]
    assert main(command) == 1
    assert "--um-per-px …" in capsys.readouterr().err
    assert main([*command, "--um-per-px", "1", "--pitch-um", "50", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    written = sd.read_zarr(tmp_path / "slide.zarr")
    assert said["spots"] == len(written["tissue_grid"]) > 10
    assert said["table"] in written.tables


def test_a_log_file_keeps_messages(store, tmp_path, capsys):
    log = tmp_path / "log.txt"
    arguments = ["fit", str(store), "--model", str(tmp_path / "m"), "--method", "color", "--log-file", str(log), "-q"]
    assert main(arguments) == 0
    assert "INFO Section 'S1_spots': 60 spots" in log.read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`image_key`='x' is not in the images.", "--image x is not in the images."),
        ("`table_key` is ambiguous. Pass table_key=…", "--table is ambiguous. Pass --table …"),
        ("Pass um_per_px=0.5, or patch_size=…", "Pass --um-per-px 0.5, or --patch-size …"),
        ("Call sth.tl.predict(sdata, model, key_added='x') first.", "Call sthisto predict first."),
        ("exists: pass overwrite=True to replace it.", "exists: pass --overwrite to replace it."),
        ("seed of the genes, k=50, sth.get.scores(sdata)", "seed of the genes, k=50, sth.get.scores(sdata)"),
        ("Call sth.pp.split(sdata, test=['a']).", "Call sthisto split."),
    ],
)
def test_errors_name_options_and_commands(text, expected):
    assert in_options(text, COMMANDS["fit"], COMMANDS) == expected


def test_a_warning_names_the_option_of_the_command_that_has_it(tmp_path, caplog, monkeypatch):
    def read(*_, **__):
        logger.warning("Pass layer=%r to fit on them.", "counts")
        raise ValueError

    monkeypatch.setattr(sth.io, "read", read)
    assert main(["read", str(tmp_path), "--out", str(tmp_path / "a.zarr")]) == 1
    assert "Pass --layer counts of sthisto fit to fit on them." in caplog.text
    assert not logger.filters


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_gives_no_default_of_switches(command):
    text = " ".join(COMMANDS[command].format_help().split())
    for shown in ("True", "False", "None", "[]"):
        assert f"(default: {shown})" not in text


def table_of(store):
    (table,) = sth.io.read(store).tables.values()
    return table


PREDICT = """
import sys, time
from spatialdata import SpatialData
from sthisto.cli import main
write = SpatialData.write
def slow(self, path, **options):
    write(self, path, **options)
    print("written", [name for name in ("timm", "lightning_fabric", "torch._dynamo") if name in sys.modules])
    sys.stdout.flush()
    time.sleep(60)
SpatialData.write = slow
main(sys.argv[1:])
"""


def test_predict_leaves_no_part_and_the_same_command_goes_on(store, tmp_path, capsys):
    model, out = tmp_path / "mean.sthisto", tmp_path / "predicted.zarr"
    assert main(["fit", str(store), "--model", str(model), "--method", "mean"]) == 0
    command = ["predict", str(store), "--model", str(model), "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", PREDICT, *command], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"written []\n"  # nor were libraries of networks loaded, which takes seconds
    process.kill()
    process.communicate()
    assert not out.exists()
    assert main(command) == 0
    assert "sthisto_pred" in table_of(out).layers
    assert {entry.name for entry in tmp_path.iterdir()} == {"sections.zarr", model.name, out.name}
    assert main(command) == 1
    assert "pass --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--key-added", "again"]) == 0
    assert "again_pred" in table_of(out).layers


def test_predict_may_replace_the_store_that_it_reads(store, tmp_path):
    model = tmp_path / "mean.sthisto"
    assert main(["fit", str(store), "--model", str(model), "--method", "mean"]) == 0
    assert main(["predict", str(store), "--model", str(model), "--out", str(store), "--overwrite"]) == 0
    assert "sthisto_pred" in table_of(store).layers


@pytest.mark.parametrize("content", ["thesis.txt", None])
def test_predict_replaces_nothing_but_a_store(store, tmp_path, capsys, content):
    out = tmp_path / "mine"
    if content is None:
        out.write_text("mine")
    else:
        out.mkdir()
        (out / content).write_text("mine")
    assert main(["predict", str(store), "--model", "absent", "--out", str(out), "--overwrite"]) == 1
    assert "is no SpatialData store, so it is not replaced" in capsys.readouterr().err
    assert (out if content is None else out / content).read_text() == "mine"


def test_an_out_that_cannot_be_written_is_found_before_the_model_is_read(store, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["predict", str(store), "--model", "absent", "--out", str(tmp_path / "file" / "out.zarr")]) == 1
    assert "absent" not in capsys.readouterr().err


def test_a_demo_that_was_killed_is_run_again(tmp_path, monkeypatch):
    out = tmp_path / "demo"
    for name in ("scores.csv", "scores.png"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("part")
    monkeypatch.setattr(sth.datasets, "synthetic", lambda **_: pytest.fail("begun"))
    with pytest.raises(pytest.fail.Exception, match="begun"):
        main(["demo", "--out", str(out)])
