"""What landmarks cost the kernel in score, and how long and how large a fit of many spots is.

    python benchmarks/landmarks.py [--spots 1000] [--many 50000]

Scores: synthetic sections of six patients, texture and border alone, trained on four patients, tested on two; the exact
kernel against landmarks. Then `recommended`'s kernel of random features of `--many` spots: seconds and peak memory.
"""

from __future__ import annotations

import argparse
import logging
import resource
import time
import warnings

import numpy as np

import sthisto as sth
from sthisto.models import landmarks
from sthisto.models.blocks import BlockLayout
from sthisto.models.low_rank import centered_by, fit_components

SIZES = (59,) * 4 + (40,) * 3 + (2,)
WEIGHTS = (0.45 / 4,) * 4 + (0.15,) * 3 + (0.1,)


def score(sdata: object, n_landmarks: int | None) -> tuple[float, float]:
    """Return residual PCC and PCC on the test patients; None is the exact kernel."""
    landmarks.EXACT_SPOTS = 10**9 if n_landmarks is None else 0  # type: ignore[misc]
    landmarks.N_LANDMARKS = n_landmarks or 0  # type: ignore[misc]
    model = sth.tl.fit(sdata, method="kernel", features=("texture", "border"))
    sth.tl.predict(sdata, model)
    sth.tl.evaluate(sdata, n_boot=0)
    scores = sth.get.scores(sdata, by="section")
    scores = scores[(scores["genes"] == "all modeled") & (scores["section"] != "all")]
    return float(scores["pcc_residual"].mean()), float(scores["pcc"].mean())


def time_fit(n_spots: int, n_genes: int = 1000) -> None:
    """Print seconds and peak memory of a fit with landmarks of random features and targets."""
    rng = np.random.default_rng(0)
    layout = BlockLayout(SIZES, WEIGHTS)
    x = (rng.normal(size=(n_spots, sum(SIZES))) / layout.divisors()).astype(np.float32)
    groups = np.arange(n_spots) * 10 // n_spots
    target = centered_by(rng.normal(size=(n_spots, n_genes)).astype(np.float32), groups)
    components = [fit_components(target, (3, 5, 8, 12))]
    kept = landmarks.choose_landmarks(n_spots, 0)
    before, start = peak(), time.perf_counter()
    landmarks.fit_landmarks(
        x, kept, layout, "rbf", [target], components, alphas=(1e-3, 1e-2, 1e-1), groups=groups, folds=groups
    )
    seconds = time.perf_counter() - start
    print(f"{n_spots:,} spots, {len(kept):,} landmarks: {seconds:.0f} s, peak {peak():.1f} GiB (before: {before:.1f})")


def peak() -> float:
    """Return the most memory that this process has had so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Print scores, then time and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spots", type=int, default=1000, help="of each section")
    parser.add_argument("--many", type=int, default=50_000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("sthisto").setLevel(logging.ERROR)
    sth.settings.progress = False
    if arguments.many:
        time_fit(arguments.many)
    sdata = sth.datasets.synthetic(n_sections=6, n_patients=6, n_spots=arguments.spots)
    table = next(iter(sdata.tables.values()))
    tested = table.obs["patient"].isin(sorted(table.obs["patient"].unique())[-2:])
    table.obs["sthisto_split"] = np.where(tested, "test", "train")
    for n_landmarks in (None, 3000, 1000, 300):
        residual, raw = score(sdata, n_landmarks)
        name = "exact" if n_landmarks is None else f"{n_landmarks:,} landmarks"
        print(f"{name:16s} of {int((~tested).sum()):,} spots: residual PCC {residual:.4f}, PCC {raw:.4f}", flush=True)


if __name__ == "__main__":
    main()
