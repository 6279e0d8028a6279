"""Time alternatives in turn and print how many times faster each is than the named one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from statistics import median

from _side_by_side import interleaved


def compare(
    title: str,
    calls: Mapping[str, Callable[[], object]],
    *,
    against: str,
    targets: Mapping[str, float],
    repeats: int,
    notes: str = "",
) -> None:
    """Print median and best of each call, and the ratio of the medians; with ``--check`` exit with 1 below a target."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--repeats", type=int, default=repeats)
    arguments = parser.parse_args()
    seconds = dict(zip(calls, interleaved(list(calls.values()), arguments.repeats), strict=True))
    print(f"{title}\n{'':44s}{'median':>10s}{'best':>10s}{'faster':>9s}{'by best':>9s}{'target':>8s}")
    missed = False
    for name, times in seconds.items():
        by_median, by_best = (f(seconds[against]) / f(times) for f in (median, min))
        missed |= by_median < targets.get(name, 0)
        target = f"{targets[name]:.1f}x" if name in targets else ""
        print(f"{name:44s}{median(times):9.3f}s{min(times):9.3f}s{by_median:8.2f}x{by_best:8.2f}x{target:>8s}")
    if notes:
        print(notes)
    if arguments.check and missed:
        sys.exit(1)
