"""Score predictions against the measured expression, beside what depth alone and the genes' siblings score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from sthisto._scoring.intervals import INTERVAL, Scope, intervals, with_intervals
from sthisto._scoring.measure import Measured
from sthisto._scoring.score import FEWEST_SCORED, ScoreOptions, score_genes
from sthisto._scoring.selective import GAIN, RISK_COVERAGE, confidence_gain, risk_coverage
from sthisto._scoring.summary import gene_means, gene_sets, summarize
from sthisto._sdata import slots
from sthisto._sdata.expression import Target
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import read_sections
from sthisto._sdata.write import Update, apply, var_updates
from sthisto._utils.arguments import PREDICTION, checked
from sthisto._utils.checks import choice
from sthisto._utils.logging import logger
from sthisto.tl._to_score import ToScore, check_scale, given, given_updates, stored

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@checked(target=choice("log1p", "pearson_residuals", "as_is"), prediction=PREDICTION)
def evaluate(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    prediction: str | AnnData | None = None,
    target: Target | None = None,
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
    prediction
        Somebody else's prediction of these spots: "layer:NAME" of the measured table, "table:NAME" of the SpatialData,
        or an AnnData, as `io.read_prediction` reads it from a file. Genes are matched by symbol or Ensembl id
        (``var["gene_ids"]`` and the like), spots by name or by the nearest place in ``obsm["spatial"]`` (px of the full
        resolution) within half a pitch; ``obs["section"]`` names the section where there are several. Other spots stay
        NaN, with a warning. None: what `tl.predict` wrote under `key_added`.
    target
        Scale of that prediction: "log1p" (counts scaled to 10,000 over all genes, then log(1 + x)),
        "pearson_residuals", or "as_is", the scale of X. None: log1p, refused where the values tell that they
        are on another scale.
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
        The key that `tl.predict` wrote under; with `prediction`, the key to write that and its scores under.

    Returns
    -------
    None. Writes into ``var``, one value a gene, the mean over sections, NaN where it has none:
    ``"{key_added}_pcc"`` (Pearson on the scale of the model), ``"{key_added}_pcc_residual"`` (Pearson against the
    measured Pearson residuals; the primary score), ``"{key_added}_sibling"`` (what the other genes measured in the same
    spot predict of it: a fair reference for the residual score), ``"{key_added}_reproducibility"`` (what a second
    sequencing of the same spots would reach, no target for an image; NaN where its interval includes zero; until 0.3
    also as ``"{key_added}_ceiling"``, its old name). Into ``uns["{key_added}"]``: "scores", one row a section and gene,
    and "summary", one row a section and set of genes, with an interval at 95 % of the mean residual score, which holds
    for further tissue like this and not for new patients; `get.scores` reads them. Their column "confidence_gain" is
    what the residual score gains as the least confident spots are left out: its mean over the most confident 90, 80, …
    30 % of the spots, less that of all; `pl.risk_coverage` draws the curve. Spots without counts, and sections of fewer
    than three spots to score, are left out. Sets of genes and cell types, which are no rows of ``var``, have their
    scores in ``uns`` alone; ``pcc`` and ``pcc_residual`` are both against what was learned: the mean of the residuals
    of a set, or the proportion.

    With `prediction`, ``layers["{key_added}_pred"]``, ``var["{key_added}_gene"]``, ``obs["{key_added}_seen"]`` and the
    record in ``uns["{key_added}"]`` are written as `tl.predict` writes them, so that `get` and `pl` read them. Its
    sibling and depth references come from the spots marked "train" or "val", without a split from the other sections.

    Raises
    ------
    KeyError
        There is no prediction under `key_added`, no such layer or table, or no gene of `prediction` was measured.
    ValueError
        No section has three spots to score, a spot to score was trained on, or there are no raw counts. `prediction` is
        on another scale, which the message names; none of its spots was measured; its places fit with x and y swapped,
        in µm or shifted; or genes or spots repeat in it.

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

    A prediction from elsewhere:

    >>> theirs = sth.get.anndata(sdata)  # or sth.io.read_prediction("theirs.h5ad")
    >>> sth.tl.evaluate(sdata, prediction=theirs, key_added="theirs")
    """
    keys = ElementKeys(image_key, shapes_key, table_key, coordinate_system)
    sections = read_sections(sdata, keys)
    if prediction is None:
        parts, updates = [stored(section, key_added) for section in sections], []
    else:
        parts = given(
            sdata,
            sections,
            prediction,
            keys=keys,
            key_added=key_added,
            counts_layer=counts_layer,
            target=target,
            seed=seed,
        )
        updates = given_updates(parts, key_added)
    measured = _measured(parts, key_added, counts_layer)
    if not all(part.is_scale_known for part in parts):
        check_scale([one for _, one in measured], key_added)
    scores, curves, found = [], [], []
    for part, one in measured:
        options = ScoreOptions(part.record.depth_knots, n_splits, seed, part.siblings)
        table = score_genes(one, key_added, options)
        split = slots.TEST if slots.SPLIT in part.section.table.obs else "none"
        table.insert(table.columns.get_loc("mean_expression"), "split", split)
        table[GAIN] = confidence_gain(one, one.predictions[key_added], one.confidence)
        scores.append(table)
        curves.append(risk_coverage(one, key_added))
        found += _intervals(one, table, n_boot=n_boot, seed=seed) if n_boot else []
    table, curve = (pd.concat(some, ignore_index=True) for some in (scores, curves))
    _write(parts, updates, table, curve, found, key_added, counts_layer)


def _measured(parts: Sequence[ToScore], key: str, counts_layer: str | None) -> list[tuple[ToScore, Measured]]:
    """Return what was measured and predicted in the sections that have at least three spots to score.

    Raises
    ------
    ValueError
        None has.
    """
    found, too_few = [], 0
    for part in parts:
        if not len(part.scored_spots()):
            continue
        one = part.measured(key, counts_layer)
        if len(one) >= FEWEST_SCORED:
            found.append((part, one))
        elif len(one):
            too_few += len(one)
            logger.warning("Only %d spots of %r can be scored: they are left out.", len(one), part.section.name)
        else:
            logger.warning("No spot to score in section %r has any count: it is left out.", part.section.name)
    if not found and too_few:
        msg = (
            f"Only {too_few} spots can be scored, and a correlation needs at least {FEWEST_SCORED} in a section. Mark "
            f"more spots 'test' in obs[{slots.SPLIT!r}] (sth.pp.split), or predict more of them."
        )
        raise ValueError(msg)
    if not found:
        msg = (
            f"No spot can be scored: none is both predicted under {key!r} and marked 'test' in "
            f"obs[{slots.SPLIT!r}]. Predict the test sections, or call sth.pp.split before sth.tl.fit."
        )
        raise ValueError(msg)
    return found


def _write(
    parts: Sequence[ToScore],
    updates: Sequence[Update],
    scores: pd.DataFrame,
    curve: pd.DataFrame,
    found: Sequence[dict[str, Any]],
    key: str,
    counts_layer: str | None,
) -> None:
    """Write scores, summary and scores by confidence into every table's record, and the genes' means into ``var``."""
    by_gene, summary = gene_means(scores, slots.SCORES), with_intervals(summarize(scores), found)
    by_gene[slots.CEILING] = by_gene["reproducibility"]
    updates = list(updates)
    for part in {id(part.section.table): part for part in parts}.values():
        sections = [part.section]
        record = part.record.evaluated(scores, summary, counts_layer=counts_layer)
        more = {name: value for name, value in record.more.items() if name != RISK_COVERAGE}
        more |= {RISK_COVERAGE: curve} if len(curve) else {}
        updates += replace(record, more=more).updates(sections, key)
        if record.normalization is not None and record.normalization.names:
            continue
        for metric in (*slots.SCORES, slots.CEILING):
            updates += var_updates(
                sections,
                slots.score(key, metric),
                by_gene[metric].to_numpy(),
                genes=list(by_gene.index),
                gene_symbols=part.record.gene_symbols,
            )
    apply(updates)


def _intervals(one: Measured, scores: pd.DataFrame, *, n_boot: int, seed: int) -> list[dict[str, Any]]:
    """Return the interval of the mean residual score over each set of genes; none for a constant prediction."""
    rows = []
    for genes, at in gene_sets(scores["mean_expression"].to_numpy()).items():
        found = intervals(Scope(one.name, [one]), [at], one.predictions, n_boot=n_boot, seed=seed)
        for interval in found.values():
            limits = dict(zip(INTERVAL, (interval.low, interval.high), strict=True))
            rows.append({"section": one.name, "genes": genes, **limits})
    return rows
