"""Many slides with one model: faults of one slide, crashes, several processes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from tifffile import imwrite

import sthisto as sth
from sthisto._utils.atomic import staging_name
from sthisto.cli.main import main
from sthisto.cohort._manifest import find_slides
from sthisto.cohort._state import locked, read_state

GENES = ["COL1A1", "CD3E"]


def draw_slide(path: Path, seed: int, *, resolution: int | None = 10_000) -> Path:
    """Write a slide of 1 µm per px with pink tissue in its middle."""
    rng = np.random.default_rng(seed)
    pixels = np.full((600, 700, 3), 245, dtype=np.uint8)
    pixels[100:500, 150:550] = rng.integers((150, 60, 120), (230, 140, 200), (400, 400, 3))
    unit = {"resolution": (resolution, resolution), "resolutionunit": "CENTIMETER"} if resolution else {}
    imwrite(path, pixels, photometric="rgb", tile=(256, 256), compression="zlib", **unit)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    sdata = sth.datasets.synthetic(n_sections=2, n_patients=2, n_spots=40, seed=1)
    path = tmp_path_factory.mktemp("model") / "m.sthisto"
    sth.tl.fit(sdata, method="color", genes=GENES, patch_size=32).save(path)
    return path


def draw_slides(folder: Path, n_slides: int) -> Path:
    folder.mkdir(exist_ok=True)
    for i in range(n_slides):
        draw_slide(folder / f"slide{i}.tif", i)
    return folder


@pytest.fixture
def slides(tmp_path):
    return draw_slides(tmp_path / "slides", 3)


@pytest.fixture(scope="module")
def undisturbed(model, tmp_path_factory):
    """Folder of five slides that one process predicted without interruption; the first three are `slides`."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sth.settings, "cache_dir", folder / "cache")
        patch.setattr(sth.settings, "progress", False)
        sth.cohort.predict(draw_slides(folder / "slides", 5), model, out=folder / "out")
    return folder / "out"


def tables(out: Path) -> dict[str, pd.DataFrame]:
    return {path.stem: sd.read_zarr(path).tables["predicted"].to_df() for path in sorted(out.glob("*.zarr"))}


def assert_undisturbed(out: Path, undisturbed: Path, n_slides: int = 3):
    """Expect the first slides of the undisturbed run, with the same values."""
    found, expected = tables(out), tables(undisturbed)
    assert list(found) == list(expected)[:n_slides]
    for name, table in found.items():
        pd.testing.assert_frame_equal(table, expected[name])


def test_each_slide_has_its_store_and_a_row(slides, model, tmp_path):
    states = sth.cohort.predict(slides, model, out=tmp_path / "out")
    assert list(states.columns) == ["slide", "state", "message", "spots", "seconds"]
    assert set(states["state"]) == {"done"}
    stored = pd.read_csv(tmp_path / "out" / "summary.csv", keep_default_na=False)
    assert list(stored["slide"]) == ["slide0", "slide1", "slide2"]
    for name, spots in zip(states["slide"], states["spots"], strict=True):
        sdata = sd.read_zarr(tmp_path / "out" / f"{name}.zarr")
        table = sdata.tables["predicted"]
        assert table.n_obs == spots > 10
        assert list(table.var_names) == GENES
        assert np.isfinite(table.X).all()
        assert not sdata.images
        assert sdata.attrs["sthisto"]["um_per_unit"] == {name: 1.0}


def test_the_prediction_is_that_of_single_calls(slides, model, tmp_path):
    sth.cohort.predict(slides, sth.models.load(model), out=tmp_path / "out", write_image=True)
    sdata = sth.io.read_slide(slides / "slide1.tif")
    sth.pp.tissue_grid(sdata)
    sth.tl.predict(sdata, sth.models.load(model), table_key="tissue_grid_table", new_table_key="predicted")
    stored = sd.read_zarr(tmp_path / "out" / "slide1.zarr")
    pd.testing.assert_frame_equal(stored.tables["predicted"].to_df(), sdata.tables["predicted"].to_df())
    assert list(stored.images) == ["slide1_image"]


def test_faults_of_slides_are_named_and_the_others_go_on(slides, model, tmp_path):
    whole = (slides / "slide1.tif").read_bytes()
    (slides / "slide1.tif").write_bytes(whole[: len(whole) // 2])
    (slides / "empty.svs").write_bytes(b"")
    imwrite(slides / "glass.tif", np.full((900, 900, 3), 245, np.uint8), photometric="rgb",
            resolution=(10_000, 10_000), resolutionunit="CENTIMETER")  # fmt: skip
    draw_slide(slides / "unknown.tif", 9, resolution=None)
    (slides / "notes.txt").write_text("no slide")
    states = sth.cohort.predict(slides, model, out=tmp_path / "out").set_index("slide")
    assert list(states.index[states["state"] == "done"]) == ["slide0", "slide2"]
    assert "notes" not in states.index
    for name, words in (
        ("slide1", "incomplete"), ("empty", "empty.svs"), ("glass", "No tissue"), ("unknown", "µm per px")
    ):  # fmt: skip
        assert states.loc[name, "state"] == "failed"
        assert words in states.loc[name, "message"]
    draw_slide(slides / "slide1.tif", 1)
    again = sth.cohort.predict(slides, model, out=tmp_path / "out").set_index("slide")
    assert again.loc["slide1", "state"] == "done"


def test_a_pixel_that_cant_be_read_fails_its_slide_alone(slides, model, tmp_path):
    stored = bytearray((slides / "slide1.tif").read_bytes())
    stored[20_000:60_000] = os.urandom(40_000)
    (slides / "slide1.tif").write_bytes(bytes(stored))
    states = sth.cohort.predict(slides, model, out=tmp_path / "out")
    assert list(states["state"]) == ["done", "failed", "done"]
    assert "slide1.tif" in states["message"][1]
    assert not (tmp_path / "out" / "slide1.zarr").exists()


def test_what_is_done_is_left_as_it_is(slides, model, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = sth.cohort.predict(slides, model, out=out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.zarr")}
    draw_slide(slides / "slide3.tif", 3)
    again = sth.cohort.predict(slides, model, out=out)
    assert list(again["state"]) == ["done"] * 4
    assert again["seconds"][:3].tolist() == first["seconds"].tolist()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    draw_slide(slides / "slide0.tif", 77)
    sth.cohort.predict(slides, model, out=out)
    assert (out / "slide0.zarr").stat().st_mtime_ns > before[out / "slide0.zarr"]


def test_um_per_px_that_change_are_predicted_anew(slides, model, tmp_path):
    manifest, out = slides / "slides.csv", tmp_path / "out"
    for um in (None, 2.0, None):
        manifest.write_text(f"wsi,mpp\nslide0.tif,{um or ''}\n")
        sth.cohort.predict(manifest, model, out=out)
        assert sd.read_zarr(out / "slide0.zarr").attrs["sthisto"]["um_per_unit"] == {"slide0": um or 1.0}


def test_um_per_px_are_stated_for_slides_that_no_manifest_states_them_of(slides, model, tmp_path):
    draw_slide(slides / "unknown.tif", 9, resolution=None)
    (slides / "slides.csv").write_text("path,um_per_px\nunknown.tif,\nslide0.tif,2\n")
    states = sth.cohort.predict(slides / "slides.csv", model, out=tmp_path / "out", um_per_px=0.5)
    assert states["state"].eq("done").all()
    for name, um in (("unknown", 0.5), ("slide0", 2.0)):
        assert sd.read_zarr(tmp_path / "out" / f"{name}.zarr").attrs["sthisto"]["um_per_unit"] == {name: um}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "can't be read"),
        ("path\nü.tif\n".encode("latin-1"), "can't be read"),
        (b"path,mpp\na.tif,zero\n", "a.tif must be a positive number"),
        (b'path,mpp\na.tif,"0,5"\n', "found '0,5'"),
    ],
)
def test_manifests_that_cant_be_read_are_refused(tmp_path, text, words):
    (tmp_path / "slides.csv").write_bytes(text)
    with pytest.raises(ValueError, match=words):
        find_slides(tmp_path / "slides.csv")


@pytest.mark.parametrize("text", ["path,mpp\na.tif,0.5,\nb.tif,,\n", '"path","mpp"\n"1","a.tif",0.5\n"2","b.tif",\n'])
def test_lines_of_manifests_may_end_with_a_comma_or_begin_with_the_names_that_r_gives(tmp_path, text):
    (tmp_path / "slides.csv").write_text(text)
    assert [(job.name, job.um_per_px) for job in find_slides(tmp_path / "slides.csv")] == [("a", 0.5), ("b", None)]


def test_a_folder_that_cant_be_written_to_is_refused(slides, model, tmp_path, monkeypatch):
    (tmp_path / "out").write_text("")
    with pytest.raises(OSError, match="can't be written to"):
        sth.cohort.predict(slides, model, out=tmp_path / "out")
    full = OSError(errno.EROFS, "Read-only file system")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match="Read-only file system"):
        sth.cohort.predict(slides, model, out=tmp_path / "another")


def test_slides_that_failed_again_are_left_out_of_the_table_of_slides(slides, model, tmp_path, caplog):
    out = tmp_path / "out"
    sth.cohort.predict(slides, model, out=out)
    (slides / "slide1.tif").write_bytes(b"II*\0 no slide")
    sth.cohort.predict(slides, model, out=out)
    assert (out / "slide1.zarr").is_dir()
    assert sth.get.slides(out).obs_names.tolist() == ["slide0", "slide2"]
    assert "slide1.zarr is of an earlier prediction, its slide is 'failed' now" in caplog.text


def test_the_command_refuses_options_of_stores(slides, model, tmp_path, capsys):
    arguments = ["predict", str(slides), "--model", str(model), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--new-table", "x", "--key-added", "mine"]) == 1
    assert "slides, which take no '--new-table', '--key-added'" in capsys.readouterr().err
    assert main(["predict", str(slides), "--model", str(model), "--out", str(tmp_path / "out.zarr")]) == 1
    assert "Name a folder; or make a store of a run with sthisto read first" in capsys.readouterr().err
    assert not (tmp_path / "out.zarr").exists()
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--um-per-px", "2", "--json"]) == 0
    assert sd.read_zarr(tmp_path / "out" / "slide0.zarr").attrs["sthisto"]["um_per_unit"] == {"slide0": 2.0}


def test_results_of_another_model_are_not_mixed(slides, model, tmp_path):
    sth.cohort.predict(slides, model, out=tmp_path / "out")
    with pytest.raises(ValueError, match="another model or with other arguments"):
        sth.cohort.predict(slides, model, out=tmp_path / "out", smooth=0.5)
    states = sth.cohort.predict(slides, model, out=tmp_path / "out", smooth=0.5, overwrite=True)
    assert set(states["state"]) == {"done"}


def test_several_processes_predict_the_same(slides, model, tmp_path, undisturbed):
    states = sth.cohort.predict(slides, model, out=tmp_path / "out", workers=2)
    assert set(states["state"]) == {"done"}
    assert_undisturbed(tmp_path / "out", undisturbed)


def test_a_slide_that_another_run_works_on_is_left_to_it(slides, model, tmp_path):
    out = tmp_path / "out"
    with locked(out, "slide1") as is_ours:
        assert is_ours
        states = sth.cohort.predict(slides, model, out=out).set_index("slide")
    assert states.loc["slide1", "state"] == "running"
    assert states["state"].drop("slide1").eq("done").all()
    assert sth.cohort.predict(slides, model, out=out)["state"].eq("done").all()


def command(slides, model, out, *more):
    return [sys.executable, "-m", "sthisto", "predict", str(slides), "--model", str(model), "--out", str(out), *more]


def test_a_killed_run_goes_on_where_it_ended(slides, model, tmp_path, undisturbed):
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(slides, model, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and not (out / "states" / "slide1.json").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in out.glob("*.zarr") if read_state(out, path.stem).state == "done"}
    assert out / "slide0.zarr" in done
    states = sth.cohort.predict(slides, model, out=out)
    assert set(states["state"]) == {"done"}
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert_undisturbed(out, undisturbed)
    assert {path.name for path in out.iterdir()} == {
        "slide0.zarr", "slide1.zarr", "slide2.zarr", "states", "summary.csv", "summary.html"
    }  # fmt: skip


def test_a_slide_that_kills_its_process_does_not_end_the_others(slides, model, tmp_path, monkeypatch):
    code = (
        "import os, signal, sthisto.cohort._slide as slide\n"
        "write_state = slide.write_state\n"
        "def fatal(out, name, state):\n"
        "    write_state(out, name, state)\n"
        "    if name == 'slide1': os.kill(os.getpid(), signal.SIGKILL)\n"
        "slide.write_state = fatal\n"
    )
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    states = sth.cohort.predict(slides, model, out=tmp_path / "out", workers=2)
    assert list(states["state"]) == ["done", "failed", "done"]
    assert "killed" in states["message"][1]


def test_manifests_name_slides_and_state_um(slides, model, tmp_path):
    draw_slide(tmp_path / "plain.tif", 5, resolution=None)
    (tmp_path / "list.csv").write_text("path,um_per_px,name\nplain.tif,1.0,P1\nslides/slide0.tif,,\n\n")
    states = sth.cohort.predict(tmp_path / "list.csv", model, out=tmp_path / "out")
    assert states[["slide", "state"]].to_numpy().tolist() == [["P1", "done"], ["slide0", "done"]]
    spots = sd.read_zarr(tmp_path / "out" / "P1.zarr").shapes["tissue_grid"]
    assert spots["radius"].iloc[0] == pytest.approx(27.5)


def test_slides_are_found_and_told_apart(slides, tmp_path):
    assert [job.name for job in find_slides(slides)] == ["slide0", "slide1", "slide2"]
    assert [job.name for job in find_slides([slides / "slide2.tif"])] == ["slide2"]
    (tmp_path / "empty").mkdir()
    for paths, error, words in (
        (tmp_path / "empty", ValueError, "no slides"),
        (tmp_path / "nowhere", FileNotFoundError, "nothing at"),
        ([slides / "slide0.tif", tmp_path / "slide0.svs"], ValueError, "one name"),
    ):
        with pytest.raises(error, match=words):
            find_slides(paths)
    (tmp_path / "wrong.csv").write_text("image\na.svs\n")
    with pytest.raises(KeyError, match="no column 'path'"):
        find_slides(tmp_path / "wrong.csv")


def test_the_command_line_returns_1_where_slides_failed(slides, model, tmp_path, capsys):
    from sthisto.cli import main

    arguments = command(slides, model, tmp_path / "out")[3:]
    assert main(arguments) == 0
    assert "slide2" in capsys.readouterr().out
    (slides / "bad.svs").write_bytes(b"II*\0 no slide")
    assert main([*arguments, "--json"]) == 1
    assert '"state":"failed"' in capsys.readouterr().out


def test_a_dask_cluster_predicts_the_same(slides, model, tmp_path, undisturbed):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        states = sth.cohort.predict(slides, model, out=tmp_path / "dask", cluster=cluster.scheduler_address)
    assert set(states["state"]) == {"done"}
    assert_undisturbed(tmp_path / "dask", undisturbed)


def test_two_runs_in_one_folder_share_the_slides(model, tmp_path, undisturbed):
    slides, out = draw_slides(tmp_path / "slides", 5), tmp_path / "out"
    both = [subprocess.Popen(command(slides, model, out, "--json"), stdout=subprocess.DEVNULL) for _ in range(2)]
    for process in both:
        process.wait(timeout=300)
    assert_undisturbed(out, undisturbed, 5)
    summary, expected = (pd.read_csv(folder / "summary.csv") for folder in (out, undisturbed))
    pd.testing.assert_frame_equal(summary.drop(columns="seconds"), expected.drop(columns="seconds"))


def test_a_full_disk_loses_nothing_and_ends_no_run(slides, model, tmp_path, monkeypatch, caplog, undisturbed):
    out, write = tmp_path / "out", sd.SpatialData.write

    def full(self, path, **more):
        if "slide0" in str(path):
            return write(self, path, **more)
        Path(path).mkdir()
        (Path(path) / "part").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(sd.SpatialData, "write", full)
        patched.setattr(pd.DataFrame, "to_csv", lambda *_, **__: full(None, tmp_path / "nowhere"))
        states = sth.cohort.predict(slides, model, out=out)
    assert states["state"].tolist() == ["done", "failed", "failed"]
    assert "No space left" in states["message"][1]
    assert "summary" in caplog.text
    assert [path.name for path in out.iterdir()] == ["states", "slide0.zarr"] or not (out / "summary.csv").exists()
    kept = (out / "slide0.zarr").stat().st_mtime_ns
    assert sth.cohort.predict(slides, model, out=out)["state"].eq("done").all()
    assert (out / "slide0.zarr").stat().st_mtime_ns == kept
    assert_undisturbed(out, undisturbed)


def test_the_page_of_a_cohort_escapes_what_files_are_called(slides, model, tmp_path):
    (slides / "<script>alert(1)<.svs").write_bytes(b"II*\0 <b>no slide</b>")
    states = sth.cohort.predict(slides, model, out=tmp_path / "out")
    page = (tmp_path / "out" / "summary.html").read_text(encoding="utf-8")
    assert states["state"].tolist().count("failed") == 1
    assert "<script" not in page
    assert page.count("<tr") == 5
    assert "3 done, 1 failed" in page


def test_slides_of_a_cohort_become_one_table(slides, model, tmp_path):
    sth.cohort.predict(slides, model, out=tmp_path / "out")
    found = sth.get.slides(tmp_path / "out")
    assert found.obs_names.tolist() == ["slide0", "slide1", "slide2"]
    of_last = tables(tmp_path / "out")["slide2"]
    np.testing.assert_allclose(found.X[2], of_last[found.var_names].mean(), rtol=1e-5)


def test_what_a_killed_run_left_beside_a_slide_that_is_done_is_no_slide_and_goes(slides, model, tmp_path):
    out = tmp_path / "out"
    sth.cohort.predict(slides, model, out=out)
    killed = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    name = staging_name(out / "slide2.zarr").replace(f"-{os.getpid()}-", f"-{killed.stdout.strip()}-")
    (out / name).mkdir()
    assert sth.get.slides(out).n_obs == 3
    sth.cohort.predict(slides, model, out=out)
    assert not (out / name).exists()


def test_slides_that_are_tiny_or_lack_the_features_of_a_model_say_so(slides, tmp_path):
    pixels = np.random.default_rng(0).integers((150, 60, 120), (230, 140, 200), (20, 20, 3)).astype(np.uint8)
    imwrite(slides / "tiny.tif", pixels, photometric="rgb", resolution=(10_000,) * 2, resolutionunit="CENTIMETER")
    sdata = sth.datasets.synthetic(n_sections=1, n_spots=40)
    sdata["expression"].obsm["X_uni2"] = np.random.default_rng(0).random((40, 3))
    model = sth.tl.fit(sdata, method="ridge", features="obsm:X_uni2", genes=GENES)
    states = sth.cohort.predict(slides, model, out=tmp_path / "out").set_index("slide")
    assert set(states["state"]) == {"failed"}
    assert "no spot fits into image" in states.loc["tiny", "message"]
    assert "no features obsm['X_uni2']" in states.loc["slide0", "message"]
