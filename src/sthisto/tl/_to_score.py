"""What `evaluate` scores: predictions that `tl.predict` stored, or somebody else's brought to the same form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from sthisto._scoring.measure import Measured, measure
from sthisto._scoring.scale import doubt, other_scale, refusal
from sthisto._sdata import slots
from sthisto._sdata.expression import Normalization, Target
from sthisto._sdata.given import Given, read_given
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.new_tables import check_layer_memory
from sthisto._sdata.predictions import predicted_names, predicted_values
from sthisto._sdata.record import (
    FitRecord,
    method_label,
    read_record,
    removed_embeddings,
    removed_results,
    sibling_table,
)
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.tables import layer_names, read_rows
from sthisto._sdata.training import depth_knots, sibling_components
from sthisto._sdata.write import Update, check_slot, layer_updates, obs_updates, var_updates
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key
from sthisto.metrics import SiblingReference

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

_CALL = "sth.tl.predict(sdata, model)"
_MOST_SIBLINGS: Final = 5_000
"""Genes beyond which the components of the sibling reference are not computed: their covariance would be too large."""


@dataclass(frozen=True, eq=False)
class ToScore:
    """A section with its prediction.

    Attributes
    ----------
    section
        The section.
    genes
        (n_genes,) the predicted genes.
    values
        (n_spots, n_genes) prediction for every spot of the section, NaN where there is none.
    is_seen
        (n_spots,) bool, the spots that the model was trained on.
    record
        What is known of the prediction.
    siblings
        Components of training residuals, by which the genes predict each other; None where there are none.
    is_scale_known
        Whether the record's scale was stated, by the caller or by the model; else the values must not contradict it.
    confidence
        (n_spots,) confidence of the prediction; None without one.
    """

    section: Section
    genes: list[str]
    values: np.ndarray
    is_seen: np.ndarray
    record: FitRecord
    siblings: SiblingReference | None
    is_scale_known: bool = True
    confidence: np.ndarray | None = None

    def scored_spots(self) -> np.ndarray:
        """Return the positions in the section of the spots that are scored, (n_scored,).

        Raises
        ------
        ValueError
            A spot that the model was trained on is among them.
        """
        scored = is_test(self.section) & np.isfinite(self.values).all(axis=1)
        if (self.is_seen & scored).any():
            msg = (
                f"The model was trained on {(self.is_seen & scored).sum()} of the spots to score in section "
                f"{self.section.name!r}: a score on them says nothing. Split before fitting (sth.pp.split), or "
                "evaluate other sections with shapes_key=…"
            )
            raise ValueError(msg)
        return np.flatnonzero(scored)

    def measured(self, key: str, counts_layer: str | None) -> Measured:
        """Return what was measured and predicted on the scored spots that have counts, possibly none."""
        spots = self.scored_spots()
        return measure(
            self.section,
            self.genes,
            {key: self.values[spots]},
            spots=spots,
            normalization=self.record.normalization,
            counts_layer=counts_layer,
            gene_symbols=self.record.gene_symbols,
            confidence=None if self.confidence is None else self.confidence[spots],
        )


def is_test(section: Section) -> np.ndarray:
    """Return which spots of a section are scored where they are predicted, (n_spots,) bool: all without a split."""
    obs = section.table.obs.iloc[section.rows]
    if slots.SPLIT not in obs:
        return np.ones(len(section), dtype=bool)
    return np.asarray(obs[slots.SPLIT].eq(slots.TEST))


def counts_scale(counts_layer: str | None) -> Normalization:
    """Return the scale that predictions of other tools are compared on: log1p of the counts in a layer."""
    return Normalization("log1p", counts_layer)


def stored(section: Section, key: str) -> ToScore:
    """Return what `tl.predict` wrote under a key.

    Raises
    ------
    KeyError
        There is no prediction.
    ValueError
        The table holds the prediction alone, as one that `tl.predict(new_table_key=…)` made.
    """
    table, layer = section.table, slots.prediction(key)
    remedy = f"Call {_CALL} first."
    record = read_record(table, key)
    known = [*layer_names(table), *table.obsm]
    check_key(layer, known, name="key_added", where="the layers of the table", remedy=remedy)
    genes = predicted_names(table, key, record.gene_symbols)
    values = predicted_values(table, key, layer, genes, rows=section.rows, gene_symbols=record.gene_symbols)
    _check_not_alone(section, values)
    is_seen = table.obs[slots.seen(key)].to_numpy(dtype=bool)[section.rows]
    name = slots.confidence(key)
    confidence = table.obs[name].to_numpy(dtype=float)[section.rows] if name in table.obs else None
    siblings = record.sibling_reference(genes)
    return ToScore(section, genes, values, is_seen, record, siblings, confidence=confidence)


def _check_not_alone(section: Section, values: np.ndarray) -> None:
    """Raise ValueError where X is the prediction, (n_spots, n_genes), itself."""
    table = section.table
    if table.X is None or table.n_vars != values.shape[1] or not len(section):
        return
    if np.array_equal(read_rows(section, None, np.arange(1)).toarray(), values[:1]) and values[0].any():
        msg = (
            f"X of table {section.table_key!r} is the prediction itself, so nothing was measured there and there is "
            "nothing to score. Pass table_key=… with the table of measured expression, after tl.predict without "
            "new_table_key=…."
        )
        raise ValueError(msg)


def given(
    sdata: SpatialData | Sequence[SpatialData],
    sections: Sequence[Section],
    prediction: str | AnnData,
    *,
    keys: ElementKeys,
    key_added: str,
    counts_layer: str | None,
    target: Target | None,
    seed: int,
) -> list[ToScore]:
    """Return somebody's prediction, with depth and siblings of the training spots, or of the other sections.

    Raises
    ------
    KeyError, TypeError, ValueError
        As for `read_given`, or a slot must not be written.
    """
    for section in sections:
        check_slot(section.table, "uns", key_added)
    found = read_given(sdata, sections, prediction)
    check_layer_memory([one.section for one in found.sections], len(found.genes))
    _tell_of_replaced(found, key_added)
    is_known = target is not None or found.normalization is not None
    scale = _scale(found, target, counts_layer)
    counts = counts_scale(scale.layer if counts_layer is None else counts_layer)
    members = [one.section for one in found.sections]
    siblings, references = references_of(sdata, sections, keys, counts, found.genes, seed, of=members)
    name, rule = _name(found.name), slots.GENES_OF_PREDICTION
    records = [
        replace(one, method=name, normalization=scale, genes_rule=rule, more={slots.GIVEN: True}) for one in references
    ]
    return [
        ToScore(one.section, found.genes, one.values, one.is_seen, records[i], siblings[i], is_known)
        for i, one in enumerate(found.sections)
    ]


def references_of(
    sdata: SpatialData | Sequence[SpatialData],
    sections: Sequence[Section],
    keys: ElementKeys,
    counts: Normalization,
    genes: Sequence[str],
    seed: int,
    *,
    of: Sequence[Section] | None = None,
) -> tuple[list[SiblingReference | None], list[FitRecord]]:
    """Return siblings and depth of the training spots, for each section; without a split, of the other sections.

    Parameters
    ----------
    sections
        The sections that may serve where there is no split.
    counts
        Names the layer of counts.
    of
        The sections to return them for. None: all of `sections`.

    Returns
    -------
    Components by which the genes predict each other, None where there are none, and records with these and the knots
    of the depth.
    """
    wanted = sections if of is None else of
    trained = _training_sections(sdata, sections, keys)
    if trained:
        records = [_references(trained, counts, genes, seed)] * len(wanted)
    else:
        others = [[section for section in sections if section is not one] for one in wanted]
        records = [_references(part, counts, genes, seed) if part else FitRecord("") for part in others]
        if not all(others):
            logger.warning(
                "No spot is marked 'train' in obs[%r] and there is no other section: what sibling genes predict stays "
                "NaN.",
                slots.SPLIT,
            )
    return [record.sibling_reference(genes) for record in records], records


def check_scale(measured: Sequence[Measured], key: str) -> None:
    """Raise ValueError for a prediction that is on another scale than log1p; warn of one that is odd on that scale."""
    prediction, counts, totals = (
        np.concatenate(parts)
        for parts in zip(*((one.predictions[key], one.counts, one.totals) for one in measured), strict=True)
    )
    if (scale := other_scale(prediction, counts, totals)) is not None:
        raise ValueError(refusal(scale))
    if found := doubt(prediction, counts, totals):
        logger.warning("Prediction %r: %s", key, found)


def given_updates(parts: Sequence[ToScore], key_added: str) -> list[Update]:
    """Return the updates that store somebody's prediction as `tl.predict` stores a model's."""
    sections, genes = [part.section for part in parts], parts[0].genes
    return [
        *removed_embeddings(sections, key_added),
        *removed_results(sections, key_added),
        *layer_updates(sections, slots.prediction(key_added), [part.values for part in parts], genes=genes),
        *obs_updates(sections, slots.seen(key_added), [part.is_seen for part in parts]),
        *var_updates(sections, slots.modeled_gene(key_added), np.ones(len(genes), dtype=bool), genes=genes),
    ]


def _name(name: str) -> str:
    """Return a name that is none of a method of sthisto's, so that no figure takes it for that."""
    return name if method_label(name) == name and not _is_method(name) else f"{name} (given)"


def _is_method(name: str) -> bool:
    from sthisto.models import METHODS

    return name in METHODS


def _scale(found: Given, target: Target | None, counts_layer: str | None) -> Normalization:
    if target is None and found.normalization is not None:
        return found.normalization
    return Normalization(target or "log1p", None if target == "as_is" else counts_layer)


def _tell_of_replaced(found: Given, key: str) -> None:
    table = found.sections[0].section.table
    if key in table.uns and not read_record(table, key).more.get(slots.GIVEN, False):
        logger.warning(
            "What was predicted under key_added=%r is replaced by the prediction %r. Another key_added=… keeps it.",
            key,
            found.name,
        )


def _training_sections(
    sdata: SpatialData | Sequence[SpatialData], sections: Sequence[Section], keys: ElementKeys
) -> list[Section]:
    """Return the sections with training or validation spots, whether they are scored or not."""
    if not any(slots.SPLIT in section.table.obs for section in sections):
        return []
    every = sections if keys.shapes_key is None else read_sections(sdata, replace(keys, shapes_key=None))
    return [section for section in every if np.isin(_role(section), slots.FITTED).any()]


def _role(section: Section) -> np.ndarray:
    """Return (n_spots,) roles; without a split, every spot is a training spot of other sections."""
    obs = section.table.obs.iloc[section.rows]
    if slots.SPLIT not in obs:
        return np.full(len(section), slots.TRAIN)
    return obs[slots.SPLIT].astype(str).to_numpy()


def _references(sections: Sequence[Section], counts: Normalization, genes: Sequence[str], seed: int) -> FitRecord:
    """Return a record with the knots of the depth, and the components by which sibling genes predict each other."""
    roles = [_role(section) for section in sections]
    knots = depth_knots(sections, roles, counts)
    if len(genes) > _MOST_SIBLINGS:
        logger.warning("%d genes are too many for the sibling reference, which stays NaN.", len(genes))
        return FitRecord("", depth_knots=knots)
    components = sibling_components(sections, roles, counts, genes=genes, gene_symbols=None, seed=seed)
    return FitRecord("", depth_knots=knots, siblings=sibling_table(genes, components))
