"""Score predictions against the measured expression, beside what depth alone and the genes' siblings score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sthisto._scoring.intervals import INTERVAL, Scope, intervals, with_intervals
from sthisto._scoring.measure import Measured, measure
from sthisto._scoring.score import ScoreOptions, score_genes
from sthisto._scoring.summary import gene_means, gene_sets, summarize
from sthisto._sdata import slots
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.record import FitRecord, read_record
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.tables import gene_positions, layer_names, modeled_genes
from sthisto._sdata.write import apply, var_updates
from sthisto._utils.arguments import checked
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key

if TYPE_CHECKING:
    from spatialdata import SpatialData

_CALL = "sth.tl.predict(sdata, model)"


@checked()
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
        Random splits of the counts for the reproducibility.
    n_boot
        Resamples of spatial blocks, a fifth of the section wide, for the intervals of the mean scores; 0 leaves the
        intervals out.
    seed
        Seed of these splits and resamples.
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
    measured Pearson residuals; the primary score), ``"{key_added}_sibling"`` (what the other genes measured in the same
    spot predict of it: a fair reference for the residual score), ``"{key_added}_reproducibility"`` (what a second
    sequencing of the same spots would reach, no target for an image; NaN where its interval includes zero; until 0.3
    also as ``"{key_added}_ceiling"``, its old name). Into ``uns["{key_added}"]``: "scores", one row a section and gene,
    and "summary", one row a section and set of genes, with an interval at 95 % of the mean residual score, which holds
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
    scores, found = [], []
    for section in sections:
        record = read_record(section.table, key_added)
        spots = _scored_spots(section, key_added)
        if not len(spots):
            continue
        measured = _measured(section, spots, key_added, record, counts_layer)
        if not len(measured):
            logger.warning("No spot to score in section %r has any count: it is left out.", section.name)
            continue
        part = score_genes(measured, key_added, _options(record, measured, n_splits, seed))
        split = slots.TEST if slots.SPLIT in section.table.obs else "none"
        part.insert(part.columns.get_loc("mean_expression"), "split", split)
        scores.append(part)
        found += _intervals(measured, part, n_boot=n_boot, seed=seed) if n_boot else []
    if not scores:
        msg = (
            f"No spot can be scored: none is both predicted under {key_added!r} and marked 'test' in "
            f"obs[{slots.SPLIT!r}]. Predict the test sections, or call sth.pp.split before sth.tl.fit."
        )
        raise ValueError(msg)
    _write(sections, pd.concat(scores, ignore_index=True), found, key_added, counts_layer)


def _options(record: FitRecord, measured: Measured, n_splits: int, seed: int) -> ScoreOptions:
    return ScoreOptions(record.depth_knots, n_splits, seed, record.sibling_reference(measured.genes))


def _write(
    sections: Sequence[Section],
    scores: pd.DataFrame,
    found: Sequence[dict[str, Any]],
    key: str,
    counts_layer: str | None,
) -> None:
    """Write scores and summary into the record of every table, and the genes' means into its ``var``."""
    by_gene, summary = gene_means(scores, slots.SCORES), with_intervals(summarize(scores), found)
    by_gene[slots.CEILING] = by_gene["reproducibility"]
    updates = []
    for section in {id(section.table): section for section in sections}.values():
        record = read_record(section.table, key)
        updates += record.evaluated(scores, summary, counts_layer=counts_layer).updates([section], key)
        for metric in (*slots.SCORES, slots.CEILING):
            updates += var_updates(
                [section],
                slots.score(key, metric),
                by_gene[metric].to_numpy(),
                genes=list(by_gene.index),
                gene_symbols=record.gene_symbols,
            )
    apply(updates)


def _scored_spots(section: Section, key: str) -> np.ndarray:
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


def _measured(section: Section, spots: np.ndarray, key: str, record: FitRecord, counts_layer: str | None) -> Measured:
    """Read what was measured and predicted under a key on some spots of a section."""
    table = section.table
    genes = modeled_genes(table, key, record.gene_symbols)
    columns = gene_positions(table, genes, record.gene_symbols)
    prediction = np.asarray(table.layers[slots.prediction(key)][section.rows[spots]][:, columns])
    return measure(
        section,
        genes,
        {key: prediction},
        spots=spots,
        normalization=record.normalization,
        counts_layer=counts_layer,
        gene_symbols=record.gene_symbols,
    )


def _intervals(one: Measured, scores: pd.DataFrame, *, n_boot: int, seed: int) -> list[dict[str, Any]]:
    """Return the interval of the mean residual score over each set of genes; none for a constant prediction."""
    rows = []
    for genes, at in gene_sets(scores["mean_expression"].to_numpy()).items():
        found = intervals(Scope(one.name, [one]), [at], one.predictions, n_boot=n_boot, seed=seed)
        for interval in found.values():
            limits = dict(zip(INTERVAL, (interval.low, interval.high), strict=True))
            rows.append({"section": one.name, "genes": genes, **limits})
    return rows
