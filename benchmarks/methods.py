"""Every method on the same real sections, spots, genes and encoder, with paired intervals.

    python benchmarks/methods.py --genes genes_785.txt
    python benchmarks/methods.py --genes genes_785.txt --splits C2 C3 C4 --methods color ridge danet --seeds 1
    python benchmarks/methods.py --genes genes_785.txt --inside --seeds 1

Sections are read from the folder that STHISTO_HER2ST names, which must hold A1, A2, C2, C3 and C4. Splits: "C2", "C3"
and "C4" are predicted from the other two of the patient (a); "A" is patient A from patient C and "C" the other way
round (b). Patches show 77 µm, 112 px of the sections of C, and come to the encoder at its own input size. "+ context"
adds views of twice and four times the width.

PCC is on log1p counts per 10,000, residual PCC against analytic Pearson residuals; both are means over genes, then
sections, ± the standard deviation over seeds. Seconds are those of one fit and one prediction of the test sections
with the frozen encoder's features in the cache. Differences are in residual PCC over all genes, with 95 % intervals
from resampled blocks of 5 x 5 spots, the mean over seeds of value and limits.

``--inside`` looks at no test section: it cross-validates over the sections of each split's training set, and prints
what the recommended setting was chosen by.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import sthisto as sth

PATIENT_A, PATIENT_C = ("A1", "A2"), ("C2", "C3", "C4")
SPLITS = {
    "C2": (("C3", "C4"), ("C2",)),
    "C3": (("C2", "C4"), ("C3",)),
    "C4": (("C2", "C3"), ("C4",)),
    "A": (PATIENT_C, PATIENT_A),
    "C": (PATIENT_A, PATIENT_C),
}
GROUPS = {"(a) serial sections of one patient": ("C2", "C3", "C4"), "(b) another patient": ("A", "C")}
WIDE = {"context": (1, 2, 4)}
METHODS: dict[str, dict[str, Any]] = {
    "color": {},
    "ridge": {},
    "ridge + context": {"method": "ridge", **WIDE},
    "knn": {},
    "danet": {},
    "danet + context": {"method": "danet", **WIDE},
    "five danets": {"method": "danet", "n_models": 5},
    "hybrid": {"n_models": 2},
    "hybrid of log1p": {"method": "hybrid", "n_models": 2, "residuals": False},
    "hybrid of residuals": {"method": "hybrid", "n_models": 2, "target": "pearson_residuals"},
    "hybrid of log1p, no colors": {"method": "hybrid", "n_models": 2, "residuals": False, "colors": False},
    "bleep": {},
    "stnet": {},
    "histogene": {},
    "recommended": {},
}
CANDIDATES = ("hybrid", "hybrid of log1p", "hybrid of residuals", "hybrid of log1p, no colors")
"""What the recommended setting was chosen among, with two DANets each, which is enough to choose by."""
VARIANTS = ("danet + context", "five danets", *CANDIDATES)
"""What the recommended setting is made of or was chosen among; run when they are named."""
NOT_SEEDED = ("color", "ridge", "ridge + context", "knn")
REFERENCES = ("ridge", "color")
BLOCK = 5
N_HIGHEST = 50


@dataclass(frozen=True)
class Truth:
    """What one test section measured."""

    name: str
    rows: np.ndarray
    log: np.ndarray
    residuals: np.ndarray
    blocks: np.ndarray
    counts: np.ndarray
    totals: np.ndarray


def main() -> None:
    """Run all, print the tables, write the CSV."""
    arguments = _parse()
    warnings.simplefilter("ignore")
    logging.getLogger("sthisto").setLevel(logging.ERROR)
    sth.settings.progress = False
    needed = sorted({name for split in arguments.splits for part in SPLITS[split] for name in part})
    sdata = sth.datasets.her2st(sections=needed)
    panel = [gene for gene in Path(arguments.genes).read_text().split() if gene in set(sdata["counts"].var_names)]
    truths = {name: _truth(sdata["counts"], name, panel) for name in needed}
    if arguments.inside:
        _print_inside(sdata, truths, panel, arguments)
        return
    runs, differences = [], []
    for split in arguments.splits:
        predictions = {}
        for method in arguments.methods:
            for seed in range(1 if method in NOT_SEEDED else arguments.seeds):
                run, predicted = _run(sdata, method, SPLITS[split], seed, panel, arguments.encoder)
                predictions[method, seed] = predicted
                runs.append({"split": split} | run | _scores([truths[name] for name in SPLITS[split][1]], predicted))
                print(runs[-1], flush=True)
        differences.append(({split}, predictions))
    table = pd.DataFrame(runs)
    table.to_csv(arguments.csv, index=False)
    for title, splits in GROUPS.items():
        of_group = [predictions for names, predictions in differences if names <= set(splits)]
        if of_group:
            tested = [name for split in splits if split in arguments.splits for name in SPLITS[split][1]]
            print(f"\n{title}; {len(panel)} genes; {arguments.encoder}; tested on {', '.join(tested)}\n")
            _print(table[table["split"].isin(splits)], [truths[name] for name in tested], of_group)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", required=True, help="file with one gene a line")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="all but variants; with --inside, the candidates")
    parser.add_argument("--inside", action="store_true", help="cross-validate inside the training sets")
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=list(SPLITS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--encoder", default="efficientnet_lite0")
    parser.add_argument("--csv", default="methods.csv")
    arguments = parser.parse_args()
    if arguments.methods is None:
        inside = ["color", "ridge", *CANDIDATES]
        arguments.methods = inside if arguments.inside else [m for m in METHODS if m not in VARIANTS]
    return arguments


def _print_inside(sdata: Any, truths: dict[str, Truth], panel: list[str], arguments: argparse.Namespace) -> None:
    """Print residual and raw PCC of each method, means over the sections of a training set, each left out in turn."""
    print(f"| method | {' | '.join(', '.join(SPLITS[split][0]) for split in arguments.splits)} |")
    print("|---" * (1 + len(arguments.splits)) + "|")
    for method in arguments.methods:
        cells = []
        for split in arguments.splits:
            scores = []
            for left_out in SPLITS[split][0]:
                rest = tuple(name for name in SPLITS[split][0] if name != left_out)
                for seed in range(1 if method in NOT_SEEDED else arguments.seeds):
                    predicted = _fit_and_predict(sdata, method, (rest, (left_out,)), seed, panel, arguments.encoder)[0]
                    scores.append(_scores([truths[left_out]], predicted))
            means = pd.DataFrame(scores).mean()
            cells.append(f"{means['residual all']:.3f} / {means['raw all']:.3f}")
        print(f"| {method} | {' | '.join(cells)} |", flush=True)


def _truth(table: Any, name: str, panel: Sequence[str]) -> Truth:
    rows = np.flatnonzero((table.obs["section"] == name).to_numpy())
    counts = table.X[rows]
    totals = np.asarray(counts.sum(axis=1), dtype=float).ravel()
    chosen = counts[:, table.var_names.get_indexer(panel)].toarray()
    array = table.obs[["array_col", "array_row"]].to_numpy(dtype=float)[rows]
    return Truth(
        name,
        rows,
        log=np.log1p(chosen / totals[:, None] * 1e4),
        residuals=sth.metrics.pearson_residuals(chosen, totals=totals),
        blocks=sth.metrics.spatial_blocks(array, BLOCK),
        counts=chosen,
        totals=totals,
    )


def _run(
    sdata: Any, method: str, split: tuple[Sequence[str], Sequence[str]], seed: int, panel: list[str], encoder: str
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Fit and predict after a first time, of one epoch, that puts every feature into the cache: seconds are without."""
    if seed == 0:
        options = sth.models.METHODS[METHODS[method].get("method", method)].Options
        brief = {"max_epochs": 1} if hasattr(options, "max_epochs") else {}
        _fit_and_predict(sdata, method, split, seed, panel, encoder, **brief)
    predicted, *seconds = _fit_and_predict(sdata, method, split, seed, panel, encoder)
    return {"method": method, "seed": seed, "seconds_fit": seconds[0], "seconds_predict": seconds[1]}, predicted


def _fit_and_predict(
    sdata: Any,
    method: str,
    split: tuple[Sequence[str], Sequence[str]],
    seed: int,
    panel: list[str],
    encoder: str,
    **changes: Any,
) -> tuple[list[np.ndarray], float, float]:
    """Return the prediction of each test section, the panel's genes, and the seconds of fitting and of predicting."""
    train, test = ([f"{name}_spots" for name in part] for part in split)
    start = time.perf_counter()
    model = sth.tl.fit(
        sdata,
        image_encoder=encoder,
        genes=panel,
        patch_size=112,
        patch_um=77.28,
        seed=seed,
        shapes_key=train,
        **({"method": method} | METHODS[method] | changes),
    )
    fitted = time.perf_counter()
    sth.tl.predict(sdata, model, shapes_key=test)
    done = time.perf_counter()
    table = sdata["counts"]
    columns = table.var_names.get_indexer(panel)
    layer = table.layers["sthisto_pred"]
    sections = table.obs["section"].to_numpy()
    expression = [np.asarray(layer[np.flatnonzero(sections == name)][:, columns]) for name in split[1]]
    return expression, fitted - start, done - fitted


def _scores(truths: Sequence[Truth], predicted: Sequence[np.ndarray]) -> dict[str, float]:
    scores: dict[str, list[float]] = {}
    for truth, expression in zip(truths, predicted, strict=True):
        highest = np.argsort(-truth.log.mean(axis=0))[:N_HIGHEST]
        for label, target in {"residual": truth.residuals, "raw": truth.log}.items():
            by_gene = sth.metrics.pearson(target, expression)
            by_gene[np.isnan(by_gene) & (np.ptp(target, axis=0) > 0)] = 0  # says nothing of a gene that varies
            scores.setdefault(f"{label} all", []).append(float(np.nanmean(by_gene)))
            scores.setdefault(f"{label} top", []).append(float(np.nanmean(by_gene[highest])))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def _print(table: pd.DataFrame, truths: Sequence[Truth], predictions: Sequence[dict]) -> None:
    intervals = {reference: _differences(truths, predictions, reference) for reference in REFERENCES}
    print(
        "| method | residual PCC | PCC | residual PCC, top 50 | PCC, top 50 | s to fit | s to predict "
        "| less ridge | less color |\n|---|---|---|---|---|---|---|---|---|"
    )
    columns = ["residual all", "raw all", "residual top", "raw top"]
    for method, runs in table.groupby("method", sort=False):
        sections = runs["split"].map(lambda split: len(SPLITS[split][1]))
        weighted = runs[columns].mul(sections, axis=0).groupby(runs["seed"]).sum()
        by_seed = weighted.div(sections.groupby(runs["seed"]).sum(), axis=0)  # all test sections weigh the same
        cells = [
            f"{by_seed[c].mean():.3f}" + (f" ± {by_seed[c].std():.3f}" if len(by_seed) > 1 else "") for c in columns
        ]
        seconds = [f"{runs[c].mean():.1f}" for c in ("seconds_fit", "seconds_predict")]
        less = [intervals[reference].get(str(method), "") for reference in REFERENCES]
        print(f"| {method} | {' | '.join(cells + seconds + less)} |")
    depth = _scores(truths, [np.repeat(np.log(truth.totals)[:, None], truth.log.shape[1], axis=1) for truth in truths])
    print(f"| depth of the spot alone | {' | '.join(f'{depth[column]:.3f}' for column in columns)} | | | | |")
    print(f"| noise ceiling | {_ceiling(truths, None):.3f} | | {_ceiling(truths, N_HIGHEST):.3f} | | | | | |")


def _ceiling(truths: Sequence[Truth], n_highest: int | None) -> float:
    """Root of the mean reliability over sections, of all genes or the most expressed ones of each."""
    found = []
    for truth in truths:
        genes = np.argsort(-truth.log.mean(axis=0))[:n_highest]
        found.append(sth.metrics.noise_ceiling(truth.counts[:, genes], totals=truth.totals).mean_reliability)
    return float(np.sqrt(max(np.mean(found), 0)))


def _differences(truths: Sequence[Truth], predictions: Sequence[dict], reference: str) -> dict[str, str]:
    """Return each method's difference from the reference, over all test sections, as text."""
    common = [key for key in predictions[0] if all(key in others for others in predictions)]
    if (reference, 0) not in common:
        return {}
    names = {f"{method}/{seed}": method for method, seed in common}
    offsets = np.cumsum([0] + [truth.blocks.max() + 1 for truth in truths])
    found = sth.metrics.paired_difference(
        np.concatenate([truth.residuals for truth in truths]),
        {
            f"{method}/{seed}": np.concatenate([part for of_split in predictions for part in of_split[method, seed]])
            for method, seed in common
        },
        np.concatenate([truth.blocks + offset for truth, offset in zip(truths, offsets[:-1], strict=True)]),
        section=np.repeat([truth.name for truth in truths], [len(truth.rows) for truth in truths]),
        reference=f"{reference}/0",
    )
    of_method: dict[str, list[tuple[float, float, float]]] = {}
    for name, interval in found.items():
        of_method.setdefault(names[name], []).append((interval.value, interval.low, interval.high))
    mean = {method: np.mean(values, axis=0) for method, values in of_method.items()}
    return {method: f"{v:+.3f} [{low:+.3f}, {high:+.3f}]" for method, (v, low, high) in mean.items()}


if __name__ == "__main__":
    main()
