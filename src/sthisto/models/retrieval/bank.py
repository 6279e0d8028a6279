"""Retrieval: a spot's expression is that of the training spots whose gene embedding lies nearest."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from sthisto._utils.settings import settings
from sthisto._utils.validate import check_choice
from sthisto.models.retrieval.exact import Exclusion, exact_top_k
from sthisto.models.retrieval.faiss import FaissIndex

__all__ = ["Aggregation", "Bank", "Retrieved"]

Aggregation = Literal["average", "weighted", "simple"]
IndexKind = Literal["auto", "exact", "faiss"]


class Retrieved(NamedTuple):
    """The neighbors of each query, nearest first."""

    indices: np.ndarray
    """Bank rows, (n_queries, k) int64."""
    cosine: np.ndarray
    """Cosine of query and neighbor, (n_queries, k) float32."""
    weights: np.ndarray
    """Weight of each neighbor in the prediction, (n_queries, k) float32, summing to 1."""

    @property
    def mean_cosine(self) -> np.ndarray:
        """Mean cosine of a query's neighbors, (n_queries,) float32: how well the bank covers the query."""
        return self.cosine.mean(axis=1)


class Bank:
    """Training spots to retrieve from: their gene embeddings and their expression.

    Parameters
    ----------
    embedding
        Gene embeddings, (n_bank, n_dimensions).
    expression
        Expression on the scale that is to be predicted, (n_bank, n_genes); a sparse matrix stays sparse.
    section
        Section of each spot as an integer, (n_bank,); needed for `exclude_sections`.
    index
        "exact"; "faiss" for an approximate index, which copies the embeddings; "auto" takes FAISS where the bank has
        more than `settings.faiss_above` spots and FAISS is installed.

    Raises
    ------
    ValueError
        If shapes do not match, the bank is empty, or an embedding or expression is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from sthisto.models import Bank
    >>> bank = Bank(np.eye(3), np.array([[1.0], [2.0], [4.0]]))
    >>> bank.query(np.array([[1.0, 0.9, 0.0]]), k=2)
    array([[1.5]], dtype=float32)
    """

    def __init__(
        self,
        embedding: ArrayLike,
        expression: ArrayLike | sp.spmatrix | sp.sparray,
        section: ArrayLike | None = None,
        *,
        index: IndexKind = "auto",
    ) -> None:
        check_choice(index, ("auto", "exact", "faiss"), name="index")
        self.embedding = _matrix(embedding, name="embedding")
        self.expression = _expression(expression)
        if self.expression.shape[0] != len(self.embedding):
            msg = (
                f"The bank has {len(self.embedding)} embeddings and {self.expression.shape[0]} rows of expression; "
                "pass one row of each for every spot."
            )
            raise ValueError(msg)
        if not len(self.embedding):
            msg = "The bank has no spots. Pass at least one."
            raise ValueError(msg)
        self.section = None if section is None else _labels(section, len(self), name="section")
        self.index = index

    def __len__(self) -> int:
        return len(self.embedding)

    @property
    def n_genes(self) -> int:
        """Number of genes that are predicted."""
        return self.expression.shape[1]

    @property
    def is_exact(self) -> bool:
        """Whether the search is exact, which `index` and the bank's size decide."""
        if self.index == "auto":
            return len(self) <= settings.faiss_above or not _faiss_installed()
        return self.index == "exact"

    @cached_property
    def _faiss(self) -> FaissIndex:
        return FaissIndex(self.embedding)

    def search(
        self,
        embedding: ArrayLike,
        k: int = 100,
        *,
        exclude: ArrayLike | None = None,
        exclude_sections: int | AbstractSet[int] | ArrayLike | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the k bank spots of highest cosine of each query.

        Parameters
        ----------
        embedding
            Image embeddings, (n_queries, n_dimensions). A vector of zeros has cosine 0 with everything.
        k
            Number of neighbors.
        exclude
            Bank row that each query may not retrieve, itself as a rule, (n_queries,); -1 for none.
        exclude_sections
            Sections that may not be retrieved: one label or a set of labels for all queries, or an array
            (n_queries,) with one label for each.

        Returns
        -------
        Bank rows (n_queries, k) int64 and cosines (n_queries, k) float32, nearest first; of equal cosines the lowest
        row comes first.

        Raises
        ------
        ValueError
            If an embedding is not finite, shapes do not match, or `k` is below 1 or above the number of spots that a
            query may retrieve.
        """
        queries = self._queries(embedding)
        exclusion = self._exclusion(len(queries), exclude, exclude_sections)
        if k < 1:
            msg = f"`k` must be at least 1, found {k!r}."
            raise ValueError(msg)
        fewest = exclusion.n_allowed().min(initial=len(self))
        if k > fewest:
            msg = (
                f"`k`={k} neighbors were asked for, but a query may retrieve only {fewest} of the bank's {len(self)} "
                f"spots. Pass k={fewest} or less, or a larger bank."
                if fewest
                else f"A query may retrieve none of the bank's {len(self)} spots: all of them are excluded. "
                "Add spots of other sections to the bank, or exclude less."
            )
            raise ValueError(msg)
        if self.is_exact:
            return exact_top_k(queries, self.embedding, k, exclusion)
        return self._faiss.top_k(queries, k, exclusion)

    def retrieve(
        self,
        embedding: ArrayLike,
        k: int = 100,
        aggregation: Aggregation = "average",
        *,
        exclude: ArrayLike | None = None,
        exclude_sections: int | AbstractSet[int] | ArrayLike | None = None,
    ) -> Retrieved:
        """Search once, for `average`, `spread` and the mean cosine of the same neighbors.

        Parameters
        ----------
        embedding, k, exclude, exclude_sections
            As in `search`.
        aggregation
            "average": all k weigh the same. "weighted": neighbor i weighs ``exp(-(d_i - d_1 + 1))``, d the squared
            distance of the embeddings as they are. "simple": the nearest alone.

        Returns
        -------
        The neighbors with their weights.
        """
        check_choice(aggregation, ("average", "weighted", "simple"), name="aggregation")
        queries = self._queries(embedding)
        indices, cosine = self.search(queries, k, exclude=exclude, exclude_sections=exclude_sections)
        weights = np.zeros(indices.shape, np.float32)
        if aggregation == "average":
            weights[:] = 1 / k
        elif aggregation == "simple":
            weights[:, 0] = 1
        else:
            for row, query, neighbors in zip(weights, queries, indices, strict=True):
                distance = np.square(self.embedding[neighbors] - query).sum(axis=1)
                # Only ratios count; the nearest by cosine need not be the nearest by distance.
                weight = np.exp(distance.min() - distance)
                row[:] = weight / weight.sum()
        return Retrieved(indices, cosine, weights)

    def average(self, retrieved: Retrieved) -> np.ndarray:
        """Average the neighbors' expression by their weights, (n_queries, n_genes) float32."""
        n, k = retrieved.indices.shape
        shape = (n, len(self))
        ends = np.arange(n + 1) * k
        weights = sp.csr_array((retrieved.weights.ravel(), retrieved.indices.ravel(), ends), shape=shape)
        if not sp.issparse(self.expression):
            return weights @ self.expression
        rows_at_once = max(1, 2**24 // self.n_genes)
        blocks = [(weights[i : i + rows_at_once] @ self.expression).toarray() for i in range(0, n, rows_at_once)]
        return np.concatenate(blocks) if blocks else np.empty((0, self.n_genes), np.float32)

    def spread(self, retrieved: Retrieved) -> np.ndarray:
        """Weighted standard deviation of the neighbors' expression, (n_queries, n_genes) float32."""
        out = np.empty((len(retrieved.indices), self.n_genes), np.float32)
        for sd, neighbors, weights in zip(out, retrieved.indices, retrieved.weights, strict=True):
            expression = self.expression[neighbors]
            values = expression.toarray() if sp.issparse(expression) else expression  # (k, n_genes)
            values = values.astype(np.float64)
            sd[:] = np.sqrt(weights @ np.square(values - weights @ values))
        return out

    def query(
        self,
        embedding: ArrayLike,
        k: int = 100,
        aggregation: Aggregation = "average",
        *,
        exclude: ArrayLike | None = None,
        exclude_sections: int | AbstractSet[int] | ArrayLike | None = None,
    ) -> np.ndarray:
        """Predict the expression of each query, (n_queries, n_genes) float32; arguments as in `retrieve`."""
        return self.average(
            self.retrieve(embedding, k, aggregation, exclude=exclude, exclude_sections=exclude_sections)
        )

    def _queries(self, embedding: ArrayLike) -> np.ndarray:
        queries = _matrix(embedding, name="embedding")
        if queries.shape[1] != self.embedding.shape[1]:
            msg = f"The bank's embeddings have {self.embedding.shape[1]} dimensions, the queries {queries.shape[1]}."
            raise ValueError(msg)
        return queries

    def _exclusion(
        self, n_queries: int, exclude: ArrayLike | None, sections: int | AbstractSet[int] | ArrayLike | None
    ) -> Exclusion:
        row = np.full(n_queries, -1) if exclude is None else _labels(exclude, n_queries, name="exclude")
        if n_queries and not (row.min() >= -1 and row.max() < len(self)):
            msg = (
                f"`exclude` must hold rows of the bank, 0 to {len(self) - 1}, or -1, found {row.min()} to {row.max()}."
            )
            raise ValueError(msg)
        own, banned = np.zeros(n_queries, np.int64), np.zeros(len(self), bool)
        if sections is None:
            return Exclusion(np.zeros(len(self), np.int64), own, False, banned, row)
        if self.section is None:
            msg = "`exclude_sections` needs the section of each bank spot. Pass section= when making the Bank."
            raise ValueError(msg)
        if isinstance(sections, AbstractSet) or np.ndim(sections) == 0:
            labels: list[Any] = list(sections) if isinstance(sections, AbstractSet) else [sections]
            return Exclusion(self.section, own, False, np.isin(self.section, labels), row)
        return Exclusion(self.section, _labels(sections, n_queries, name="exclude_sections"), True, banned, row)


def _faiss_installed() -> bool:
    from importlib.util import find_spec

    return find_spec("faiss") is not None


def _matrix(values: ArrayLike, *, name: str) -> np.ndarray:
    matrix = np.ascontiguousarray(values, np.float32)
    if matrix.ndim != 2:
        msg = f"`{name}` must be (n_spots, n_dimensions), found shape {matrix.shape}."
        raise ValueError(msg)
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(bad):
        msg = f"`{name}` has NaN or infinite values in {len(bad)} of {len(matrix)} rows, the first is row {bad[0]}."
        raise ValueError(msg)
    return matrix


def _expression(values: ArrayLike | sp.spmatrix | sp.sparray) -> np.ndarray | sp.csr_array:
    if not sp.issparse(values):
        return _matrix(values, name="expression")
    matrix = sp.csr_array(values, dtype=np.float32)
    if not np.isfinite(matrix.data).all():
        msg = "`expression` has NaN or infinite values. Leave these spots or genes out of the bank."
        raise ValueError(msg)
    return matrix


def _labels(values: ArrayLike, n: int, *, name: str) -> np.ndarray:
    labels = np.asarray(values)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        msg = f"`{name}` must be {n} integers, found shape {labels.shape} of {labels.dtype}."
        raise ValueError(msg)
    return labels.astype(np.int64)
