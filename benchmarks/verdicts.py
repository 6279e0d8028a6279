"""How often the verdicts of a passport hold on patients that neither the model nor the passport has seen.

    STHISTO_HER2ST=… python benchmarks/verdicts.py her2st --genes genes_785.txt
    python benchmarks/verdicts.py synthetic --patients 15 --training 2 3 5

her2st: the model is trained and assessed on patient C (sections C2, C3, C4) and its verdicts are looked up on patient A
(A1, A2), and the other way round. Each training set is one patient, so the passport holds out sections. synthetic:
several training sets of a cohort of synthetic patients, one section each, and the verdicts are looked up on all
patients of the cohort that are not in it. The settings of the verdicts were decided on simulated scores
(tests/_scoring/test_group_interval.py), before either table was made.

For each verdict, over pairs of a gene and a new patient: how many there are, the mean residual PCC, and how often it is
above 0, above those of depth and color, above both, and inside the passport's interval. Color is fitted on the same
training set.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from spatialdata import SpatialData

import sthisto as sth
from sthisto._utils.verdicts import VERDICTS

PATIENTS = {"A": ("A1", "A2"), "C": ("C2", "C3", "C4")}


def look_up(sdata: SpatialData, trained: Sequence[str], method: str, out: Path | None, **fit: Any) -> pd.DataFrame:
    """Return a row for each gene and new patient: its verdict, and what it scores there beside depth and color."""
    (table,) = sdata.tables.values()
    tested = sorted(set(table.obs["patient"]) - set(trained))
    sth.pp.split(sdata, by="patient", patient_key="patient", test=tested, validation=0)
    model = sth.tl.fit(sdata, method=method, **fit)
    sth.tl.assess(sdata, model, out=out)
    color = sth.tl.fit(
        sdata, method="color", genes=list(model.genes), patch_um=fit.get("patch_um"), context=model.patch.context,
        key_added="color",
    )  # fmt: skip
    scores = {}
    for key, one in (("sthisto", model), ("color", color)):
        sth.tl.predict(sdata, one, key_added=key)
        sth.tl.evaluate(sdata, n_boot=0, n_splits=1, key_added=key)
        found = sth.get.scores(sdata, key_added=key)
        of_section = table.obs.drop_duplicates("region").set_index("region")["patient"]
        found["patient"] = found["section"].map(of_section.astype(str).to_dict())
        scores[key] = found.groupby(["gene", "patient"])[["pcc_residual", "depth_pcc_residual"]].mean().fillna(0)
    rows = scores["sthisto"].rename(columns={"pcc_residual": "there", "depth_pcc_residual": "depth_there"})
    rows["color_there"] = scores["color"]["pcc_residual"]
    return rows.reset_index().merge(model.passport, on="gene")


def table_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return how often each verdict holds."""
    baseline = np.maximum(rows["depth_there"].abs(), rows["color_there"])
    rows = rows.assign(
        above_0=rows["there"] > 0,
        above_baseline=rows["there"] > baseline,
        holds=(rows["there"] > 0) & (rows["there"] > baseline),
        inside=rows["there"].between(rows["pcc_residual_low"], rows["pcc_residual_high"]),
    )
    columns = ["there", "above_0", "above_baseline", "holds", "inside"]
    found = rows.groupby("verdict")[columns].mean().reindex(VERDICTS)
    counts = rows.groupby("verdict").agg(pairs=("gene", "size"), holding=("holds", "sum"), positive=("above_0", "sum"))
    return pd.concat([counts.reindex(VERDICTS, fill_value=0), found], axis=1).reset_index()


def her2st(arguments: argparse.Namespace) -> pd.DataFrame:
    """Train on one patient, look the verdicts up on the other."""
    parts = []
    for method in arguments.methods:
        for encoder in arguments.encoders:
            for trained in PATIENTS:
                sdata = sth.datasets.her2st(sections=[name for names in PATIENTS.values() for name in names])
                names = set(sdata["counts"].var_names)
                genes = [gene for gene in Path(arguments.genes).read_text().split() if gene in names]
                rows = look_up(
                    sdata, [trained], method, arguments.out, image_encoder=encoder, genes=genes, patch_um=77.28
                )
                direction = f"{trained} -> {'A' if trained == 'C' else 'C'}"
                parts.append(table_of(rows).assign(method=method, encoder=encoder, direction=direction))
    return pd.concat(parts, ignore_index=True)


def synthetic(arguments: argparse.Namespace) -> pd.DataFrame:
    """Train on a few patients of a cohort, look the verdicts up on all others."""
    parts = []
    n = arguments.patients
    sdata = sth.datasets.synthetic(n_sections=n, n_patients=n, n_spots=arguments.spots, seed=arguments.seed)
    for size in arguments.training:
        for method in arguments.methods:
            sets = [range(i * size, (i + 1) * size) for i in range(min(n // size, arguments.repeats))]
            rows = [
                look_up(sdata, [f"P{i + 1}" for i in one], method, arguments.out, image_encoder=arguments.encoders[0])
                for one in sets
            ]
            parts.append(
                table_of(pd.concat(rows)).assign(
                    method=method, encoder=arguments.encoders[0], direction=f"{len(sets)} x {size} of {n} patients"
                )
            )
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    """Run, print the table, write it as CSV."""
    arguments = _parse()
    warnings.simplefilter("ignore")
    logging.getLogger("sthisto").setLevel(logging.ERROR)
    sth.settings.progress = False
    found = her2st(arguments) if arguments.data == "her2st" else synthetic(arguments)
    labels = ["method", "encoder", "direction"]
    found = found[[*labels, *(name for name in found if name not in labels)]]
    print(found.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    found.to_csv(arguments.csv, index=False)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("her2st", "synthetic"))
    parser.add_argument("--genes", help="her2st: file with one gene a line")
    parser.add_argument("--methods", nargs="+", default=["kernel"])
    parser.add_argument("--encoders", nargs="+", default=["texture"])
    parser.add_argument("--patients", type=int, default=15, help="synthetic: patients of the cohort")
    parser.add_argument("--training", type=int, nargs="+", default=[2, 3, 5], help="synthetic: sizes of training sets")
    parser.add_argument("--repeats", type=int, default=3, help="synthetic: most training sets of each size")
    parser.add_argument("--spots", type=int, default=150, help="synthetic: spots of a section")
    parser.add_argument("--seed", type=int, default=0, help="synthetic: seed of the cohort")
    parser.add_argument("--csv", default="verdicts.csv")
    parser.add_argument("--out", type=Path, help="folder that keeps finished fits; called again it goes on")
    return parser.parse_args()


if __name__ == "__main__":
    main()
