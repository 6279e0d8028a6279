"""What each part of `recommended` brings: one change at a time, from ridge on the last features to the whole.

    python benchmarks/waterfall.py --genes genes_785.txt

Each step is options of `tl.fit`. Sections are read from the folder that STHISTO_HER2ST names: C2, C3 and C4 are
predicted from the other two, A1 and A2 from C2 to C4. Scores are residual PCC and PCC on log1p counts: means over
genes, then sections. Patches are 224 px of 77 µm and, from the step "three widths" on, of 154 and 308 µm too.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path
from typing import Any, Final

import pandas as pd

import sthisto as sth
from sthisto._sdata.slots import ALL_GENES
from sthisto.benchmark import MethodSpec, Protocol, compare

SPLITS: Final = {
    "C2-C4": ((("C3", "C4"), ("C2",)), (("C2", "C4"), ("C3",)), (("C2", "C3"), ("C4",))),
    "C -> A": ((("C2", "C3", "C4"), ("A1", "A2")),),
}
EARLY, LAST, STAGE = ("blocks.1", "blocks.2", "blocks.4"), "blocks.6", "blocks.2"
ENCODER: Final[dict[str, Any]] = {"features": ("encoder",), "kernel": "linear", "encoder_layer": LAST, "context": (1,)}
WIDE: Final = ENCODER | {"context": (1, 2, 4)}
TEXTURE: Final = WIDE | {"features": ("texture", "encoder"), "encoder_layer": EARLY}
RBF: Final = TEXTURE | {"kernel": "rbf"}
STEPS: Final = (
    ("ridge on the last map, log1p, centered by section", "ridge", {"within_sections": True, "encoder_layer": LAST}),
    (
        "target: Pearson residuals",
        "ridge",
        {"within_sections": True, "encoder_layer": LAST, "target": "pearson_residuals"},
    ),
    ("mean of three strengths", "kernel", ENCODER | {"expression_components": None}),
    ("projected on 3, 5, 8 and 12 components", "kernel", ENCODER),
    ("three widths", "kernel", WIDE),
    ("early and middle maps", "kernel", WIDE | {"encoder_layer": EARLY}),
    ("texture at four widths", "kernel", TEXTURE),
    ("RBF kernels", "kernel", RBF),
    ("stage 2 alone", "kernel", RBF | {"encoder_layer": STAGE}),
    ("distance to the border", "kernel", RBF | {"encoder_layer": STAGE, "features": ("texture", "encoder", "border")}),
    ("half a weight of five perceptrons", "recommended", {"log1p_share": 0.0}),
    ("a quarter on log1p", "recommended", {}),
)


def main() -> None:
    """Run all steps and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", required=True, help="file with one gene a line")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", default="waterfall_runs", help="folder that keeps finished runs")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("sthisto").setLevel(logging.ERROR)
    sth.settings.progress = False
    sdata = sth.datasets.her2st(sections=["A1", "A2", "C2", "C3", "C4"])
    panel = [gene for gene in Path(arguments.genes).read_text().split() if gene in set(sdata["counts"].var_names)]
    columns = {}
    for name, sides in SPLITS.items():
        protocols = [protocol(train, test, panel, arguments.seeds) for train, test in sides]
        scores = compare(sdata, protocols, out=arguments.out, references=())
        columns |= {f"{name}, {metric}": mean_scores(scores, metric) for metric in ("pcc_residual", "pcc")}
    table = pd.DataFrame(columns).loc[[label for label, _, _ in STEPS]]
    print(f"| step | {' | '.join(table.columns)} |\n|---|{'---|' * table.shape[1]}")
    for label, values in zip(table.index, table.to_numpy(), strict=True):
        print(f"| {label} | {' | '.join(f'{value:.3f}' for value in values)} |")


def protocol(train: tuple[str, ...], test: tuple[str, ...], panel: list[str], seeds: int) -> Protocol:
    """Return what runs all steps on one split."""
    methods = tuple(MethodSpec(label, method, options) for label, method, options in STEPS)
    return Protocol(
        "her2st",
        methods,
        "section",
        train,
        test,
        encoder="efficientnet_lite0",
        genes=panel,
        seeds=seeds,
        patch={"patch_size": 224, "patch_um": 77.28},
        block_spots=5,
    )


def mean_scores(scores: pd.DataFrame, metric: str) -> pd.Series:
    """Return the mean score of each step over all genes."""
    chosen = scores[(scores["metric"] == metric) & (scores["genes"] == ALL_GENES)]
    return chosen.set_index("method")["value"]


if __name__ == "__main__":
    main()
