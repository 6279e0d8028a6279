"""Exact search for the nearest by cosine, in memory that grows with neither the bank nor the queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sthisto.nn._kernels.native import compiled, over_ranges

__all__ = ["Exclusion", "exact_top_k", "rank"]

KEYS = 8192
"""Bank spots whose cosines are computed at once."""
QUERIES = 2048
"""Queries whose cosines are computed at once: a block of cosines is 64 MiB."""


@dataclass(frozen=True)
class Exclusion:
    """What a query may not retrieve, as arrays that a compiled loop can read."""

    section: np.ndarray
    """Section of each bank spot, (n_bank,) int64."""
    queries_section: np.ndarray
    """Section that each query may not retrieve, (n_queries,) int64; only read where `by_section`."""
    by_section: bool
    banned: np.ndarray
    """Bank spots that no query may retrieve, (n_bank,) bool."""
    row: np.ndarray
    """Bank spot that each query may not retrieve, (n_queries,) int64, -1 for none."""

    def n_allowed(self) -> np.ndarray:
        """Count the bank spots that each query may retrieve, (n_queries,) int64."""
        allowed = np.full(len(self.row), np.count_nonzero(~self.banned))
        row = np.maximum(self.row, 0)
        itself = (self.row >= 0) & ~self.banned[row]
        if self.by_section:
            labels, counts = np.unique(self.section[~self.banned], return_counts=True)
            at = np.minimum(np.searchsorted(labels, self.queries_section), max(len(labels) - 1, 0))
            if len(labels):
                allowed -= np.where(labels[at] == self.queries_section, counts[at], 0)
            itself &= self.section[row] != self.queries_section
        return allowed - itself


def exact_top_k(queries: np.ndarray, bank: np.ndarray, k: int, exclusion: Exclusion) -> tuple[np.ndarray, np.ndarray]:
    """Find the k allowed bank spots of highest cosine of each query.

    Cosines are computed block by block; of a block only those above a query's k-th best so far are looked at again.

    Parameters
    ----------
    queries, bank
        Embeddings, (n_queries, n_dimensions) and (n_bank, n_dimensions) float32.
    k
        At most the least number of spots that a query may retrieve.
    exclusion
        What may not be retrieved.

    Returns
    -------
    Bank rows (n_queries, k) int64 and cosines (n_queries, k) float32, best first, equal cosines by lowest row.
    """
    best = np.full((len(queries), k), -1, np.int64)
    held = np.empty((min(QUERIES, len(queries)), 2 * k), np.float32)
    rows = np.empty(held.shape, np.int64)
    scores = torch.empty(len(held), min(KEYS, len(bank)))
    for q0 in range(0, len(queries), QUERIES):
        query = _unit(torch.from_numpy(queries[q0 : q0 + QUERIES]))
        n = len(query)
        counts, floor = np.zeros(n, np.int64), np.full(n, -np.inf, np.float32)
        ex = (exclusion.section, exclusion.queries_section[q0 : q0 + n], exclusion.by_section, exclusion.banned)
        for b0 in range(0, len(bank), KEYS):
            key = _unit(torch.from_numpy(bank[b0 : b0 + KEYS]))
            block = scores.view(-1)[: n * len(key)].view(n, len(key))
            torch.matmul(query, key.T, out=block)
            row = exclusion.row[q0 : q0 + n]
            over_ranges(_collect, n, block.numpy(), b0, *ex, row, held[:n], rows[:n], counts, floor, k)
        over_ranges(_finish, n, held[:n], rows[:n], counts, k, best[q0 : q0 + n])
    return rank(queries, bank, best)


def rank(queries: np.ndarray, bank: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order each query's spots by cosine, best first, equal cosines by lowest row.

    The cosines are computed anew in float64, one pair at a time, so that they do not depend on blocks, and equal
    embeddings are equally near.
    """
    cosine = np.empty(indices.shape)
    over_ranges(_cosines, len(queries), queries, bank, indices, cosine)
    order = np.lexsort((indices, -cosine), axis=1)
    return np.take_along_axis(indices, order, 1), np.take_along_axis(cosine, order, 1).astype(np.float32)


def _unit(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x, dim=1)


@compiled
def _keep_best(held: Any, rows: Any, count: int, k: int) -> None:
    """Move the k best of `count` candidates to the front; those that came first stay first among equals."""
    order = np.argsort(-held[:count], kind="mergesort")[:k]
    held[:k] = held[:count][order]
    rows[:k] = rows[:count][order]


@compiled
def _collect(
    block: Any,
    offset: int,
    section: Any,
    queries_section: Any,
    by_section: bool,
    banned: Any,
    own_row: Any,
    held: Any,
    rows: Any,
    counts: Any,
    floor: Any,
    k: int,
    first: int,
    last: int,
) -> None:
    """Add to each query's candidates the allowed spots of a block of cosines that lie above the query's floor."""
    n_keys = block.shape[1]
    stride = 64
    for q in range(first, last):
        for j0 in range(0, n_keys, stride):
            j1 = min(j0 + stride, n_keys)
            above = 0
            for j in range(j0, j1):
                above += block[q, j] > floor[q]
            if above == 0:
                continue
            for j in range(j0, j1):
                row = offset + j
                if (
                    not block[q, j] > floor[q]
                    or banned[row]
                    or row == own_row[q]
                    or (by_section and section[row] == queries_section[q])
                ):
                    continue
                held[q, counts[q]] = block[q, j]
                rows[q, counts[q]] = row
                counts[q] += 1
                if counts[q] == held.shape[1]:
                    _keep_best(held[q], rows[q], counts[q], k)
                    counts[q] = k
                    floor[q] = held[q, k - 1]


@compiled
def _finish(held: Any, rows: Any, counts: Any, k: int, best: Any, first: int, last: int) -> None:
    for q in range(first, last):
        _keep_best(held[q], rows[q], counts[q], k)
        best[q] = rows[q, :k]


@compiled
def _cosines(queries: Any, bank: Any, indices: Any, cosine: Any, first: int, last: int) -> None:
    for q in range(first, last):
        for i in range(indices.shape[1]):
            product, query_norm, key_norm = 0.0, 0.0, 0.0
            for d in range(queries.shape[1]):
                x, y = np.float64(queries[q, d]), np.float64(bank[indices[q, i], d])
                product += x * y
                query_norm += x * x
                key_norm += y * y
            scale = np.sqrt(query_norm * key_norm)
            cosine[q, i] = product / scale if scale > 0 else 0.0
