"""Processes that are killed at random moments, and what is left of their work."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _break_data import DANET, PATCH, SMALL, Filters, digest, make_sections, model_digest

import sthisto as sth

ENCODED: dict[str, Any] = {"patch_size": PATCH, "genes": SMALL["genes"]}


def fit(folder: Path) -> str:
    """Fit with a checkpoint and save."""
    model = sth.tl.fit(make_sections(), checkpoint=folder / "kept", image_encoder=Filters(), **ENCODED, **DANET)
    model.save(folder / "model.sthisto", overwrite=True)
    return model_digest(model)


def finetune(folder: Path) -> str:
    """Train the encoder too."""
    options = DANET | {"finetune": True}
    model = sth.tl.fit(make_sections(), checkpoint=folder / "kept", image_encoder=Filters(), **ENCODED, **options)
    return model_digest(model)


def predict(folder: Path) -> str:
    """Predict a store by the command line, which replaces what was predicted before."""
    from sthisto.cli import main

    store, model, out = folder / "sections.zarr", folder / "mean.sthisto", folder / "out.zarr"
    if not model.exists():
        shutil.rmtree(store, ignore_errors=True)
        make_sections().write(store)
        sth.tl.fit(make_sections(), method="mean", **SMALL).save(model)
    code = main(["predict", str(store), "--model", str(model), "--out", str(out), "--overwrite"])
    if code:
        msg = f"sthisto predict ended with {code}"
        raise RuntimeError(msg)
    return digest(sth.io.read(out)["counts"].layers["sthisto_pred"])


def predicted_before(folder: Path) -> None:
    """Raise an error where a predicted store is there and not whole."""
    if (folder / "out.zarr").exists():
        sth.io.read(folder / "out.zarr")["counts"].layers["sthisto_pred"].sum()


def save(folder: Path) -> str:
    """Save a model over itself many times."""
    path = folder / "model.sthisto"
    model = sth.models.load(path) if path.exists() else sth.tl.fit(make_sections(), method="color", **SMALL)
    for _ in range(20):
        model.save(path, overwrite=True)
    return model_digest(sth.models.load(path))


def saved_before(folder: Path) -> None:
    """Raise an error where a model had been saved and cannot be loaded."""
    if (folder / "saved").exists() or (folder / "model.sthisto").exists():
        (folder / "saved").touch()
        sth.models.load(folder / "model.sthisto")


def cross_validate(folder: Path) -> str:
    """Cross-validate with kept folds."""
    sdata = make_sections()
    sth.tl.cross_validate(
        sdata, methods=["mean", "color"], groups="section", seeds=2, out=folder / "folds", key_added="cv", **SMALL
    )
    table = sdata["counts"].uns["cv"]["scores"]
    return digest(table.drop(columns=[c for c in table if c.startswith("seconds")]).to_csv().encode())


def benchmark(folder: Path) -> str:
    """Run a benchmark with kept runs."""
    protocol = sth.benchmark.Protocol(
        "her2st", ("color", "mean"), split="section", train=("A",), test=("B",), genes=tuple(SMALL["genes"]), seeds=2,
        encoder=sth.models.Encoder(Filters(), name="filters"), patch={"patch_size": PATCH},
    )  # fmt: skip
    table = sth.benchmark.run(make_sections(), protocol, out=folder / "benchmark")
    return digest(table[[c for c in table if not c.startswith("seconds")]].to_csv().encode())


def cache(folder: Path) -> str:
    """Compute features with a cache on disk."""
    sth.settings.cache_dir, sth.settings.cache_features = folder / "cache", True
    model = sth.tl.fit(make_sections(), method="ridge", image_encoder=Filters(), **ENCODED)
    sdata = make_sections()
    sth.tl.predict(sdata, model)
    return digest(np.asarray(sdata["counts"].layers["sthisto_pred"]))


def warm_up() -> None:
    """Import what the works need, so that children that are forked afterwards start at once; run nothing."""
    import importlib

    names = (
        "tl._fit",
        "tl._predict",
        "tl._cross_validate",
        "models.methods.danet",
        "benchmark._run",
        "cli",
        "io._read",
    )
    for name in ("spatialdata", "anndata", "lightning_fabric", "pyarrow", *(f"sthisto.{name}" for name in names)):
        importlib.import_module(name)
    _ = sth.models.METHODS["danet"]


WORKS: dict[str, tuple[Callable[[Path], str], Callable[[Path], None] | None]] = {
    "fit": (fit, None),
    "finetune": (finetune, None),
    "predict": (predict, predicted_before),
    "save": (save, saved_before),
    "cross_validate": (cross_validate, None),
    "benchmark": (benchmark, None),
    "cache": (cache, None),
}
"""What is killed -> the work, which returns a digest, and what must hold after each kill."""


def in_child(work: Callable[[Path], Any], folder: Path, kill_after: float | None = None) -> tuple[str, Any, float]:
    """Run work in a forked process, killed after some seconds; return "done", "killed" or "failed", result, seconds."""
    result, start = folder.parent / f"{folder.name}.result", time.monotonic()
    result.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        _child(work, folder, result)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - start
    if os.WIFSIGNALED(status):
        return "killed", None, seconds
    outcome, value = json.loads(result.read_text()) if result.exists() else ("failed", "no result")
    return outcome, value, seconds


def _child(work: Callable[[Path], Any], folder: Path, result: Path) -> None:
    try:
        log = os.open(folder.parent / f"{folder.name}.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sth.settings.progress = sth.settings.cache_features = False
        answer = ["done", work(folder)]
    except BaseException:  # noqa: BLE001  the parent is told whatever it was
        answer = ["failed", traceback.format_exc()]
    result.write_text(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)


def break_work(name: str, folder: Path, n_kills: int, rng: np.random.Generator) -> dict[str, Any]:
    """Kill a work many times, let it end, and compare with one that was never killed."""
    work, must_hold = WORKS[name]
    whole = folder / f"{name}-whole"
    whole.mkdir(parents=True)
    outcome, expected, seconds = in_child(work, whole)
    if outcome != "done":
        return {"kills": 0, "lost": 1, "why": [expected]}
    lost, killed, kept = [], 0, folder / f"{name}-killed"
    kept.mkdir()
    while killed < n_kills:
        outcome, value, _ = in_child(work, kept, kill_after=float(rng.uniform(0, 1.2 * seconds)))
        killed += outcome == "killed"
        if outcome != "killed":  # it had ended: begin anew
            lost += [] if value == expected else [f"{outcome}: {value}"]
            shutil.rmtree(kept)
            kept.mkdir()
        elif must_hold is not None:
            outcome, value, _ = in_child(must_hold, kept)
            lost += [] if outcome == "done" else [str(value)]
    outcome, value, _ = in_child(work, kept)
    lost += [] if value == expected else [f"at the end, {outcome}: {value}"]
    left = [str(path) for path in kept.rglob("*") if path.name.startswith(".") and ".part" in path.name]
    return {"kills": killed, "lost": len(lost), "left over": len(left), "why": lost}
