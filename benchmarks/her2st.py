"""DANet beside simple baselines on real HER2-positive sections, on the same spots, genes and features.

    python benchmarks/her2st.py --train C3 C4 --test C2 --genes genes_785.txt
    python benchmarks/her2st.py --train C2 C3 C4 --test A1 A2 --genes genes_785.txt

The sections are read from the folder that STHISTO_HER2ST names. Patches are 112 px of the training sections' full
resolution; sections at another resolution are resampled to theirs. The panel is fixed before anything is seen. The
last rows score the spots' total count alone, and the noise ceiling of the residual score.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

import sthisto as sth

SETS = ("all modeled", "top 50")


def main() -> None:
    """Print one Markdown table: mean over sections, mean ± sd over seeds."""
    arguments = _parse()
    sth.settings.progress = False
    train, test = arguments.train, arguments.test
    sdata = sth.datasets.her2st(sections=[*train, *test])
    sth.pp.split(sdata, by="section", test=[f"{name}_spots" for name in test], patient_key="patient")
    panel = [gene for gene in Path(arguments.genes).read_text().split() if gene in _names(sdata)]
    rows = []
    for method in arguments.methods:
        seeds = range(arguments.seeds) if method in arguments.seeded else [0]
        rows += [_run(sdata, method, seed, panel, arguments) for seed in seeds]
    table = pd.DataFrame(rows)
    print(f"\nTrained on {', '.join(train)}, tested on {', '.join(test)}; {len(panel)} genes; {arguments.encoder}.\n")
    _print(table)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs="+", default=["C3", "C4"])
    parser.add_argument("--test", nargs="+", default=["C2"])
    parser.add_argument("--genes", required=True, help="file with one gene a line")
    parser.add_argument("--methods", nargs="+", default=["danet", "ridge", "knn", "color"])
    parser.add_argument("--seeded", nargs="+", default=["danet"], help="methods whose result depends on the seed")
    parser.add_argument("--encoder", default="efficientnet_lite0")
    parser.add_argument("--target", choices=["log1p", "pearson_residuals"], default="log1p")
    parser.add_argument("--seeds", type=int, default=3)
    return parser.parse_args()


def _names(sdata) -> set[str]:
    return set(next(iter(sdata.tables.values())).var_names)


def _run(sdata, method: str, seed: int, panel: list[str], arguments: argparse.Namespace) -> dict[str, object]:
    start = time.perf_counter()
    model = sth.tl.fit(
        sdata,
        method=method,
        image_encoder=arguments.encoder,
        genes=panel,
        patch_size=112,
        target=arguments.target,
        seed=seed,
        key_added=method,
    )
    fitted = time.perf_counter()
    sth.tl.predict(sdata, model, key_added=method)
    predicted = time.perf_counter()
    sth.tl.evaluate(sdata, key_added=method)
    by_section = sth.get.scores(sdata, key_added=method, by="section").query("section == 'all'").set_index("genes")
    by_gene = sth.get.scores(sdata, key_added=method, by="gene").groupby("gene")["pcc"].mean()
    row: dict[str, object] = {"method": method, "seconds_fit": fitted - start, "seconds_predict": predicted - fitted}
    for genes in SETS:
        for metric in ("pcc", "pcc_residual", "depth_pcc", "depth_pcc_residual", "ceiling"):
            row[f"{metric} {genes}"] = by_section.loc[genes, metric]
    row["top 5"] = ", ".join(f"{gene} {value:.2f}" for gene, value in by_gene.nlargest(5).items())
    return row


def _print(table: pd.DataFrame) -> None:
    print("| method | PCC | residual PCC | PCC, top 50 | residual PCC, top 50 | s to fit | best genes by PCC |")
    print("|---|---|---|---|---|---|---|")
    columns = [f"{metric} {genes}" for genes in SETS for metric in ("pcc", "pcc_residual")]
    for method, runs in table.groupby("method", sort=False):
        cells = [_cell(runs[column]) for column in columns]
        print(f"| {method} | {' | '.join(cells)} | {runs['seconds_fit'].mean():.0f} | {runs['top 5'].iloc[-1]} |")
    first = table.iloc[0]
    depth = [first[f"depth_{column}"] for column in columns]
    print(f"| depth of the spot alone | {' | '.join(f'{value:.3f}' for value in depth)} | | |")
    ceilings = [first[f"ceiling {genes}"] for genes in SETS]
    print(f"| noise ceiling | | {ceilings[0]:.3f} | | {ceilings[1]:.3f} | | |")


def _cell(values: pd.Series) -> str:
    return f"{values.mean():.3f}" + (f" ± {np.std(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
