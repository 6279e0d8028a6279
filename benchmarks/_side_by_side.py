"""Time alternatives in turn, measure each one's memory in a process of its own, print them and judge the ratio.

A script gives `main` a table of cases, each a function that prepares its inputs and returns what is to be timed.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

Prepare = Callable[[], Callable[[], object]]


@dataclass(frozen=True)
class Case:
    """One way to do the work; what it must achieve against the first case, where the issue names a target."""

    name: str
    prepare: Prepare
    least_ratio: float | None = None
    least_memory_ratio: float | None = None
    most_memory: float | None = None
    """MiB that the case itself may take beyond its inputs."""


def main(
    title: str,
    cases: list[Case],
    *,
    repeats: int = 7,
    skipped: dict[str, str] | None = None,
    child_arguments: list[str] | None = None,
) -> None:
    """Run the comparison; with ``--check`` exit with 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of is not None:
        print(peak_growth(cases[arguments.memory_of].prepare))
        sys.exit()
    seconds = interleaved([case.prepare() for case in cases], arguments.repeats)
    memory = [memory_in_child(i, child_arguments or []) for i in range(len(cases))]
    print(
        f"{title}\n{'':44s}{'median':>10s}{'best':>10s}{'ratio':>8s}{'target':>8s}"
        f"{'peak MiB':>10s}{'ratio':>8s}{'target':>8s}"
    )
    missed = False
    for case, times, peak in zip(cases, seconds, memory, strict=True):
        ratio, memory_ratio = median(times) / median(seconds[0]), peak / max(memory[0], 1)
        missed |= ratio < (case.least_ratio or 0) or memory_ratio < (case.least_memory_ratio or 0)
        missed |= peak > (case.most_memory or math.inf)
        targets = [f"{t:.2f}x" if t else "" for t in (case.least_ratio, case.least_memory_ratio)]
        print(
            f"{case.name:44s}{1e3 * median(times):8.1f}ms{1e3 * min(times):8.1f}ms{ratio:7.2f}x{targets[0]:>8s}"
            f"{peak:10.0f}{memory_ratio:7.1f}x{targets[1]:>8s}"
        )
    for case in cases:
        if case.most_memory:
            print(f"{case.name}: at most {case.most_memory:.0f} MiB beyond the inputs")
    for name, reason in (skipped or {}).items():
        print(f"{name:44s}{reason}")
    if arguments.check and missed:
        sys.exit(1)


def interleaved(calls: list[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Time the calls in turn, so that whatever else the machine does falls on all; the first round is warm-up."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for times, call in zip(seconds, calls, strict=True):
            start = time.perf_counter()
            call()
            if turn:
                times.append(time.perf_counter() - start)
    return seconds


def peak_growth(prepare: Prepare) -> float:
    """MiB by which this process grows at most during a second call, when inputs and compiled code are there (Linux)."""
    call = prepare()
    call()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def memory_in_child(index: int, arguments: list[str]) -> float:
    """Peak growth of case `index`, measured in a process that does nothing else."""
    command = [sys.executable, *sys.argv[:1], "--memory-of", str(index), *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def _status(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024
