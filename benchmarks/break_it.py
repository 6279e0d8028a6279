"""Break sthisto on purpose, and count what is lost, let in or changed.

    python benchmarks/break_it.py [--kills 100] [--tamperings 500] [--seconds 600] [--seed 0] [--short]

Prints one row for each promise of docs/reliability.md: what was tried, how often, and how often it fell; what fell is
printed below. Ends with 1 if anything fell. `--short` is the same in about a minute, for each change. Needs a system
that forks.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from _break_bundles import break_bundles
from _break_fuzz import fuzz
from _break_kills import WORKS, break_work, in_child, warm_up

PARTS = ("kills", "tamperings", "fuzz")


def main() -> int:
    """Break what is asked for and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="over all works together")
    parser.add_argument("--tamperings", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=600.0, help="of fuzzing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few of each")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    options = parser.parse_args()
    if options.short:
        options.kills, options.tamperings, options.seconds = 4, 40, 5.0
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    warm_up()
    n_fell = 0
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(options, Path(folder)):
            n_fell += row["fell"]
            print(f"{row['what']:34} {row['tried']:6d} tried {row['fell']:4d} fell   {row.get('more', '')}", flush=True)
            for reason in row["why"][:20]:
                print(f"    {reason}")
    return int(n_fell > 0)


def rows(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what was tried and how often it fell; the kills come first, since children are forked from this process."""
    rng = np.random.default_rng(options.seed)
    if "kills" in options.only:
        works = ["save", "cache"] if options.short else list(WORKS)
        for i, name in enumerate(works):
            n = options.kills // len(works) + (i < options.kills % len(works))
            found = break_work(name, folder / "kills", n, rng)
            more = f"{found['left over']} parts left over"
            yield {"what": f"kill {name}", "tried": n, "fell": found["lost"], "why": found["why"], "more": more}
        yield same_bits(folder, works)
    if "tamperings" in options.only:
        yield from break_bundles(folder / "bundles", options.tamperings, rng)
    if "fuzz" in options.only:
        yield fuzz(folder / "fuzz", options.seconds, options.seed)


def same_bits(folder: Path, works: list[str]) -> dict[str, Any]:
    """Do each work twice, in processes of their own."""
    why = []
    for name in works:
        results = []
        for turn in range(2):
            place = folder / "bits" / f"{name}-{turn}"
            place.mkdir(parents=True)
            results.append(in_child(WORKS[name][0], place)[:2])
        why += [] if results[0] == results[1] and results[0][0] == "done" else [f"{name}: {results}"]
    return {"what": "same bits for the same seed", "tried": len(works), "fell": len(why), "why": why}


if __name__ == "__main__":
    sys.exit(main())
