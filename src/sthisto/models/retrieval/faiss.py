"""Approximate search with FAISS, for banks where the exact one takes too long."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sthisto.models.retrieval.exact import Exclusion, exact_top_k, rank

__all__ = ["FaissIndex", "import_faiss"]

PROBED = 0.1
"""Share of the index's lists that a query reads."""
LEAST_PROBED = 64
"""Lists that a query reads at least: small banks are read whole."""


def import_faiss() -> Any:
    """Import FAISS, or say how to install it."""
    try:
        import faiss
    except ImportError as error:
        msg = "`index`='faiss' needs FAISS. Install it with: pip install faiss-cpu (sthisto's extra 'faiss')"
        raise ImportError(msg) from error
    return faiss


class FaissIndex:
    """Inverted lists over the bank's unit vectors; holds a copy of the bank.

    Parameters
    ----------
    bank
        Embeddings, (n_bank, n_dimensions) float32.

    References
    ----------
    Douze et al., The Faiss library, 2024, doi:10.48550/arXiv.2401.08281.
    """

    def __init__(self, bank: np.ndarray) -> None:
        faiss = import_faiss()
        n_lists = max(1, min(round(4 * math.sqrt(len(bank))), len(bank) // 39))
        quantizer = faiss.IndexFlatIP(bank.shape[1])
        self.index = faiss.IndexIVFFlat(quantizer, bank.shape[1], n_lists, faiss.METRIC_INNER_PRODUCT)
        self.n_probed = min(n_lists, max(LEAST_PROBED, math.ceil(PROBED * n_lists)))
        self.bank = bank
        unit = bank.copy()
        faiss.normalize_L2(unit)
        self.index.train(unit)
        self.index.add(unit)

    def top_k(self, queries: np.ndarray, k: int, exclusion: Exclusion) -> tuple[np.ndarray, np.ndarray]:
        """Find k allowed spots near each query; a query whose lists hold fewer than k is searched exactly.

        Takes queries, (n_queries, n_dimensions), and returns as `exact_top_k`.
        """
        found = np.full((len(queries), k), -1, np.int64)
        labels = exclusion.queries_section if exclusion.by_section else np.zeros(len(queries), np.int64)
        for label in np.unique(labels):
            banned = exclusion.banned | (exclusion.section == label) if exclusion.by_section else exclusion.banned
            of_label = np.flatnonzero(labels == label)
            found[of_label] = self._allowed(queries[of_label], k, banned, exclusion.row[of_label])
        short = np.flatnonzero((found < 0).any(axis=1))
        if len(short):
            rest = Exclusion(
                exclusion.section,
                exclusion.queries_section[short],
                exclusion.by_section,
                exclusion.banned,
                exclusion.row[short],
            )
            found[short] = exact_top_k(queries[short], self.bank, k, rest)[0]
        return rank(queries, self.bank, found)

    def _allowed(self, queries: np.ndarray, k: int, banned: np.ndarray, own_row: np.ndarray) -> np.ndarray:
        """Search among the spots that are not banned and leave each query's own row out, (n, k), -1 where short."""
        faiss = import_faiss()
        parameters: dict[str, Any] = {"nprobe": self.n_probed}
        if banned.any():
            parameters["sel"] = faiss.IDSelectorBatch(np.flatnonzero(~banned))
        one_more = k + int((own_row >= 0).any())
        rows = self.index.search(queries, one_more, params=faiss.SearchParametersIVF(**parameters))[1]
        if one_more > k:
            own = rows == own_row[:, None]
            own[~own.any(axis=1), -1] = True
            rows = rows[~own].reshape(len(queries), k)
        return rows
