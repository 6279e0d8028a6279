"""Do intervals of 90 % cover 90 % of what is measured in new patients? Synthetic cohorts of many small sections.

    python benchmarks/intervals.py
    STHISTO_HER2ST=her2st python benchmarks/intervals.py --her2st

Each cohort is drawn by `datasets.synthetic`: 5 patients to train on, some to calibrate on, 6 to test on, one section of
20 spots each, with a stain and a batch effect of its own. The method is `color`, which is fitted in closed form.
``--her2st`` fits on C3 and C4 with spatial blocks of them set aside, and reports the coverage on another section of the
patient, C2, and on the other patient, A, as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from spatialdata import SpatialData

import sthisto as sth

N_TRAIN, N_TEST = 5, 6


def inside(sdata: SpatialData, table_key: str, spots: np.ndarray) -> float:
    """Return the share of the measured values of some spots that lie in their intervals."""
    table = sdata[table_key]
    counts = table.X[np.flatnonzero(spots)].toarray()
    measured = np.log1p(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 1e4)
    modeled = table.var["sthisto_gene"].to_numpy()
    low, high = (table.layers[f"sthisto_{name}"][spots][:, modeled] for name in ("low", "high"))
    return float(((low <= measured[:, modeled]) & (measured[:, modeled] <= high)).mean())


def cohort_coverage(seed: int, n_calibration: int, level: float) -> float:
    """Return the coverage in the test patients of one synthetic cohort."""
    n_patients = N_TRAIN + n_calibration + N_TEST
    sdata = sth.datasets.synthetic(n_sections=n_patients, n_patients=n_patients, n_spots=20, um_per_px=4, seed=seed)
    names = [f"P{i + 1}" for i in range(n_patients)]
    test, calibration = names[:N_TEST], names[N_TEST : N_TEST + n_calibration]
    sth.pp.split(
        sdata, by="patient", patient_key="patient", test=test, calibration=calibration, validation=0, seed=seed
    )
    model = sth.tl.fit(sdata, method="color", n_top_genes=30, patch_size=16)
    sth.tl.predict(sdata, model, interval=level)
    return inside(sdata, "expression", sdata["expression"].obs["sthisto_split"].eq("test").to_numpy())


def shared_sections(level: float, methods: Sequence[str]) -> None:
    """Print the coverage of intervals by spatial block on another section of the patient, and on another patient."""
    print(f"\n| fitted on C3, C4; {level:.0%}, same patient | C2 | A1, A2 (another patient) |\n|---|---|---|")
    for method in methods:
        sdata = sth.datasets.her2st(sections=["A1", "A2", "C2", "C3", "C4"])
        sections = {"shapes_key": ["C3_spots", "C4_spots"]}
        sth.pp.split(sdata, by="block", test=0.05, calibration=0.4, margin=0, patient_key="patient", **sections)
        more = {} if method == "color" else {"image_encoder": "efficientnet_lite0"}
        model = sth.tl.fit(sdata, method=method, n_top_genes=100, patch_size=112, **sections, **more)
        sth.tl.predict(sdata, model, interval=level)
        section = sdata["counts"].obs["section"]
        found = [inside(sdata, "counts", section.isin(names).to_numpy()) for names in (["C2"], ["A1", "A2"])]
        print(f"| {method} | {found[0]:.3f} | {found[1]:.3f} |", flush=True)


def main() -> None:
    """Print the mean coverage over cohorts for several numbers of calibration patients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=50)
    parser.add_argument("--calibration", type=int, nargs="+", default=[9, 20])
    parser.add_argument("--level", type=float, default=0.9)
    parser.add_argument("--her2st", action="store_true")
    parser.add_argument("--methods", nargs="+", default=["color", "ridge"])
    chosen = parser.parse_args()
    sth.settings.progress = False
    if chosen.her2st:
        shared_sections(chosen.level, chosen.methods)
        return
    print("| calibration patients | cohorts | mean coverage | SD over cohorts |\n|---|---|---|---|")
    for n_calibration in chosen.calibration:
        found = [cohort_coverage(seed, n_calibration, chosen.level) for seed in range(chosen.cohorts)]
        print(f"| {n_calibration} | {len(found)} | {np.mean(found):.3f} | {np.std(found):.3f} |", flush=True)


if __name__ == "__main__":
    main()
