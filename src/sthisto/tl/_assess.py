"""Assess a model: fit its recipe again with groups held out, and give every gene a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from torch import nn

from sthisto._scoring.measure import Measured, measure
from sthisto._scoring.passport import COLOR, RIDGE, HeldOut, passport_table
from sthisto._scoring.score import FEWEST_SCORED, ScoreOptions
from sthisto._sdata.expression import Normalization
from sthisto._sdata.inputs import seen_width
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import Section, as_cohort, read_sections
from sthisto._sdata.slots import PATIENT
from sthisto._sdata.training import is_known
from sthisto._splits.folds import Fold, make_folds
from sthisto._splits.roles import known_patients, read_patients, read_roles
from sthisto._utils.arguments import checked
from sthisto._utils.logging import logger
from sthisto._utils.validate import listed
from sthisto._utils.verdicts import VERDICTS
from sthisto.metrics import SiblingReference
from sthisto.models import ExpressionModel
from sthisto.models.bundle import save_passport
from sthisto.models.given import given_model
from sthisto.models.recipe import given_features, recipe, untrained_encoder
from sthisto.models.torch_state import plain_torch
from sthisto.tl._fold_run import FoldContext, FoldRun, slots_of_obsm

if TYPE_CHECKING:
    from spatialdata import SpatialData

SECTION: Final = "section"
BLOCK: Final = "block"
_BASELINE: Final = ("genes", "patch_size", "patch_um", "context", "target", "target_sets", "layer")
"""Arguments of the model's fit that its baselines share."""


@dataclass(frozen=True, eq=False)
class _Groups:
    """What is held out: "section", "block" or a column of ``obs``, and the group of each section."""

    by: str
    of_sections: list[str]


@dataclass(frozen=True, eq=False)
class _Runs:
    """A method that is fitted on every fold, with one key of its predictions for each seed."""

    context: FoldContext
    method: str
    options: Mapping[str, Any]
    keys: Sequence[str]

    def predictions(self, fold: Fold, out: Path | None) -> dict[str, dict[str, np.ndarray]]:
        """Return what is predicted on a fold, by key, as `FoldContext.predictions`."""
        runs = {key: FoldRun(fold, self.method, seed, self.options) for seed, key in enumerate(self.keys)}
        return {key: self.context.predictions(run, out) for key, run in runs.items()}


@checked()
@plain_torch()
def assess(
    sdata: SpatialData | Sequence[SpatialData],
    model: ExpressionModel | str | Path,
    *,
    groups: str = PATIENT,
    n_folds: int | None = None,
    seeds: int = 1,
    counts_layer: str | None = None,
    n_boot: int = 500,
    out: str | Path | None = None,
    image_encoder: str | nn.Module | None = None,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
    gene_symbols: str | None = None,
) -> None:
    """Find out which genes of a model can be used: give it a passport with a verdict on every gene.

    The model's recipe (method, options, encoder, genes, patches and scale) is fitted again without each group of its
    training sections in turn, and predicts that group. Held-out groups are patients where there are two or more, else
    sections, else bands of the only section. Test spots of a split take no part. The sets of genes or cell types of a
    model that predicts these are assessed as genes are.

    Parameters
    ----------
    sdata
        The data that the model was fitted on: one SpatialData, or a list of them.
    model
        Model from `tl.fit` or `models.load`, or the path of a saved one.
    groups
        What is held out: a column of ``obs`` with one value a section, such as "patient", "section", or "block" for
        bands across each section. With fewer than two groups (or without the column "patient"), sections are held out,
        and of a single section, bands. The log and the passport's column "groups" name what was.
    n_folds
        Number of folds that the groups are assigned to, for cohorts of many patients. None: one group at a time; 5
        bands.
    seeds
        Number of seeds that the recipe is fitted with, from 0. Scores are means over them.
    counts_layer
        Layer of raw counts, as for `tl.evaluate`.
    n_boot
        Resamples of spatial blocks, a fifth of a section wide, for the sampling variance of scores within a group.
    out
        Folder that keeps each finished fit. The same call goes on after it was killed.
    image_encoder
        The encoder as it was before the fit, for models that trained one that can't be loaded by its name. None: the
        model's.
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

    Returns
    -------
    None. Writes the passport to ``model.passport``, a DataFrame with one row per gene, and into the folder that the
    model was saved to or loaded from (`passport.parquet`, and the model card anew). `get.passport` returns it,
    `pl.passport` draws it, `tl.predict` writes its verdicts. Columns:

    - ``gene``; ``verdict``: "use", "pattern only" or "do not use", by the rules below.
    - ``pcc_residual``: Pearson correlation with the measured Pearson residuals, the mean over held-out groups;
      ``pcc_residual_low``, ``pcc_residual_high``: 90 % interval of the score in a further group.
    - ``gain``: what the score exceeds that of color or depth by, whichever is more; ``gain_low``: lower bound of its
      mean over groups.
    - ``pcc``: Pearson correlation on the model's scale. ``depth``, ``color``, ``ridge``: residual scores of a spot's
      total count, of ridge regression on nine colors of the same patches, and of ridge regression on the features of
      the model's encoder (NaN for a model without one).
    - ``sibling``, ``reproducibility``: references, as `tl.evaluate` computes them.
    - ``n_groups``: held-out groups with a score; ``groups``: what was held out.

    Raises
    ------
    KeyError
        An element, the column `groups` or a gene of the model is missing.
    ValueError
        `sdata` holds none of the sections that the model was trained on, a single section is too small to hold out
        bands of it, there are no raw counts, or the model trained an encoder that can't be loaded.
    TypeError
        `model` is neither a model nor a path.

    Notes
    -----
    Verdicts: "use" if ``pcc_residual_low`` and ``gain_low`` are above 0: the gene is expected to be predicted in a
    further group, and the model knows more of it than depth and color. "pattern only" if ``pcc_residual_low`` alone is:
    the prediction tells regions of the tissue apart, not more than color does. "do not use" otherwise. Where sections
    or blocks of one patient were held out, a verdict says nothing of new patients. The page "Which genes can I trust?"
    shows how often verdicts hold.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=3, n_patients=3)
    >>> model = sth.tl.fit(sdata, method="ridge", image_encoder="texture", n_top_genes=20)
    >>> sth.tl.assess(sdata, model)
    >>> model.passport["verdict"].value_counts()  # doctest: +SKIP
    """
    fitted = given_model(model)
    encoder = untrained_encoder(fitted, image_encoder)
    keys = ElementKeys(image_key, shapes_key, table_key, coordinate_system, um_per_px)
    sections = _training_sections(read_sections(sdata, keys), fitted)
    used = [is_known(role) for role in read_roles(sections)]
    chosen = _groups(sections, groups)
    folds = _folds(sections, used, chosen, n_folds, fitted)
    for section in sections:  # what scores need is there, before anything is fitted
        _measured(section, fitted, {}, None, counts_layer, gene_symbols)
    _say_what_is_held_out(chosen, folds)
    shared = keys.arguments() | {"gene_symbols": gene_symbols}
    runs = _runs(fitted, FoldContext(as_cohort(sdata), sections, encoder, shared, counts_layer), seeds)
    parts = [
        part for fold in folds for part in _held_out(runs, fold, chosen, fitted, None if out is None else Path(out))
    ]
    if not parts:
        msg = "No held-out spot has any count, so there is nothing to assess the model on."
        raise ValueError(msg)
    fitted.passport = passport_table(parts, groups=chosen.by, n_boot=n_boot)
    counts = fitted.passport["verdict"].value_counts()
    found = ", ".join(f"{counts.get(verdict, 0)} {verdict!r}" for verdict in VERDICTS)
    logger.info("Verdicts on %d genes: %s.", len(fitted.passport), found)
    save_passport(fitted)


def _training_sections(sections: Sequence[Section], model: ExpressionModel) -> list[Section]:
    """Return the sections that the model was trained on, by their names; those that are missing are named.

    Raises
    ------
    ValueError
        There is none of them.
    """
    found = [section for section in sections if section.name in model.training_sections]
    if not found:
        msg = (
            f"The model was trained on {listed(model.training_sections)}, and `sdata` holds "
            f"{listed(section.name for section in sections)}. Pass the data that it was fitted on."
        )
        raise ValueError(msg)
    if missing := sorted(set(model.training_sections) - {section.name for section in found}):
        logger.warning("Training sections %s are not in the data: the model is assessed without them.", listed(missing))
    return found


def _groups(sections: Sequence[Section], by: str) -> _Groups:
    """Return what is held out: `by` where it makes two groups or more, else sections, else blocks."""
    names = [section.name for section in sections]
    if by not in (SECTION, BLOCK) and (by != PATIENT or known_patients(sections)):
        of_sections = read_patients(sections, by)
        if len(set(of_sections)) > 1:
            return _Groups(by, of_sections)
    return _Groups(SECTION if by != BLOCK and len(names) > 1 else BLOCK, names)


def _folds(
    sections: Sequence[Section],
    used: Sequence[np.ndarray],
    chosen: _Groups,
    n_folds: int | None,
    model: ExpressionModel,
) -> list[Fold]:
    """Return the folds of the (n_spots,) bool training and validation spots of each section."""
    width = seen_width(sections, {model.method: {**recipe(model), **_options(model)}})
    folds = make_folds(sections, chosen.by, n_folds, None, width, warn=False)
    kept = [
        replace(
            fold,
            train=[spots & own for spots, own in zip(fold.train, used, strict=True)],
            test=[spots & own for spots, own in zip(fold.test, used, strict=True)],
        )
        for fold in folds
    ]
    kept = [fold for fold in kept if any(spots.any() for spots in fold.test)]
    if len(kept) < 2 or not all(any(spots.any() for spots in fold.train) for fold in kept):
        msg = (
            "Training spots make fewer than two groups to hold out. Check obs['sthisto_split'], or pass other groups=…"
        )
        raise ValueError(msg)
    return kept


def _say_what_is_held_out(chosen: _Groups, folds: Sequence[Fold]) -> None:
    names = listed(fold.name for fold in folds)
    if chosen.by in (SECTION, BLOCK):
        logger.warning(
            "Held out by %s, %d folds (%s): verdicts are on tissue of the same patients and say nothing of new ones.",
            chosen.by,
            len(folds),
            names,
        )
    else:
        logger.info("Held out by %s, %d folds: %s.", chosen.by, len(folds), names)


def _options(model: ExpressionModel) -> dict[str, Any]:
    """Return the model's own options, which names of given features do not take the place of."""
    return {name: value for name, value in model.parameters.items() if name in model.option_names()}


def _runs(model: ExpressionModel, context: FoldContext, seeds: int) -> list[_Runs]:
    """Return the model's recipe and its baselines: color, and ridge where there are features."""
    arguments = recipe(model)
    shared = context.arguments | {name: arguments.pop(name) for name in _BASELINE}
    method = arguments.pop("method")
    features = {name: arguments[name] for name in ("features", "dense_features") if name in arguments}
    with_encoder = replace(context, arguments=shared)
    runs = [
        _Runs(with_encoder, method, arguments, [f"seed {seed}" for seed in range(seeds)]),
        _Runs(replace(with_encoder, encoder=None), COLOR, {}, [COLOR]),
    ]
    if model.has_encoder:
        given = {} if given_features(model) is None else {"features": features["features"]}
        runs.append(_Runs(with_encoder, RIDGE, {"dense_features": model.patch.dense, **given}, [RIDGE]))
    return runs


def _held_out(
    runs: Sequence[_Runs], fold: Fold, chosen: _Groups, model: ExpressionModel, out: Path | None
) -> Iterator[HeldOut]:
    """Fit and predict without the held-out spots, and yield what was measured there beside it, section by section."""
    own, context = runs[0], runs[0].context
    predicted = {key: arrays for run in runs for key, arrays in run.predictions(fold, out).items()}
    _, hidden = context.sides(fold, *slots_of_obsm(context.arguments))
    hidden.reveal()
    first = predicted[own.keys[0]]
    siblings = first["siblings"]
    options = ScoreOptions(
        depth_knots=tuple(first["depth_knots"]), siblings=SiblingReference(siblings) if siblings.shape[1] else None
    )
    group_of = dict(zip((section.name for section in context.sections), chosen.of_sections, strict=True))
    for i, section in enumerate(read_sections(hidden.sdata, context.keys(hidden))):
        values = {key: arrays[f"section {i}"] for key, arrays in predicted.items()}
        spots = np.flatnonzero(np.all([np.isfinite(one).all(axis=1) for one in values.values()], axis=0))
        found = {key: one[spots] for key, one in values.items()}
        measured = _measured(section, model, found, spots, context.counts_layer, context.arguments["gene_symbols"])
        name = hidden.names[i]
        if len(measured) < FEWEST_SCORED:
            logger.warning("Only %d spots of %r can be scored: they are left out.", len(measured), name)
            continue
        yield HeldOut(
            fold.name if chosen.by == BLOCK else group_of[name], replace(measured, name=name), options, own.keys
        )


def _measured(
    section: Section,
    model: ExpressionModel,
    predictions: Mapping[str, np.ndarray],
    spots: np.ndarray | None,
    counts_layer: str | None,
    gene_symbols: str | None,
) -> Measured:
    """Read what was measured of the model's genes on some spots and put predictions beside it, as `measure`."""
    return measure(
        section,
        model.genes,
        predictions,
        spots=spots,
        normalization=Normalization.from_record(model.normalization) if model.normalization else None,
        counts_layer=counts_layer,
        gene_symbols=gene_symbols,
    )
