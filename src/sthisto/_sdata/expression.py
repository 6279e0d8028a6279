"""Expression as a model sees it: raw counts recognized and normalized. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from sthisto._utils.targets import SET_MEANS, is_proportions
from sthisto._utils.validate import check_choice
from sthisto.metrics import pearson_residuals

Target = Literal["log1p", "pearson_residuals", "as_is"]
_BLOCK = 250_000


@dataclass(frozen=True)
class Normalization:
    """The scale of expression: what was done to the values of a layer.

    Parameters
    ----------
    target
        "log1p": counts scaled to `target_sum` over all genes, then log(1 + x). "pearson_residuals": analytic Pearson
        residuals with all-gene depth, per section. "as_is": the layer held no counts and is taken as it stands. In
        place of genes, "set_means": means of Pearson residuals over sets; "obsm:KEY": proportions in ``obsm[KEY]``.
    layer
        Layer that was read; None is X.
    target_sum
        Library size that each spot is scaled to, for "log1p".
    targets
        What is predicted in place of genes: for each, its name, followed by the genes of a set. Empty for genes.
    """

    target: Target | str = "log1p"
    layer: str | None = None
    target_sum: float = 1e4
    targets: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.targets:
            check_choice(self.target, ("log1p", "pearson_residuals", "as_is"), name="target")
        elif self.target != SET_MEANS and not is_proportions(self.target):
            msg = f"target={self.target!r} is a scale of genes, found targets {self.names}."
            raise ValueError(msg)

    def record(self) -> dict[str, Any]:
        """Return the parameters as plain values that `uns` and JSON take; X stands for no layer."""
        values = asdict(self) | {"layer": self.layer or "X"}
        lines = ["\t".join(target) for target in values.pop("targets")]
        return values | ({"targets": lines} if lines else {})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is predicted in place of genes; empty for genes."""
        return tuple(target[0] for target in self.targets)

    def set_weights(self) -> tuple[list[str], np.ndarray]:
        """Return the genes of all sets, and the weight of each in the mean of each set, (n_genes, n_sets)."""
        genes = list(dict.fromkeys(gene for _, *members in self.targets for gene in members))
        weights = np.zeros((len(genes), len(self.targets)))
        place = {gene: i for i, gene in enumerate(genes)}
        for column, (_, *members) in enumerate(self.targets):
            weights[[place[gene] for gene in members], column] = 1 / len(members)
        return genes, weights

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Normalization:
        """Return what `record` was made of."""
        layer = str(record["layer"])
        targets = tuple(tuple(str(line).split("\t")) for line in record.get("targets", ()))
        return cls(str(record["target"]), None if layer == "X" else layer, float(record["target_sum"]), targets)

    def __call__(self, matrix: sp.csr_array, columns: np.ndarray | None = None) -> np.ndarray:
        """Normalize one section over all its genes and return the genes at `columns`.

        Parameters
        ----------
        matrix
            (n_spots, n_all_genes) values of one section.
        columns
            (n_genes,) positions of the genes to return; None is all.

        Returns
        -------
        (n_spots, n_genes) float32. Spots without any count are 0 for "log1p", NaN for "pearson_residuals".

        Raises
        ------
        ValueError
            A value is NaN or infinite, or negative where counts are expected.
        """
        check_finite(matrix)
        chosen = matrix if columns is None else matrix[:, columns]
        if self.target == "as_is":
            return np.asarray(chosen.toarray(), dtype=np.float32)
        if matrix.nnz and matrix.data.min() < 0:
            msg = (
                f"target={self.target!r} needs counts, but {self._place()} holds negative values, down to "
                f"{matrix.data.min():.3g}. Pass the layer of counts with layer=…"
            )
            raise ValueError(msg)
        totals = np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
        if self.target == "pearson_residuals":
            return np.asarray(pearson_residuals(chosen, totals=totals), dtype=np.float32)
        return np.asarray(log1p_of(chosen, totals, self.target_sum).toarray())

    def _place(self) -> str:
        return "X" if self.layer is None else f"layer {self.layer!r}"


def log1p_of(counts: Any, totals: np.ndarray, target_sum: float) -> sp.csr_array:
    """Scale counts to one library size and take log(1 + x).

    Parameters
    ----------
    counts
        (n_spots, n_genes) counts, sparse.
    totals
        (n_spots,) float64 library size of each spot, over all genes.
    target_sum
        Library size that each spot is scaled to.

    Returns
    -------
    (n_spots, n_genes) float32; spots without counts are 0.
    """
    factor = np.divide(target_sum, totals, out=np.zeros_like(totals), where=totals > 0)
    scaled = sp.csr_array(sp.diags_array(factor) @ counts)
    scaled.data = np.log1p(scaled.data)
    return scaled.astype(np.float32)


def looks_like_counts(matrix: Any) -> bool:
    """Return whether all values are whole numbers of at least zero.

    Raises
    ------
    ValueError
        A value is NaN or infinite.
    """
    check_finite(matrix)
    return all(bool((block >= 0).all() and (block == np.rint(block)).all()) for block in _blocks(matrix))


def check_finite(matrix: Any) -> None:
    """Raise ValueError when a value, dense or sparse, is NaN or infinite."""
    for block in _blocks(matrix):
        if not np.isfinite(block).all():
            msg = (
                "The expression holds NaN or infinite values. Remove those spots or genes first, or pass another layer "
                "with layer=…; to learn residuals, pass target='pearson_residuals' with the layer of counts."
            )
            raise ValueError(msg)


def _blocks(matrix: Any) -> Iterator[np.ndarray]:
    """Yield the stored values in (n,) blocks that stay in the processor's cache, so that no large matrix is copied."""
    values = matrix.data if sp.issparse(matrix) else np.asarray(matrix).reshape(-1)
    return (values[start : start + _BLOCK] for start in range(0, len(values), _BLOCK))
