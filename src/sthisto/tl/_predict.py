"""Predict the expression of spots from their image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sthisto._sdata import slots
from sthisto._sdata.features import for_encoder
from sthisto._sdata.inputs import section_input
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.new_tables import check_layer_memory, check_no_table, new_tables
from sthisto._sdata.predictions import prediction_updates
from sthisto._sdata.record import record_updates, removed_results
from sthisto._sdata.sections import Section, as_cohort, read_sections
from sthisto._sdata.tables import gene_names
from sthisto._sdata.write import Update, apply, check_slot, obs_updates, removals, var_updates
from sthisto._utils.arguments import checked
from sthisto._utils.logging import logger
from sthisto._utils.validate import listed
from sthisto.models import ExpressionModel, Prediction
from sthisto.models.conformal import HOLDS_FOR, NOT_CALIBRATED, fewest_groups
from sthisto.models.data import Exclude
from sthisto.models.familiarity import UNLIKE
from sthisto.models.given import given_model
from sthisto.models.parallel import map_over_devices
from sthisto.models.passport import chosen_genes, model_verdicts
from sthisto.models.smoothing import smooth_expression, variance_kept
from sthisto.models.torch_state import plain_torch

if TYPE_CHECKING:
    from spatialdata import SpatialData


_WEAKEST_FIRST = ("", "none", "spot", "section")
_MOST = 0.5
"""Share of a section's spots that look unlike the training spots above which `predict` warns."""


@checked()
@plain_torch()
def predict(
    sdata: SpatialData | Sequence[SpatialData],
    model: ExpressionModel | str | Path,
    *,
    genes: str | Sequence[str] = "all",
    min_score: float | None = None,
    exclude: Exclude | None = None,
    smooth: float = 0.0,
    interval: float | None = None,
    new_table_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
    gene_symbols: str | None = None,
    key_added: str = slots.KEY,
) -> None:
    """Predict the expression of every spot from its image patch.

    Only the images of `sdata` are used, not its expression. A warning names sections most of which look unlike what the
    model was trained on: spots with a confidence below 0.05.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    model
        Model from `tl.fit` or `models.load`, or the path of a saved one. Sections with another resolution
        than the model's are resampled.
    genes
        "all", "use" for those with the verdict "use" in the model's passport (see `tl.assess`), or names of genes. The
        other genes of the model are NaN.
    min_score
        Least residual score in the passport, ``pcc_residual``; genes below it are NaN. None: no bar.
    exclude
        Training spots that a spot may not retrieve, for methods that retrieve: those of the same "section", the "spot"
        itself, or "none". None: "section" if the model was trained on other sections too, else "spot", with a warning.
        Spots and sections are recognized by their pixels.
    smooth
        Weight of the mean prediction of the neighboring spots, 0 to 1: 0 leaves predictions unchanged, 0.5 averages
        both. The share of the variance over spots that is left is recorded as "smooth_variance_kept".
    interval
        Share of the measured values that intervals are to cover, such as 0.9, for models that were fitted with spots
        marked "calibration". None: no intervals.
    new_table_key
        Name of a new table with the modeled genes only, instead of a layer over all genes of the table. Use it if the
        table is wide or lacks the genes.
    image_key
        H&E image, or a mapping from region to image. None: inferred if there is exactly one candidate; of several RGB
        images of one place, the finest.
    shapes_key
        Region or regions to use, shapes or labels. None: all regions that the table annotates.
    table_key
        Table that annotates the regions. None: inferred if there is exactly one.
    coordinate_system
        Coordinate system in which images and regions are aligned. None: inferred from those that both share.
    um_per_px
        µm per px of the images' full resolution, or a mapping from region to it. None: taken from the data where it is
        known.
    gene_symbols
        Column of ``var`` with the gene names. None: ``var_names``.
    key_added
        Prefix of the written slots.

    Returns
    -------
    None. Writes, on the scale given by ``uns["{key_added}"]["normalization"]``: ``layers["{key_added}_pred"]`` and, for
    methods that average training spots, ``layers["{key_added}_pred_sd"]`` (their standard deviation), both (n_obs,
    n_vars) float32, NaN for spots and genes without a prediction. For all methods that look at the image also
    ``obs["{key_added}_confidence"]``: 0 to 1, 0.5 for a spot as unlike the training spots as half of the spots of a
    held-out training patient (section, block: see "confidence_groups" in ``uns``); NaN where it cannot be told, as with
    models saved by 0.1. With `interval` also ``layers["{key_added}_low"]`` and ``layers["{key_added}_high"]``;
    "interval_holds_for" in ``uns`` is "new patients" where they were calibrated on enough patients (9 for 0.9), else
    "same patients". Also ``obs["{key_added}_seen"]`` (the model was trained on the spot), ``var["{key_added}_gene"]``
    (the gene is predicted), ``var["{key_added}_verdict"]`` (the passport's verdict on each gene of the model, "not
    assessed" without a passport, "" for genes that the model does not have) and ``uns["{key_added}"]``, whose
    "excluded" is the weakest rule used for any section and whose "passport" is the model's. Existing results under the
    key are removed. A model of sets of genes or of cell types writes ``obsm["{key_added}_pred"]`` (and ``…_pred_sd``,
    ``…_low``, ``…_high``) instead of layers, with their names in ``uns["{key_added}"]["normalization"]["targets"]``;
    `get.predictions` reads both. With `new_table_key`, the same slots of ``sdata.tables[new_table_key]``, whose X is
    the prediction.

    Raises
    ------
    KeyError
        An element is missing, a modeled gene is not in the table, or one of `genes` is none of the model's.
    ValueError
        `genes` or `min_score` needs a passport and the model has none, or no gene is left; `smooth` is not between 0
        and 1; `interval` is asked for together with it, or of a model with no or too few calibration spots; an element
        is ambiguous, `new_table_key` exists, or every training spot that could be retrieved is excluded.
    MemoryError
        A layer over all genes of the table does not fit into the free memory.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> model = sth.tl.fit(sdata, method="color")
    >>> sth.tl.predict(sdata, model)
    """
    fitted = given_model(model)
    chosen = chosen_genes(fitted, genes, min_score)
    sections = for_encoder(
        read_sections(sdata, ElementKeys(image_key, shapes_key, table_key, coordinate_system, um_per_px)),
        fitted.encoder if fitted.has_encoder else None,
    )
    if new_table_key is None:
        for section in sections:
            check_slot(section.table, "uns", key_added)
        _check_genes(sections, fitted, gene_symbols)
        if not _in_obsm(fitted):
            check_layer_memory(sections, len(fitted.genes))
    else:
        check_no_table(as_cohort(sdata), new_table_key)
    held_for = _check_interval(fitted, interval, smooth)
    predictions = map_over_devices(
        fitted, sections, lambda own, section: own.predict(section_input(section, own.patch), exclude=exclude)
    )
    _warn_of_unlike(sections, predictions, fitted)
    more: dict[str, Any] = {
        "excluded": min((prediction.excluded for prediction in predictions), key=_WEAKEST_FIRST.index)
    }
    if smooth:
        predictions, kept = _smoothed(predictions, sections, smooth)
        more |= {"smooth": smooth, "smooth_variance_kept": kept}
    bounds = _bounds(fitted, predictions, interval, chosen)
    if interval is not None:
        more |= {slots.INTERVAL: interval, slots.INTERVAL_HOLDS_FOR: held_for}
    predictions = [_only(prediction, chosen) for prediction in predictions]
    if new_table_key is None:
        apply(
            [
                *removed_results(sections, key_added),
                *slot_updates(
                    sections,
                    predictions,
                    fitted,
                    chosen=chosen,
                    bounds=bounds,
                    key_added=key_added,
                    gene_symbols=gene_symbols,
                    in_obsm=_in_obsm(fitted),
                ),
                *record_updates(sections, fitted, key_added=key_added, gene_symbols=gene_symbols, **more),
            ]
        )
        return
    expression = [prediction.expression for prediction in predictions]
    tables, new_sections = new_tables(as_cohort(sdata), sections, expression, fitted.genes, new_table_key)
    apply(
        [
            *slot_updates(
                new_sections,
                predictions,
                fitted,
                chosen=chosen,
                bounds=bounds,
                key_added=key_added,
                gene_symbols=None,
            ),
            *record_updates(
                new_sections, fitted, key_added=key_added, gene_symbols=None, holds_measurement=False, **more
            ),
            *tables,
        ]
    )


def _check_interval(model: ExpressionModel, interval: float | None, smooth: float) -> str:
    """Return whose tissue the intervals hold for, "" without any; raise ValueError where the model cannot give them."""
    if interval is None:
        return ""
    if smooth:
        msg = f"`interval` is for predictions as the model gives them, found smooth={smooth}. Leave one of them out."
        raise ValueError(msg)
    if model.calibration is None:
        raise ValueError(NOT_CALIBRATED)
    holds_for = HOLDS_FOR[model.calibration.groups_for(interval)]
    if holds_for != HOLDS_FOR["patient"]:
        logger.warning(
            "There are fewer than %d calibration patients: intervals are calibrated on spatial blocks and hold for the "
            "patients of the calibration spots, not for new ones.",
            fewest_groups(interval),
        )
    return holds_for


def _bounds(
    model: ExpressionModel, predictions: Sequence[Prediction], interval: float | None, chosen: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return both bounds of each section, (n_spots, n_genes), NaN for genes not chosen; nothing without intervals."""
    if interval is None:
        return []
    found = [model.bounds(prediction, interval) for prediction in predictions]
    for low, high in found:
        low[:, ~chosen] = high[:, ~chosen] = np.nan
    return found


def _warn_of_unlike(sections: Sequence[Section], predictions: Sequence[Prediction], model: ExpressionModel) -> None:
    """Warn of sections most of which look unlike the training spots, and of a model that cannot tell."""
    if model.rates_confidence and model.familiarity is None:
        logger.warning(
            "This model cannot tell how like its training spots a spot looks: it was saved by 0.1, or fitted on a "
            "single spot. The confidence is NaN; fit again to get it."
        )
        return
    for section, prediction in zip(sections, predictions, strict=True):
        known = np.empty(0) if prediction.confidence is None else prediction.confidence
        known = known[np.isfinite(known)]
        if len(known) and (unlike := (known < UNLIKE).mean()) > _MOST:
            logger.warning(
                "%.0f %% of the spots of section %r look unlike what the model was trained on (confidence below %g): "
                "compare tissue, staining, focus and um_per_px with the training sections before using the prediction.",
                100 * unlike,
                section.name,
                UNLIKE,
            )


def _smoothed(
    predictions: Sequence[Prediction], sections: Sequence[Section], share: float
) -> tuple[list[Prediction], float]:
    """Return smoothed predictions, and the share of the variance over spots that is left."""
    before = [prediction.expression for prediction in predictions]
    after = [smooth_expression(x, section.centers, share) for x, section in zip(before, sections, strict=True)]
    smoothed = [replace(prediction, expression=x) for prediction, x in zip(predictions, after, strict=True)]
    return smoothed, variance_kept(before, after)


def _only(prediction: Prediction, chosen: np.ndarray) -> Prediction:
    """Return a prediction that is NaN for the genes that are not chosen, by (n_genes,) bool."""
    if chosen.all():
        return prediction
    sd = None if prediction.sd is None else np.where(chosen, prediction.sd, np.float32(np.nan))
    return replace(prediction, expression=np.where(chosen, prediction.expression, np.float32(np.nan)), sd=sd)


def slot_updates(
    sections: Sequence[Section],
    predictions: Sequence[Prediction],
    model: ExpressionModel,
    *,
    chosen: np.ndarray | None = None,
    key_added: str,
    gene_symbols: str | None,
    bounds: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    in_obsm: bool = False,
) -> list[Update]:
    """Return the updates that write predictions of the chosen genes, (n_genes,) bool, into the sections' tables.

    Parameters
    ----------
    chosen
        (n_genes,) bool, the genes that are predicted; None for all.
    bounds
        Lower and upper bounds, (n_spots, n_genes) each, of every section.
    in_obsm
        Whether what is predicted is no gene of the tables, and is written to ``obsm``.
    """
    genes = model.genes

    def values(slot: str, arrays: Sequence[np.ndarray]) -> list[Update]:
        return prediction_updates(sections, slot, arrays, names=genes, gene_symbols=gene_symbols, in_obsm=in_obsm)

    updates = values(slots.prediction(key_added), [prediction.expression for prediction in predictions])
    sd = [prediction.sd for prediction in predictions if prediction.sd is not None]
    if len(sd) == len(predictions):
        updates += values(slots.prediction_sd(key_added), sd)
    if bounds:
        low, high = zip(*bounds, strict=True)
        updates += values(slots.low(key_added), low)
        updates += values(slots.high(key_added), high)
    confidence = [prediction.confidence for prediction in predictions if prediction.confidence is not None]
    if len(confidence) == len(predictions):
        updates += obs_updates(sections, slots.confidence(key_added), confidence)
    updates += obs_updates(sections, slots.seen(key_added), [prediction.seen for prediction in predictions])
    of_genes = (slots.modeled_gene(key_added), slots.verdict(key_added))
    if in_obsm:
        return updates + removals(sections, "var", of_genes)
    modeled = np.ones(len(genes), dtype=bool) if chosen is None else chosen
    for slot, column in zip(of_genes, (modeled, model_verdicts(model)), strict=True):
        updates += var_updates(sections, slot, column, genes=genes, gene_symbols=gene_symbols)
    return updates


def _in_obsm(model: ExpressionModel) -> bool:
    """Return whether the model predicts something else than genes, which has no place in a layer."""
    return bool(model.normalization.get("targets"))


def _check_genes(sections: Sequence[Section], model: ExpressionModel, gene_symbols: str | None) -> None:
    if _in_obsm(model):
        return
    for section in sections:
        names = gene_names(section.table, gene_symbols)
        missing = [gene for gene in model.genes if gene not in names]
        if missing:
            msg = (
                f"{len(missing)} of the model's {len(model.genes)} genes are not in the table of section "
                f"{section.name!r}: {listed(missing)}. Pass gene_symbols=… if a column of var names them, or "
                "new_table_key=… to write a table of the modeled genes."
            )
            raise KeyError(msg)
