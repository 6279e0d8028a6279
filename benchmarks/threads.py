"""Ten epochs of DANet on frozen features with sthisto's choice of threads, one, and torch's, beside busy processes too.

    python benchmarks/threads.py --check

With ``--check`` it exits with 1 where sthisto's choice takes over 1.2 times the time of one thread, or over four times
its own time alone beside four busy processes. Every measurement is a process of its own, in turn; the median of the
repeats is printed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

N_BUSY = 4
MOST_SLOWER = 1.2
MOST_SLOWER_BESIDE = 4.0
WAYS = ("sthisto", "one thread", "torch's threads")


def measure(way: str) -> None:
    """Print the seconds of the training alone, in a process of its own."""
    from contextlib import nullcontext

    import numpy as np
    import torch

    from sthisto import settings
    from sthisto.models import DANet, PatchSpec, Training, seeded
    from sthisto.models import train as train_module
    from sthisto.models.training import loop

    settings.progress = False
    if way == "one thread":
        torch.set_num_threads(1)
    if way == "torch's threads":
        loop.threads_that_pay = lambda device, data: nullcontext()
    rng = np.random.default_rng(0)
    n_spots, n_features, n_genes = 400, 1024, 300
    features = torch.from_numpy(rng.normal(size=(n_spots, n_features)).astype(np.float32))
    expression = torch.from_numpy(rng.normal(size=(n_spots, n_genes)).astype(np.float32))
    model = DANet([f"gene{i}" for i in range(n_genes)], patch=PatchSpec(224))
    with seeded(0):
        towers = model.towers(n_features, None)

        def fit(max_epochs: int) -> None:
            train_module(
                towers,
                (features, expression),
                loss=model._loss,
                validation=None,
                groups=np.zeros(n_spots, dtype=int),
                training=Training.of(DANet.Options(max_epochs=max_epochs), seed=0),
                description="Fitting",
            )

        fit(1)  # kernels are compiled
        start = time.perf_counter()
        fit(10)
        print(time.perf_counter() - start)


@contextmanager
def busy(n: int) -> Iterator[None]:
    """Keep `n` processes busy meanwhile."""
    processes = [multiprocessing.Process(target=_count, daemon=True) for _ in range(n)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()


def _count() -> None:
    while True:
        sum(range(10_000))


def seconds(way: str) -> float:
    """Return the seconds of one measurement."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, __file__, "--of", way]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure all ways, print a table, and judge sthisto's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--of", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.of is not None:
        measure(arguments.of)
        return
    alone: dict[str, list[float]] = {way: [] for way in WAYS}
    beside: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(arguments.repeats):
        for way in WAYS:
            alone[way].append(seconds(way))
            with busy(N_BUSY):
                beside[way].append(seconds(way))
    print(f"{'':18s}{'alone':>8s}{f'beside {N_BUSY}':>10s}{'ratio':>8s}")
    for way in WAYS:
        a, b = median(alone[way]), median(beside[way])
        print(f"{way:18s}{a:7.1f}s{b:9.1f}s{b / a:8.1f}")
    slower = median(alone["sthisto"]) / median(alone["one thread"])
    slower_beside = median(beside["sthisto"]) / median(alone["sthisto"])
    print(f"sthisto / one thread, alone: {slower:.2f} (at most {MOST_SLOWER})")
    print(f"sthisto beside / alone: {slower_beside:.1f} (at most {MOST_SLOWER_BESIDE})")
    if arguments.check and (slower > MOST_SLOWER or slower_beside > MOST_SLOWER_BESIDE):
        sys.exit(1)


if __name__ == "__main__":
    main()
