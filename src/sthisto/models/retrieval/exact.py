"""Exact search for the nearest by cosine, in memory that grows with neither the bank nor the queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import normalize

__all__ = ["Exclusion", "exact_top_k", "rank"]

KEYS = 8192
"""Bank spots whose cosines are computed at once."""
QUERIES = 2048
"""Queries whose cosines are computed at once: a block of cosines is 64 MiB."""
RANKED = 64
"""Queries whose neighbors' embeddings are held in float64 at once."""


@dataclass(frozen=True)
class Exclusion:
    """What a query may not retrieve."""

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

    Cosines are computed in blocks of the bank; the best of a block and the best so far are ranked together.

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
    found = np.empty((len(queries), k), np.int64)
    banned, section = torch.from_numpy(exclusion.banned), torch.from_numpy(exclusion.section)
    for q0 in range(0, len(queries), QUERIES):
        query = normalize(torch.from_numpy(queries[q0 : q0 + QUERIES]))
        query_section = torch.from_numpy(exclusion.queries_section[q0 : q0 + QUERIES])
        query_row = torch.from_numpy(exclusion.row[q0 : q0 + QUERIES])
        best, rows = torch.empty(len(query), 0), torch.empty(len(query), 0, dtype=torch.int64)
        for b0 in range(0, len(bank), KEYS):
            cosine = query @ normalize(torch.from_numpy(bank[b0 : b0 + KEYS])).T  # (queries, keys) of the block
            if exclusion.banned.any():
                cosine.masked_fill_(banned[b0 : b0 + KEYS], -torch.inf)
            if exclusion.by_section:
                cosine.masked_fill_(section[b0 : b0 + KEYS] == query_section[:, None], -torch.inf)
            column = query_row - b0
            in_block = torch.nonzero((column >= 0) & (column < cosine.shape[1])).squeeze(1)
            cosine[in_block, column[in_block]] = -torch.inf
            of_block = _highest(cosine, torch.arange(b0, b0 + cosine.shape[1]).expand_as(cosine), k)
            best, rows = _highest(torch.cat([best, of_block[0]], 1), torch.cat([rows, of_block[1]], 1), k)
        found[q0 : q0 + QUERIES] = rows.numpy()
    return rank(queries, bank, found)


def _highest(cosine: torch.Tensor, rows: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k highest of (n_queries, n) cosines, or all n, and their bank rows: of equal ones the lowest rows."""
    if cosine.shape[1] <= k:
        return cosine, rows
    best, column = cosine.topk(k + 1)
    # `topk` takes any of those that equal the k-th.
    tied = torch.nonzero((best[:, k] == best[:, k - 1]) & (best[:, k] > -torch.inf)).squeeze(1)
    if len(tied):
        order = np.lexsort((rows[tied].numpy(), -cosine[tied].numpy()), axis=1)
        column[tied] = torch.from_numpy(order[:, : k + 1])
        best[tied] = cosine[tied].gather(1, column[tied])
    return best[:, :k], rows.gather(1, column[:, :k])


def rank(queries: np.ndarray, bank: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order each query's spots by cosine, best first, equal cosines by lowest row.

    The cosines are computed anew in float64, one pair at a time, so that they do not depend on blocks, and equal
    embeddings are equally near.

    Parameters
    ----------
    queries, bank
        Embeddings, (n_queries, n_dimensions) and (n_bank, n_dimensions) float32.
    indices
        Bank rows of each query, (n_queries, k).

    Returns
    -------
    The rows in order, (n_queries, k) int64, and their cosines, (n_queries, k) float32.
    """
    cosine = np.empty(indices.shape)
    query_norm, bank_norm = _norm(queries), _norm(bank)
    for q0 in range(0, len(queries), RANKED):
        query, found = queries[q0 : q0 + RANKED], indices[q0 : q0 + RANKED]
        product = np.einsum("qd,qkd->qk", query.astype(np.float64), bank[found].astype(np.float64))
        scale = query_norm[q0 : q0 + RANKED, None] * bank_norm[found]
        cosine[q0 : q0 + RANKED] = np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
    order = np.lexsort((indices, -cosine), axis=1)
    return np.take_along_axis(indices, order, 1), np.take_along_axis(cosine, order, 1).astype(np.float32)


def _norm(x: np.ndarray) -> np.ndarray:
    """Return the length of each row in float64, (n,)."""
    return np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))
