"""What was measured and predicted on the spots to score: the one container that all scores are computed from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import scipy.sparse as sp

from sthisto._sdata.expression import Normalization, looks_like_counts
from sthisto._sdata.measured import read_expression
from sthisto._sdata.sections import Section
from sthisto._sdata.tables import gene_positions, read_rows, where_counts_may_be
from sthisto._utils.targets import SET_MEANS
from sthisto.metrics import pearson_residuals, spatial_blocks

BLOCKS_ACROSS: Final = 5
"""Blocks across the longer side of a section, the units of the bootstrap."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured and predicted on the scored spots of one section; spots without counts are left out.

    Attributes
    ----------
    name
        The section.
    genes
        Names of the scored genes.
    truth
        (n_spots, n_genes) measured expression on the scale of the predictions.
    residuals
        (n_spots, n_genes) measured Pearson residuals, with the depth over all genes.
    counts
        (n_spots, n_genes) measured counts.
    totals
        (n_spots,) counts of each spot over all genes.
    blocks
        (n_spots,) spatial block of each spot, the units of the bootstrap.
    predictions
        Name of a prediction -> (n_spots, n_genes).
    set_weights
        (n_counted, n_genes) weight of each counted gene in each of the sets that stand in place of `genes`; `counts`
        are of these genes. None where genes are scored.
    labels
        (n_spots,) labels of the tissue; None where no spot has one.
    confidence
        (n_spots,) confidence of the prediction; None without one.
    """

    name: str
    genes: Sequence[str]
    truth: np.ndarray
    residuals: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    blocks: np.ndarray
    predictions: Mapping[Any, np.ndarray]
    labels: np.ndarray | None = None
    confidence: np.ndarray | None = None
    set_weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.totals)

    def with_depth(self, key: Hashable) -> Measured:
        """Return the same with the prediction of depth alone under a key: the log total count, for every gene."""
        depth = np.repeat(np.log(self.totals)[:, None], len(self.genes), axis=1)
        return replace(self, predictions={**self.predictions, key: depth})

    def in_panel(self) -> np.ndarray:
        """Return log1p of the counts normalized over the scored genes alone, (n_spots, n_genes)."""
        return Normalization("log1p")(sp.csr_array(self.counts))


def measure(
    section: Section,
    genes: Sequence[str],
    predictions: Mapping[Any, np.ndarray],
    *,
    spots: np.ndarray | None = None,
    normalization: Normalization | None = None,
    counts_layer: str | None = None,
    gene_symbols: str | None = None,
    labels: np.ndarray | None = None,
    blocks: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
    name: str | None = None,
) -> Measured:
    """Read what was measured on some spots of a section and put predictions beside it.

    Parameters
    ----------
    section
        Where it was measured.
    genes
        Genes to score, by `gene_symbols`.
    predictions
        Name of a prediction -> (n_spots, n_genes) for the `spots`.
    spots
        (n_spots,) positions in the section of the spots to score; None is all.
    normalization
        Scale of the predictions; None is log1p of the counts in X.
    counts_layer
        Layer of raw counts; None is the one that was normalized, or X where values were used as they are.
    gene_symbols
        Column of ``var`` with the names of the genes; None is ``var_names``.
    labels
        (n_spots,) labels of the tissue, None where a spot has none.
    blocks
        (n_spots,) spatial blocks; None: squares a fifth of the section wide.
    confidence
        (n_spots,) confidence of the prediction that is scored; None without one.
    name
        What the section is called; None is its own name.

    Returns
    -------
    What was measured and predicted on those of the spots that have counts, possibly none.

    Raises
    ------
    KeyError
        A gene or the layer is missing.
    ValueError
        The values are not raw counts.
    """
    scale = Normalization() if normalization is None else normalization
    rows = np.arange(len(section)) if spots is None else spots
    if scale.names:
        return _measure_targets(
            section,
            genes,
            predictions,
            rows,
            scale,
            counts_layer=counts_layer,
            gene_symbols=gene_symbols,
            confidence=confidence,
        )
    columns = gene_positions(section.table, genes, gene_symbols)
    counts = _counts(section, rows, scale, counts_layer)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    filled = np.flatnonzero(totals > 0)
    counts, totals, kept = counts[filled], totals[filled], rows[filled]
    panel = counts[:, columns].toarray()
    values = read_rows(section, scale.layer, kept) if scale.target == "as_is" else counts
    return Measured(
        name=section.name if name is None else name,
        genes=list(genes),
        truth=scale(values, columns),
        residuals=pearson_residuals(panel, totals=totals),
        counts=panel,
        totals=totals,
        blocks=section_blocks(section.centers[kept]) if blocks is None else blocks[filled],
        predictions={key: values[filled] for key, values in predictions.items()},
        confidence=None if confidence is None else confidence[filled],
        labels=None if labels is None or not is_labeled(labels[filled]).any() else labels[filled],
    )


def _measure_targets(
    section: Section,
    names: Sequence[str],
    predictions: Mapping[Any, np.ndarray],
    rows: np.ndarray,
    scale: Normalization,
    *,
    counts_layer: str | None,
    gene_symbols: str | None,
    confidence: np.ndarray | None,
) -> Measured:
    """Read what was measured of sets of genes or of proportions; the residual score is against the same.

    Arrays have the shapes that `measure` states. Proportions need no counts: without any, the depth of the spots is
    unknown, NaN.
    """
    if counts_layer is not None:
        scale = replace(scale, layer=counts_layer)
    if scale.target == SET_MEANS:
        _counts(section, rows, scale, counts_layer)
    truth = read_expression(section, rows, genes=names, normalization=scale, gene_symbols=gene_symbols)[rows]
    filled = np.flatnonzero(np.isfinite(truth).all(axis=1))
    kept, truth = rows[filled], truth[filled].astype(np.float64)
    counted: list[str] = []
    weights = None
    if scale.target == SET_MEANS:
        counted, weights = scale.set_weights()
        weights = weights[:, [scale.names.index(name) for name in names]]
    has_matrix = section.table.X is not None or scale.layer is not None
    matrix = read_rows(section, scale.layer, kept) if has_matrix else None
    is_counts = matrix is not None and looks_like_counts(matrix)
    totals = np.asarray(matrix.sum(axis=1)).ravel() if is_counts and matrix is not None else np.full(len(kept), np.nan)
    panel = np.zeros((len(kept), 0))
    if counted and matrix is not None:
        panel = matrix[:, gene_positions(section.table, counted, gene_symbols)].toarray()
    return Measured(
        name=section.name,
        genes=list(names),
        truth=truth,
        residuals=truth,
        counts=panel,
        totals=totals,
        blocks=section_blocks(section.centers[kept]),
        predictions={key: values[filled] for key, values in predictions.items()},
        confidence=None if confidence is None else confidence[filled],
        set_weights=weights,
    )


def section_blocks(centers: np.ndarray) -> np.ndarray:
    """Return the block of each spot, (n_spots,): squares a fifth of the section wide, by (n_spots, 2) centers."""
    across = np.ptp(centers, axis=0).max() if len(centers) else 0.0
    if across == 0:
        return np.zeros(len(centers), dtype=np.intp)
    return spatial_blocks(centers, across / BLOCKS_ACROSS * (1 + 1e-9))


def is_labeled(labels: np.ndarray) -> np.ndarray:
    """Return which spots have a label of the tissue, (n_spots,) bool."""
    return np.array([isinstance(label, str) and label != "undetermined" for label in labels], dtype=bool)


def _counts(section: Section, spots: np.ndarray, scale: Normalization, counts_layer: str | None) -> sp.csr_array:
    layer = counts_layer
    if layer is None and scale.target != "as_is":
        layer = scale.layer
    matrix = read_rows(section, layer, spots)
    if not looks_like_counts(matrix):
        hint = where_counts_may_be(section.table, "counts_layer", layer) or " Pass counts_layer=…."
        msg = (
            f"{'X' if layer is None else f'Layer {layer!r}'} holds no raw counts, which the residual score and the "
            f"reproducibility need.{hint}"
        )
        raise ValueError(msg)
    return matrix
