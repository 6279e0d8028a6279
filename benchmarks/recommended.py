"""CPU seconds of `recommended` with cached features, beside those of `hybrid`, which it replaced.

Sections are read from the folder that STHISTO_HER2ST names. Each method is fitted once to fill the cache, networks for
one epoch only; then fit and prediction are timed, by the CPU time of the process and its children.
Run: python benchmarks/recommended.py --genes genes_785.txt [--train C2 C3 C4] [--test A1 A2] [--check]
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import sthisto as sth

MOST_SECONDS = 5.0
WARM_UP: dict[str, dict[str, Any]] = {"hybrid": {"max_epochs": 1}, "danet": {"max_epochs": 1}}


def cpu_seconds() -> float:
    """Return the CPU time of this process and its children so far."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def measure(sdata: Any, method: str, genes: list[str]) -> tuple[float, float]:
    """Return the CPU seconds of a fit and of a prediction."""
    setting = {"method": method, "genes": genes, "patch_um": 77.28, "image_encoder": "efficientnet_lite0"}
    sth.tl.predict(sdata, sth.tl.fit(sdata, **setting, **WARM_UP.get(method, {})))
    start = cpu_seconds()
    model = sth.tl.fit(sdata, **setting)
    fitted = cpu_seconds()
    sth.tl.predict(sdata, model)
    return fitted - start, cpu_seconds() - fitted


def main() -> None:
    """Print a row a method and the ratio of the last to the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", required=True, help="file with one gene a line")
    parser.add_argument("--methods", nargs="+", default=["recommended", "hybrid"])
    parser.add_argument("--train", nargs="+", default=["C2", "C3", "C4"])
    parser.add_argument("--test", nargs="+", default=["A1", "A2"])
    parser.add_argument("--check", action="store_true", help=f"exit with 1 above {MOST_SECONDS:g} s for recommended")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("sthisto").setLevel(logging.ERROR)
    sth.settings.progress = False
    sdata = sth.datasets.her2st(sections=[*arguments.train, *arguments.test])
    table = sdata["counts"]
    genes = [gene for gene in Path(arguments.genes).read_text().split() if gene in set(table.var_names)]
    test = table.obs["section"].isin(arguments.test)
    table.obs["sthisto_split"] = pd.Categorical(np.where(test, "test", "train"))
    print(f"{(~test).sum()} training spots, {len(table)} predicted, {len(genes)} genes; CPU seconds, features cached\n")
    print("| method | fit | predict | both |\n|---|---|---|---|", flush=True)
    total = {}
    for method in arguments.methods:
        fit, predict = measure(sdata, method, genes)
        total[method] = fit + predict
        print(f"| {method} | {fit:.1f} | {predict:.1f} | {fit + predict:.1f} |", flush=True)
    first, last = arguments.methods[0], arguments.methods[-1]
    print(f"\n{last} takes {total[last] / total[first]:.1f} times the CPU time of {first}.")
    if arguments.check and total.get("recommended", 0.0) > MOST_SECONDS:
        sys.exit(1)


if __name__ == "__main__":
    main()
