"""Public functions called with nonsense: computed, or refused in words of the package with nothing changed."""

from __future__ import annotations

import copy
import inspect
import logging
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from _break_data import SMALL, folder_listing, make_sections
from spatialdata import SpatialData

import sthisto as sth

ROOMS = ("tl", "pp", "pl", "get", "io", "metrics", "benchmark")
LEFT_OUT = {"cross_validate", "learning_curve", "noise_ceiling", "from_wsidata", "paper_values"}
SOURCE = str(Path(sth.__file__).parent)
OURS = (ValueError, TypeError, KeyError, FileNotFoundError, FileExistsError, IsADirectoryError, ImportError)
HANGS_S = 60
X = np.random.default_rng(0).poisson(3, (20, 6)).astype(float)
CENTERS = np.random.default_rng(1).random((20, 2)) * 10
NAN, INF = float("nan"), float("inf")
NONSENSE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 2.5, NAN, INF, -INF, 10**30, 1e-300, np.float64(0.5), np.int64(3), 1j),
    *("", " ", "nope", "False", "A", "counts", "a/b", "a\0b", "../x", "é" * 300, b"bytes", Path("nope"), "sthisto"),
    *([], (), {}, set(), [None], ["nope"], [NAN], [-1], [[1]], {"A": 1}, {"A": None}, {1: "A"}, range(3)),
    *(
        np.zeros(0),
        np.array(3),
        np.arange(20),
        X,
        -X,
        np.full_like(X, NAN),
        np.full_like(X, INF),
        X[:3],
        X.astype(object),
        X.astype(str),
    ),
    *(sp.csr_matrix(X), sp.csr_matrix((0, 0)), pd.DataFrame(X), pd.DataFrame(), pd.Series(["a"]), ad.AnnData(X)),
    *(object(), np.datetime64("2020-01-01"), slice(3), ..., "2.5", "1e999", "nan"),
)


class Hang(Exception):
    """A call that does not end."""


def _hang(number: int, frame: Any) -> None:
    raise Hang


def fuzz(folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Call functions with one to three nonsensical arguments until the time has passed."""
    import matplotlib as mpl

    mpl.use("agg")
    folder.mkdir(parents=True)
    os.chdir(folder)
    sth.settings.progress = False
    logging.getLogger("sthisto").setLevel(logging.ERROR)
    rng, whole, why, tried = np.random.default_rng(seed), _Whole(folder), [], 0
    signal.signal(signal.SIGALRM, _hang)
    end = time.monotonic() + seconds
    seen: set[tuple[Any, ...]] = set()
    while time.monotonic() < end:
        name, function = whole.functions[int(rng.integers(len(whole.functions)))]
        names = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        chosen = rng.choice(names, min(len(names), int(rng.integers(1, 4))), replace=False)
        changed = {str(one): NONSENSE[int(rng.integers(len(NONSENSE)))] for one in chosen}
        fault = whole.fault(name, function, changed)
        tried += 1
        kind = None if fault is None else (name, fault[:60])
        if kind is not None and kind not in seen:
            seen.add(kind)
            why.append(f"{name}({', '.join(f'{key}={str(value)[:40]!r}' for key, value in changed.items())}): {fault}")
    return {"what": f"fuzz of {len(whole.functions)} functions", "tried": tried, "fell": len(why), "why": why}


class _Whole:
    """The usual arguments of every function, and what must stay as it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sdata = make_sections()
        sdata["counts"].obs["sthisto_split"] = np.where(sdata["counts"].obs["region"] == "A", "train", "test")
        self.model = sth.tl.fit(sdata, method="color", **SMALL)
        sth.tl.predict(sdata, self.model)
        sth.tl.evaluate(sdata, n_splits=2, n_boot=10)
        self.sdata = sdata
        self.functions: list[tuple[str, Callable[..., Any]]] = [
            (f"{room}.{name}", value)
            for room in ROOMS
            for name in getattr(sth, room).__all__
            if inspect.isfunction(value := getattr(getattr(sth, room), name)) and name not in LEFT_OUT
        ]

    def own(self) -> SpatialData:
        """Return the sections with a table of their own."""
        tables = {name: table.copy() for name, table in self.sdata.tables.items()}
        own = SpatialData(images=dict(self.sdata.images), shapes=dict(self.sdata.shapes), tables=tables)
        own.attrs = copy.deepcopy(self.sdata.attrs)
        return own

    def usual(self, name: str) -> dict[str, Any]:
        """Return arguments with which a function runs quickly."""
        usual: dict[str, Any] = {
            "sdata": self.own(),
            "model": self.model,
            "genes": list(SMALL["genes"][:2]),
            "by": "section",
            **dict.fromkeys(("truth", "prediction", "x", "values", "target", "counts", "residuals"), X),
            "totals": X.sum(1),
            "covariates": X[:, :1],
            "coordinates": CENTERS,
            "size": 3.0,
            "labels": list("ab") * 10,
            "blocks": [0, 1] * 10,
            "section": [0] * 10 + [1] * 10,
            "predictions": {"a": X, "b": X + 1},
            "metric": sth.metrics.pearson,
            "reference": [X],
            "score": _mean,
            "graph": sth.metrics.spatial_graph(CENTERS),
            "adata": ad.AnnData(X),
            "path": "written",
            "out": "out",
            "features": X,
            "spot": "A1",
            "scores": pd.DataFrame(),
            "table": pd.DataFrame(),
            "protocol": None,
            "protocols": [],
            "n_boot": 10,
            "n_splits": 2,
        }
        return usual | OWN.get(name, {})

    def fault(self, name: str, function: Callable[..., Any], changed: dict[str, Any]) -> str | None:
        """Call a function; return what was wrong with how it failed, None for a result or a clear error."""
        parameters, usual = inspect.signature(function).parameters, self.usual(name)
        needed = {key: usual[key] for key, p in parameters.items() if key in usual and p.default is p.empty}
        needed |= {key: usual[key] for key in ("n_boot", "n_splits") if key in parameters} | OWN.get(name, {})
        arguments = {**needed, **changed}
        sdata = arguments.get("sdata")
        before, files = _state(sdata), folder_listing(self.folder)
        signal.alarm(HANGS_S)
        try:
            function(**arguments)
        except Hang:
            return "hangs"
        except Exception as error:  # noqa: BLE001  which it is, is what is judged
            signal.alarm(0)
            return _judged(error) or _changed(before, _state(sdata), files, folder_listing(self.folder))
        finally:
            signal.alarm(0)
            _close()
            for path in self.folder.iterdir():
                path.unlink() if path.is_file() else None
        return None


OWN: dict[str, dict[str, Any]] = {
    "tl.fit": {"method": "color", "genes": list(SMALL["genes"]), "patch_size": SMALL["patch_size"]},
    "tl.cluster": {"method": "kmeans", "n_clusters": 2},
    "pp.split": {"by": "section", "test": 0.5},
    "metrics.cluster": {"n_clusters": 2},
    "metrics.paired_difference": {"reference": "a"},
    "pl.neighbors": {"reference": None},
}


def _mean(t: Any, p: Any) -> Any:
    return (t - p).sum(axis=0)


def _judged(error: Exception) -> str | None:
    place = traceback.extract_tb(error.__traceback__)[-1]
    if (type(error) not in OURS and not isinstance(error, RuntimeError)) or not place.filename.startswith(SOURCE):
        return f"{type(error).__name__} from {place.filename}:{place.lineno}: {str(error)[:150]}"
    return None if len(str(error)) > 20 else f"{type(error).__name__} says only {str(error)!r}"


def _state(sdata: Any) -> Any:
    if not isinstance(sdata, SpatialData):
        return None
    table = sdata["counts"]
    parts = {name: sorted(map(str, getattr(table, name))) for name in ("uns", "obsm", "layers")}
    frames = pd.concat([table.obs.astype(str).reset_index(), table.var.astype(str).reset_index()], axis=1)
    return parts, frames.to_csv(), sorted(name for _, name, _ in sdata.gen_elements()), repr(sdata.attrs)


def _changed(before: Any, after: Any, files: Any, files_after: Any) -> str | None:
    if before != after:
        return "the data were changed by a call that failed"
    return "the disk was changed by a call that failed" if files != files_after else None


def _close() -> None:
    import matplotlib.pyplot as plt

    plt.close("all")
