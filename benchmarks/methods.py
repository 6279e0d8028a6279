"""Every method on the same real sections, spots, genes and encoder, with paired intervals.

    python benchmarks/methods.py --genes genes_785.txt
    python benchmarks/methods.py --genes genes_785.txt --splits C2 C3 C4 --methods color ridge danet --seeds 1
    python benchmarks/methods.py --genes genes_785.txt --inside --seeds 1
    python benchmarks/methods.py --genes genes_785.txt --inside --methods kernel "kernel of four strengths"
    python benchmarks/methods.py --genes genes_785.txt --strips --methods color ridge danet recommended

Sections are read from the folder that STHISTO_HER2ST names, which must hold A1, A2, C2, C3 and C4. Splits: "C2", "C3"
and "C4" are predicted from the other two of the patient (a); "A" is patient A from patient C and "C" the other way
round (b). Patches show 77 µm, 112 px of the sections of C, and come to the encoder at its own input size. "+ context"
adds views of twice and four times the width.

PCC is on log1p counts per 10,000, residual PCC against analytic Pearson residuals; both are means over genes, then
sections, ± the standard deviation over seeds. Seconds are those of one fit and one prediction of the test sections
with the frozen encoder's features in the cache. Differences are in residual PCC over all genes, with 95 % intervals
from resampled blocks of 5 x 5 spots, the mean over seeds of value and limits.

``--inside`` looks at no test section: it cross-validates over the sections of each split's training set, and prints
what the setting "hybrid" was chosen by.

``--strips`` stays within one section, for each of the five: bands across it are held out in turn, and training spots
whose widest view shares pixels with a held-out one's are left out. Serial sections show nearly the same tissue twice;
strips do not.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import sthisto as sth
from sthisto.benchmark import MethodSpec, Protocol, compare, comparison_table

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
FINE = {"patch_size": 224}
"""Crops of the default size, which show wide views at a finer resolution than those of 112 px."""
METHODS = (
    MethodSpec("color", "color", seeds=1),
    MethodSpec("ridge", "ridge", seeds=1),
    MethodSpec("ridge + context", "ridge", WIDE, seeds=1),
    MethodSpec("knn", "knn", seeds=1),
    *(MethodSpec(name, name) for name in ("danet", "bleep", "stnet", "histogene")),
    MethodSpec("hybrid", "hybrid", seeds=1),
    MethodSpec("kernel", "kernel", FINE, seeds=1),
    *(MethodSpec(name, name, FINE) for name in ("mlp", "recommended")),
)
CANDIDATES = (
    MethodSpec("hybrid of two danets", "hybrid", {"n_models": 2}),
    MethodSpec("hybrid of log1p", "hybrid", {"n_models": 2, "residuals": False}),
    MethodSpec("hybrid of residuals", "hybrid", {"n_models": 2, "target": "pearson_residuals"}),
    MethodSpec("hybrid of log1p, no colors", "hybrid", {"n_models": 2, "residuals": False, "colors": False}),
)
"""What the setting "hybrid" was chosen among, with two DANets each, which is enough to choose by."""
STRENGTHS = {
    "kernel of four strengths": (1e-3, 1e-2, 1e-1, 1.0),
    "kernel of two strengths": (1e-3, 1e-2),
}
"""What the strengths of "kernel" were chosen among."""
BLOCKS = FINE | WIDE | {"features": ("texture", "encoder", "border"), "encoder_layer": "blocks.2"}
RESIDUALS = {"target": "pearson_residuals"}
PROJECTED = {"expression_components": (3, 5, 8, 12)}
VARIANTS = (
    MethodSpec("danet+pc", "danet", PROJECTED),
    MethodSpec("danet of residuals", "danet", RESIDUALS),
    MethodSpec("danet on blocks", "danet", RESIDUALS | BLOCKS),
    MethodSpec("danet on blocks, no gene encoder", "danet", RESIDUALS | BLOCKS | {"gene_encoder": "identity"}),
    MethodSpec(
        "danet on blocks, no gene encoder+pc", "danet", RESIDUALS | BLOCKS | PROJECTED | {"gene_encoder": "identity"}
    ),
    *(MethodSpec(label, "kernel", FINE | {"alphas": alphas}, seeds=1) for label, alphas in STRENGTHS.items()),
    MethodSpec("danet + context", "danet", WIDE),
    MethodSpec("five danets", "danet", {"n_models": 5}),
    *CANDIDATES,
)
"""What settings are made of or were chosen among; run when they are named."""
REFERENCES = ("ridge", "color", "hybrid")
"""Methods that differences are taken from."""
KNOWN = {spec.label: spec for spec in (*METHODS, *VARIANTS)}
SETTING = {"patch": {"patch_size": 112, "patch_um": 77.28}, "block_spots": 5, "warm_up": True}


def main() -> None:
    """Run all, print the tables, write the CSV."""
    arguments = _parse()
    warnings.simplefilter("ignore")
    logging.getLogger("sthisto").setLevel(logging.ERROR)
    sth.settings.progress = False
    needed = sorted({name for split in arguments.splits for part in SPLITS[split] for name in part})
    sdata = sth.datasets.her2st(sections=needed)
    panel = [gene for gene in Path(arguments.genes).read_text().split() if gene in set(sdata["counts"].var_names)]

    def scores(sides: Sequence[tuple[Sequence[str], Sequence[str]]], references: Sequence[str]) -> pd.DataFrame:
        shared: dict[str, Any] = SETTING | {"encoder": arguments.encoder, "genes": panel, "seeds": arguments.seeds}
        methods = tuple(KNOWN[name] for name in arguments.methods)
        protocols = [Protocol("her2st", methods, "section", tuple(a), tuple(b), **shared) for a, b in sides]
        return compare(sdata, protocols, out=arguments.out, references=references)

    if arguments.strips:
        found = pd.concat(strips(panel, arguments), ignore_index=True)
        print(f"\nHeld-out strips of single sections; {len(panel)} genes; {arguments.encoder}\n")
        print(strips_table(found))
        found.to_csv(arguments.csv, index=False)
        return
    tables = []
    if arguments.inside:
        for split in arguments.splits:
            train = SPLITS[split][0]
            sides = [([other for other in train if other != name], [name]) for name in train]
            tables.append(scores(sides, ()).assign(tested=f"inside {', '.join(train)}"))
    else:
        references = [name for name in REFERENCES if name in arguments.methods]
        for title, splits in GROUPS.items():
            if sides := [SPLITS[split] for split in splits if split in arguments.splits]:
                tested = ", ".join(name for _, test in sides for name in test)
                tables.append(scores(sides, references).assign(tested=f"{title}; tested on {tested}"))
    for table in tables:
        print(f"\n{table['tested'].iloc[0]}; {len(panel)} genes; {arguments.encoder}\n\n{comparison_table(table)}")
    pd.concat(tables).to_csv(arguments.csv, index=False)


def strips(panel: list[str], arguments: argparse.Namespace) -> Iterator[pd.DataFrame]:
    """Yield the scores of each method on held-out bands of each section, by section, gene set and seed."""
    for name in (*PATIENT_A, *PATIENT_C):
        sdata = sth.datasets.her2st(sections=[name])
        for spec in (KNOWN[label] for label in arguments.methods):
            sth.tl.cross_validate(
                sdata,
                spec.method,
                groups="block",
                seeds=arguments.seeds if spec.seeds is None else spec.seeds,
                genes=panel,
                image_encoder=arguments.encoder,
                out=Path(arguments.out) / "strips" / name / spec.label,
                **SETTING["patch"] | spec.options,
            )
            scores = sth.get.scores(sdata, key_added="sthisto_cv", by="section")
            yield scores[scores["section"] != "all"].assign(method=spec.label, section=name)


def strips_table(scores: pd.DataFrame) -> str:
    """Return one row a method: residual PCC of each section and of all, and PCC, means over genes, bands and seeds."""
    scores = scores[scores["genes"] == "all modeled"]
    by_section = scores.groupby(["method", "section"], sort=False)[["pcc_residual", "pcc"]].mean()
    table = by_section.pivot_table("pcc_residual", "method", "section", sort=False).add_prefix("residual, ")
    means = by_section.groupby("method", sort=False).mean()
    table = table.assign(**{"residual, mean": means["pcc_residual"], "PCC, mean": means["pcc"]})
    lines = [["method", *table], ["---"] * (table.shape[1] + 1)]
    lines += [
        [str(name), *(f"{value:.3f}" for value in row)] for name, row in zip(table.index, table.values, strict=True)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", required=True, help="file with one gene a line")
    parser.add_argument("--methods", nargs="+", choices=KNOWN, help="all but variants; with --inside, the candidates")
    parser.add_argument("--inside", action="store_true", help="cross-validate inside the training sets")
    parser.add_argument("--strips", action="store_true", help="hold out bands within each section")
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=list(SPLITS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--encoder", default="efficientnet_lite0")
    parser.add_argument("--csv", default="methods.csv")
    parser.add_argument(
        "--out", default="methods_runs", help="folder that keeps finished runs; called again it goes on"
    )
    arguments = parser.parse_args()
    inside = ["color", "ridge", *(spec.label for spec in CANDIDATES)]
    arguments.methods = arguments.methods or (inside if arguments.inside else [spec.label for spec in METHODS])
    return arguments


if __name__ == "__main__":
    main()
