"""Top-100 among a million spots, against the blocked matrix product alone; and the recall of FAISS against it.

``--queries 10000`` is the size that the targets are set for; the default is a fifth of it, with the whole bank.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from _side_by_side import Case, main

from sthisto.models import Bank
from sthisto.models.retrieval.exact import KEYS, QUERIES

DIMENSIONS, K = 256, 100
MOST_MEMORY = 1024
"""MiB beyond the inputs."""


def embeddings(n: int, seed: int) -> np.ndarray:
    """Embeddings like those of a tissue: a few directions carry most of the variance, (n, DIMENSIONS) float32."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(0).standard_normal((16, DIMENSIONS), np.float32)
    latent = rng.standard_normal((n, 16), np.float32)
    noise = rng.standard_normal((n, DIMENSIONS), np.float32)
    noise *= 0.5
    noise += latent @ directions
    return noise


def search(n_spots: int, n_queries: int) -> Callable[[], object]:
    """Prepare the exact search."""
    bank, queries = Bank(embeddings(n_spots, 1), np.zeros((n_spots, 1)), index="exact"), embeddings(n_queries, 2)
    return lambda: bank.search(queries, K)


def product(n_spots: int, n_queries: int) -> Callable[[], object]:
    """Prepare the matrix product in the same blocks, its results thrown away."""
    bank, queries = torch.from_numpy(embeddings(n_spots, 1)), torch.from_numpy(embeddings(n_queries, 2))
    scores = torch.empty(min(QUERIES, n_queries), KEYS)

    def multiply() -> None:
        for query in queries.split(QUERIES):
            for key in bank.split(KEYS):
                torch.matmul(query, key.T, out=scores[: len(query), : len(key)])

    return multiply


def print_recall(n_spots: int, n_queries: int) -> None:
    """Print how many of the exact neighbors FAISS finds, and how long both take."""
    bank, queries = embeddings(n_spots, 1), embeddings(n_queries, 2)
    found, seconds = {}, {}
    for index in ("exact", "faiss"):
        searched = Bank(bank, np.zeros((n_spots, 1)), index=index)
        searched.search(queries[:10], K)
        start = time.perf_counter()
        found[index] = searched.search(queries, K)[0]
        seconds[index] = time.perf_counter() - start
    pairs = zip(found["exact"], found["faiss"], strict=True)
    recall = np.mean([len(np.intersect1d(exact, approximate)) / K for exact, approximate in pairs])
    print(
        f"FAISS, {n_queries} queries among {n_spots} spots: recall@{K} {recall:.4f}, "
        f"{seconds['faiss']:.2f} s, exact {seconds['exact']:.2f} s"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--spots", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=2_000)
    sizes, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    n_spots, n_queries = sizes.spots, sizes.queries
    main(
        f"Top-{K} of {n_queries} queries among {n_spots} spots, {DIMENSIONS} dimensions",
        [
            Case(
                "sthisto.models.Bank, exact",
                lambda: search(n_spots, n_queries),
                most_memory=MOST_MEMORY,
            ),
            Case("blocked matrix product alone", lambda: product(n_spots, n_queries), least_ratio=1 / 3),
        ],
        repeats=3,
        child_arguments=["--spots", str(n_spots), "--queries", str(n_queries)],
    )
    print_recall(100_000, 1_000)
