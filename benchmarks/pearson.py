"""Time `metrics.pearson` against one pass over the same data, and against scipy and numpy gene by gene.

One pass is a sum over the spots of both matrices, as numpy and scipy do it: in the matrices' own precision, which for
float32 is half the work of a sum in float64. Every figure is the fastest of several runs, one thread.

    python benchmarks/pearson.py [--spots 5000] [--genes 18000] [--density 0.2] [--repeats 5]
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from scipy.stats import pearsonr

from sthisto import metrics

GENES_IN_LOOP = 300


def fastest(call: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def peak_mib(call: Callable[[], object]) -> float:
    """Most memory that one call takes beyond its arguments, in MiB."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def loop_seconds(score: Callable[[np.ndarray, np.ndarray], object], truth: np.ndarray, prediction: np.ndarray) -> float:
    """Seconds that a loop over all genes takes, extrapolated from the first of them."""

    def loop() -> None:
        for gene in range(GENES_IN_LOOP):
            score(truth[:, gene], prediction[:, gene])

    return fastest(loop, 1) * truth.shape[1] / GENES_IN_LOOP


def main() -> None:
    """Print one row a kind of matrix."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spots", type=int, default=5000)
    parser.add_argument("--genes", type=int, default=18000)
    parser.add_argument("--density", type=float, default=0.2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    shape = options.spots, options.genes
    sparse = sp.random(*shape, density=options.density, format="csr", dtype=np.float32, rng=rng)
    prediction = rng.standard_normal(shape, dtype=np.float32)
    metrics.pearson(prediction[:8], prediction[:8])  # compiles

    print(f"{shape[0]} spots x {shape[1]} genes, sparse with {options.density:.0%} of the values")
    print(f"{'truth':<16}{'prediction':<12}{'one pass s':>11}{'pearson s':>11}{'ratio':>7}{'peak MiB':>10}")
    kinds = [("dense", sparse.toarray()), ("csr", sparse), ("csc", sparse.tocsc())]
    for dtype in (np.float32, np.float64):
        predicted = prediction.astype(dtype, copy=False)
        for name, matrix in kinds:
            truth = matrix.astype(dtype, copy=False)
            metrics.pearson(truth[:8], predicted[:8])
            one_pass = fastest(lambda t=truth, p=predicted: (t.sum(axis=0), p.sum(axis=0)), options.repeats)
            seconds = fastest(lambda t=truth, p=predicted: metrics.pearson(t, p), options.repeats)
            peak = peak_mib(lambda t=truth, p=predicted: metrics.pearson(t, p))
            kind = f"{name} {np.dtype(dtype)}"
            row = f"{kind:<16}{np.dtype(dtype)!s:<12}{one_pass:>11.3f}{seconds:>11.3f}{seconds / one_pass:>7.2f}"
            print(f"{row}{peak:>10.1f}")

    truth = sparse.toarray()
    print(f"scipy.stats.pearsonr, loop over genes   {loop_seconds(pearsonr, truth, prediction):8.1f} s")
    print(f"numpy.corrcoef, loop over genes         {loop_seconds(np.corrcoef, truth, prediction):8.1f} s")
    print(f"(loops extrapolated from {GENES_IN_LOOP} genes)")


if __name__ == "__main__":
    main()
