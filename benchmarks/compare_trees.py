"""Compare what two source trees predict, score and cluster: how far each array of one is from the other's.

    python benchmarks/compare_trees.py OLD/src NEW/src [--genes genes_785.txt] [--methods danet ridge recommended]

Each method is fitted on synthetic sections of two patients and predicts the third (all genes), and, with --genes, on
the her2st sections C3 and C4 and predicts C2; these are read from the folder that STHISTO_HER2ST names. Every tree runs
in a process of its own with a cache of its own. Of numbers the largest absolute difference is printed, and of cluster
labels the adjusted Rand index. ``--tolerance`` exits with 1 where a difference exceeds it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

METHODS = ("danet", "ridge", "recommended")
HAVE_EPOCHS = ("danet", "bleep", "stnet", "histogene", "hybrid")
SCORES = ("pcc", "pcc_residual", "reproducibility", "ceiling")
"""Those of them that a tree gives; the third was called "ceiling"."""


def results(methods: Sequence[str], genes: Path | None, *, max_epochs: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and array of everything that is compared, from the sthisto that this process imports."""
    import sthisto as sth

    sth.settings.progress = False
    sdata = sth.datasets.synthetic(n_sections=3, n_patients=3, seed=0)
    sth.pp.split(sdata, by="patient", patient_key="patient", seed=0)
    panel = list(next(iter(sdata.tables.values())).var_names)  # all genes: defaults of the selection may differ
    yield from of_sections("synthetic", sdata, methods, max_epochs, genes=panel)
    if genes is not None:
        sdata = sth.datasets.her2st(sections=["C2", "C3", "C4"])
        table = next(iter(sdata.tables.values()))
        tested = table.obs["section"].astype(str) == "C2"
        table.obs["sthisto_split"] = pd.Categorical(np.where(tested, "test", "train"))
        panel = genes.read_text(encoding="utf-8").split()
        yield from of_sections("her2st", sdata, methods, max_epochs, genes=panel, patch_um=77)


def of_sections(
    name: str, sdata: Any, methods: Sequence[str], max_epochs: int, **options: object
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the predictions and scores of every method, and the clusters of the measured expression."""
    import sthisto as sth

    table = next(iter(sdata.tables.values()))
    for method in methods:
        own = {"max_epochs": max_epochs} if method in HAVE_EPOCHS else {}
        model = sth.tl.fit(sdata, method=method, image_encoder="efficientnet_lite0", **options, **own)
        sth.tl.predict(sdata, model)
        sth.tl.evaluate(sdata, n_boot=200)
        yield f"{name}/{method}/prediction", np.asarray(table.layers["sthisto_pred"])
        for score in SCORES:
            if f"sthisto_{score}" in table.var:
                yield f"{name}/{method}/{score}", table.var[f"sthisto_{score}"].to_numpy()
    for method in ("leiden", "kmeans"):
        sth.tl.cluster(sdata, method=method, n_clusters=5, key_added="found")
        yield f"{name}/clusters/{method}", table.obs["found"].astype(str).to_numpy(dtype=str)
    sth.tl.cluster(sdata, key_added="found")
    yield f"{name}/clusters/leiden at resolution 1", table.obs["found"].astype(str).to_numpy(dtype=str)


def run(tree: Path, out: Path, arguments: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the results of a tree, computed in a process that imports it."""
    settings = {"PYTHONPATH": str(tree), "STHISTO_CACHE": str(out.with_suffix(""))}
    command = [sys.executable, __file__, *arguments, "--out", str(out)]
    subprocess.run(command, env=os.environ | settings, check=True)
    with np.load(out) as stored:
        return dict(stored)


def difference(old: np.ndarray, new: np.ndarray) -> float:
    """Return the largest absolute difference; infinite where shapes or the places of NaN differ."""
    if old.shape != new.shape or not np.array_equal(np.isnan(old), np.isnan(new)):
        return float("inf")
    return float(np.nanmax(np.abs(old.astype(np.float64) - new), initial=0.0))


def print_row(name: str, old: np.ndarray, new: np.ndarray) -> float:
    """Print how far two arrays are apart and return the difference, 0 for labels."""
    if old.dtype.kind == "U":
        from sklearn.metrics import adjusted_rand_score

        counts = f"{len(np.unique(old))} and {len(np.unique(new))} clusters"
        print(f"{name:44}{'ARI':>8}{adjusted_rand_score(old, new):12.4f}   {counts}")
        return 0.0
    apart = difference(old, new)
    same = "same to the last bit" if np.array_equal(old, new, equal_nan=True) else ""
    print(f"{name:44}{'max |Δ|':>8}{apart:12.2e}   {same}")
    return apart


def main() -> None:
    """Run both trees and print a row an array."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="*", type=Path, metavar="SRC", help="the folders src of two trees")
    parser.add_argument("--genes", type=Path, help="file of gene names; compares on her2st too")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--max-epochs", type=int, default=8)
    parser.add_argument("--tolerance", type=float, help="exit with 1 where a difference is larger")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.out:
        np.savez_compressed(options.out, **dict(results(options.methods, options.genes, max_epochs=options.max_epochs)))
        return
    if len(options.trees) != 2:
        parser.error("two trees are compared: pass the folder src of each.")
    passed = [*sys.argv[1:]]
    for tree in options.trees:
        passed.remove(str(tree))
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / f"{name}.npz" for name in ("old", "new")]
        old, new = (run(tree, out, passed) for tree, out in zip(options.trees, outs, strict=True))
    if old.keys() != new.keys():
        parser.error(f"the trees give different arrays: {sorted(old.keys() ^ new.keys())}.")
    apart = [print_row(name, old[name], new[name]) for name in old]
    if options.tolerance is not None and max(apart) > options.tolerance:
        sys.exit(1)


if __name__ == "__main__":
    main()
