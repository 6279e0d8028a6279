"""Score predictions against the measured expression, beside what depth alone and noise allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from sthisto._scoring.summary import INTERVAL, gene_sets, summarize, with_intervals
from sthisto._sdata import slots
from sthisto._sdata.expression import Normalization, looks_like_counts
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.record import read_normalization, read_record
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.tables import gene_positions, layer_names, modeled_genes, read_rows, where_counts_may_be
from sthisto._sdata.write import apply, uns_updates, var_updates
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key
from sthisto.metrics import (
    DepthSpline,
    bootstrap_pearson,
    depth_pearson,
    noise_ceiling,
    partial_pearson,
    pearson,
    pearson_residuals,
    rmse,
    spatial_blocks,
)

if TYPE_CHECKING:
    from spatialdata import SpatialData

_BLOCKS_ACROSS = 5
_CALL = "sth.tl.predict(sdata, model)"


def evaluate(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    counts_layer: str | None = None,
    n_splits: int = 10,
    n_boot: int = 1000,
    seed: int = 0,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    key_added: str = slots.KEY,
) -> None:
    """Score the prediction of every gene on the test spots.

    With ``obs["sthisto_split"]`` the spots marked "test" are scored, without it all that were predicted. Spots that
    the model was trained on are refused, whatever they are marked.

    Parameters
    ----------
    sdata
        One SpatialData or a list of them, predicted by `tl.predict`.
    counts_layer
        Layer of raw counts, which the scores are against; None is the layer that the model was fitted on, or X where
        that held values taken as they are. These then stay what ``pcc`` is against.
    n_splits
        Random splits of the counts for the noise ceiling.
    n_boot
        Resamples of spatial blocks, a fifth of the section wide, for the intervals of the mean scores; 0 leaves the
        intervals out.
    seed
        Of those splits and resamples.
    image_key
        H&E image, or a mapping from region to image. None: inferred if there is exactly one candidate; of several RGB
        images of one place, the finest.
    shapes_key
        Region or regions to use, shapes or labels. None: all regions that the table annotates.
    table_key
        Table that annotates the regions. None: inferred if there is exactly one.
    coordinate_system
        Coordinate system in which images and regions are aligned. None: inferred from those that both share.
    key_added
        The key that `tl.predict` wrote under.

    Returns
    -------
    None. Writes into ``var``, one value a gene, the mean over sections, NaN where it has none:
    ``"{key_added}_pcc"`` (Pearson on the scale of the model), ``"{key_added}_pcc_residual"`` (Pearson against the
    measured Pearson residuals; the primary score), ``"{key_added}_ceiling"`` (what noise allows the residual score;
    NaN where its interval includes zero). Into ``uns["{key_added}"]``: "scores", one row a section and gene, and
    "summary", one row a section and set of genes, with an interval at 95 % of the mean residual score, which holds
    for further tissue like this and not for new patients; `get.scores` reads them. Spots without counts are not
    scored.

    Raises
    ------
    KeyError
        There is no prediction under `key_added`.
    ValueError
        No spot can be scored, a spot to score was trained on, or there are no raw counts.

    Notes
    -----
    Residuals: Lause et al., Genome Biology 22:258 (2021), doi:10.1186/s13059-021-02451-7. A score is comparable
    only with one on the same target; "depth" is what the spot's total count alone scores.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=3, n_patients=3)
    >>> sth.pp.split(sdata, by="patient", patient_key="patient")
    >>> model = sth.tl.fit(sdata, method="color")
    >>> sth.tl.predict(sdata, model)
    >>> sth.tl.evaluate(sdata)
    """
    sections = read_sections(sdata, ElementKeys(image_key, shapes_key, table_key, coordinate_system))
    scores, intervals = [], []
    for section in sections:
        rows = _scored_rows(section, key_added)
        if len(rows):
            measured = _measured(section, rows, key_added, counts_layer)
            if not len(measured.totals):
                logger.warning("No spot to score in section %r has any count: it is left out.", section.name)
                continue
            scores.append(_score(measured, n_splits=n_splits, seed=seed))
            intervals += _intervals(measured, scores[-1], n_boot=n_boot, seed=seed) if n_boot else []
    if not scores:
        msg = (
            f"No spot can be scored: none is both predicted under {key_added!r} and marked 'test' in "
            f"obs[{slots.SPLIT!r}]. Predict the test sections, or call sth.pp.split before sth.tl.fit."
        )
        raise ValueError(msg)
    table = pd.concat(scores, ignore_index=True)
    by_gene, summary = _by_gene(table), with_intervals(summarize(table), intervals)
    updates = []
    for section in {id(section.table): section for section in sections}.values():
        record = read_record(section.table, key_added)
        updates += uns_updates([section], key_added, {**record, "scores": table, "summary": summary})
        for metric in slots.SCORES:
            updates += var_updates(
                [section],
                slots.score(key_added, metric),
                by_gene[metric].to_numpy(),
                genes=list(by_gene.index),
                gene_symbols=record["gene_symbols"] or None,
            )
    apply(updates)


def _by_gene(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each gene's scores over sections; its ceiling is the root of the mean reliability.

    The ceiling is NaN for a gene that no section has one for: its intervals include zero.
    """
    means = scores.groupby("gene", sort=False)[[*slots.SCORES, "reliability"]].mean()
    ceiling = np.sqrt(means.pop("reliability").clip(lower=0))
    return means.assign(ceiling=ceiling.where(means["ceiling"].notna()))


def _scored_rows(section: Section, key: str) -> np.ndarray:
    """Return the positions in the section of the spots that are scored."""
    table, layer = section.table, slots.prediction(key)
    check_key(
        layer,
        layer_names(table),
        name="key_added",
        where="the layers of the table",
        remedy=f"Call {_CALL} first.",
    )
    obs = table.obs.iloc[section.rows]
    scored = obs[slots.SPLIT].eq(slots.TEST).to_numpy() if slots.SPLIT in obs else np.ones(len(section), dtype=bool)
    genes = table.var[slots.modeled_gene(key)].to_numpy(dtype=bool)
    predicted = np.isfinite(np.asarray(table.layers[layer][section.rows][:, genes])).all(axis=1)
    seen = obs[slots.seen(key)].to_numpy(dtype=bool) & scored & predicted
    if seen.any():
        msg = (
            f"The model was trained on {seen.sum()} of the spots to score in section {section.name!r}: a score on them "
            "says nothing. Split before fitting (sth.pp.split), or evaluate other sections with shapes_key=…"
        )
        raise ValueError(msg)
    return np.flatnonzero(scored & predicted)


@dataclass(frozen=True, eq=False)
class _Measured:
    """What was measured and predicted on the scored spots with counts of a section; arrays are (n_spots, n_genes)."""

    name: str
    split: str
    genes: list[str]
    truth: np.ndarray
    counts: np.ndarray
    residuals: np.ndarray
    prediction: np.ndarray
    totals: np.ndarray
    centers: np.ndarray
    depth_knots: Sequence[float]


def _measured(section: Section, rows: np.ndarray, key: str, counts_layer: str | None) -> _Measured:
    record = read_record(section.table, key)
    normalization = read_normalization(record)
    genes = modeled_genes(section.table, key, record["gene_symbols"] or None)
    columns = gene_positions(section.table, genes, record["gene_symbols"] or None)
    prediction = np.asarray(section.table.layers[slots.prediction(key)][section.rows[rows]][:, columns])
    counts = _counts(section, rows, normalization, counts_layer)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    measured = np.flatnonzero(totals > 0)
    counts, totals = counts[measured], totals[measured]
    panel = counts[:, columns].toarray()
    as_is = normalization.target == "as_is"
    return _Measured(
        name=section.name,
        split=slots.TEST if slots.SPLIT in section.table.obs else "none",
        genes=genes,
        truth=normalization(read_rows(section, normalization.layer, rows[measured]) if as_is else counts, columns),
        counts=panel,
        residuals=pearson_residuals(panel, totals=totals),
        prediction=prediction[measured],
        totals=totals,
        centers=section.centers[rows[measured]],
        depth_knots=record.get("depth_knots", ()),
    )


def _score(one: _Measured, *, n_splits: int, seed: int) -> pd.DataFrame:
    ceiling = noise_ceiling(one.counts, totals=one.totals, n_splits=n_splits, seed=seed)
    return pd.DataFrame(
        {
            "section": one.name,
            "gene": one.genes,
            "n_spots": len(one.totals),
            "split": one.split,
            "mean_expression": one.truth.mean(axis=0).astype(float),
            "pcc": pearson(one.truth, one.prediction),
            "pcc_residual": pearson(one.residuals, one.prediction),
            "pcc_partial_depth": _beyond_depth(one.truth, one.prediction, one.totals, one.depth_knots),
            "rmse": rmse(one.truth, one.prediction),
            "ceiling": ceiling.ceiling,
            "reliability": ceiling.reliability,
            "depth_pcc": depth_pearson(one.truth, one.totals),
            "depth_pcc_residual": depth_pearson(one.residuals, one.totals),
        }
    )


def _intervals(one: _Measured, scores: pd.DataFrame, *, n_boot: int, seed: int) -> list[dict[str, Any]]:
    """Return the interval of the mean residual score over each set of genes; none without two blocks."""
    across = np.ptp(one.centers, axis=0).max()
    if across == 0 or np.ptp(one.prediction, axis=0).max() == 0:
        return []
    blocks = spatial_blocks(one.centers, across / _BLOCKS_ACROSS * (1 + 1e-9))
    found = []
    for genes, chosen in gene_sets(scores).items():
        columns = scores.index.get_indexer(chosen.index)
        predicted = {"": one.prediction[:, columns]}
        interval = bootstrap_pearson(one.residuals[:, columns], predicted, blocks, n_boot=n_boot, seed=seed)[""]
        found.append(
            {"section": one.name, "genes": genes, **dict(zip(INTERVAL, (interval.low, interval.high), strict=True))}
        )
    return found


def _beyond_depth(truth: np.ndarray, prediction: np.ndarray, totals: np.ndarray, knots: Sequence[float]) -> np.ndarray:
    """Return the correlation that is left given a spline of the log total count, its knots from the training spots."""
    if not len(knots):
        return np.full(truth.shape[1], np.nan)
    covariates = DepthSpline(tuple(float(knot) for knot in knots)).transform(np.log(totals))
    return partial_pearson(truth, prediction, covariates)


def _counts(section: Section, rows: np.ndarray, normalization: Normalization, counts_layer: str | None) -> sp.csr_array:
    layer = counts_layer
    if layer is None and normalization.target != "as_is":
        layer = normalization.layer
    matrix = read_rows(section, layer, rows)
    if not looks_like_counts(matrix):
        msg = (
            f"{'X' if layer is None else f'Layer {layer!r}'} holds no raw counts, which the residual score and the "
            f"noise ceiling need. Pass counts_layer=….{where_counts_may_be(section.table)}"
        )
        raise ValueError(msg)
    return matrix
