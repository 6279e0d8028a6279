"""The record of a method under a key of `uns`: written by the tools, read by `get` and `pl`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pandas as pd

from sthisto import __version__
from sthisto._images.patches import PatchSpec
from sthisto._sdata import slots
from sthisto._sdata.expression import Normalization
from sthisto._sdata.slots import prediction
from sthisto._sdata.tables import layer_names
from sthisto._sdata.write import Update, removals, uns_updates
from sthisto._utils.deprecate import METHOD_NAMES, RECORD_KEYS, renamed_keys
from sthisto._utils.validate import listed
from sthisto.metrics import SiblingReference

if TYPE_CHECKING:
    from anndata import AnnData

    from sthisto._sdata.sections import Section
    from sthisto.models import ExpressionModel

_COUNTS_LAYER: Final = "counts_layer"
REFERENCE_LABELS: Final = {"depth": "Depth"}
"""What predictions are compared with and is no method -> what tables and figures call it."""


def method_label(method: str) -> str:
    """Return what tables and figures call a method: its `label`, or its name where it has none or is not installed."""
    from sthisto.models import METHODS

    if method in REFERENCE_LABELS:
        return REFERENCE_LABELS[method]
    cls = METHODS.get(method)
    return method if cls is None else cls.label or method


def predicted_scale(table: AnnData) -> str | None:
    """Return the scale of the predictions in a table, None where it has none or those of several scales."""
    records = [one.get("normalization") for one in table.uns.values() if isinstance(one, Mapping)]
    scales = {str(one["target"]) for one in records if isinstance(one, Mapping) and "target" in one}
    return next(iter(scales)) if len(scales) == 1 else None


def as_keys(key_added: str | Sequence[str]) -> list[str]:
    """Return a list of keys without repeats, whether one is given or several."""
    keys = [key_added] if isinstance(key_added, str) else list(dict.fromkeys(key_added))
    if not keys:
        msg = "`key_added` is empty; name at least one key that sth.tl.predict wrote."
        raise ValueError(msg)
    return keys


@dataclass(frozen=True, eq=False)
class FitRecord:
    """What ``uns[key]`` says of a fit, of what was predicted with it, and of its scores.

    Attributes
    ----------
    method
        Name of the method.
    version
        Version of sthisto that fitted it.
    parameters
        Options of the method, as plain values.
    image_encoder
        Name of the image encoder; "" for a method without one.
    encoder_layer
        Comma-separated names of the encoder's layers whose maps are averaged; "" for its own output.
    patch
        The patches that it was fitted on.
    normalization
        Scale of the expression that it was fitted on, and of its predictions.
    genes_rule
        How the genes were chosen.
    depth_knots
        Knots of the spline of the training spots' log total counts.
    siblings
        Principal components of the training residuals, by which the modeled genes predict each other: column "gene",
        then one per component. None for a fit without counts, or of 0.1.
    gene_symbols
        Column of ``var`` that names the genes; None is ``var_names``.
    confidence_groups
        What was held out of the training spots to tell how unlike new tissue is: "patient", "section" or "block"; ""
        for a method without confidence.
    training_sections
        Names of the sections with training or validation spots.
    history
        One row per epoch: epoch, train_loss, val_loss.
    passport
        The model's passport; None where it has none.
    scores, summary
        What `tl.evaluate` or `tl.cross_validate` wrote; None where neither was called.
    more
        What else a tool wrote: how the prediction was smoothed, which training spots were excluded, and the layer of
        counts that it was evaluated against.
    """

    method: str
    version: str = __version__
    parameters: Mapping[str, Any] = field(default_factory=dict)
    image_encoder: str = ""
    encoder_layer: str = ""
    patch: PatchSpec | None = None
    normalization: Normalization | None = None
    genes_rule: str = ""
    depth_knots: tuple[float, ...] = ()
    siblings: pd.DataFrame | None = None
    gene_symbols: str | None = None
    confidence_groups: str = ""
    training_sections: tuple[str, ...] = ()
    history: pd.DataFrame | None = None
    passport: pd.DataFrame | None = None
    scores: pd.DataFrame | None = None
    summary: pd.DataFrame | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_model(cls, model: ExpressionModel, *, gene_symbols: str | None, **more: Any) -> FitRecord:
        """Return the record of a fitted model."""
        return cls(
            method=model.method,
            parameters={name: _plain(value) for name, value in model.parameters.items()},
            image_encoder=model.encoder.name if model.has_encoder else "",
            encoder_layer=", ".join(model.encoder.layers) if model.has_encoder else "",
            patch=model.patch,
            normalization=Normalization.from_record(model.normalization) if model.normalization else None,
            genes_rule=model.genes_rule,
            depth_knots=model.depth_knots,
            siblings=sibling_table(model.genes, model.siblings),
            gene_symbols=gene_symbols,
            confidence_groups="" if model.familiarity is None else model.familiarity.groups,
            training_sections=model.training_sections,
            history=model.history,
            passport=model.passport,
            more=more,
        )

    @classmethod
    def from_uns(cls, stored: Mapping[str, Any]) -> FitRecord:
        """Return the record that a table holds, in memory or read from disk."""
        kept = ("parameters", "history", "scores", "summary", "siblings", "passport")
        return cls(
            method=str(stored["method"]),
            version=str(stored.get("version", "")),
            image_encoder=str(stored.get("image_encoder", "")),
            encoder_layer=str(stored.get("encoder_layer", "")),
            genes_rule=str(stored.get("genes_rule", "")),
            confidence_groups=str(stored.get("confidence_groups", "")),
            **{name: stored[name] for name in kept if name in stored},
            patch=_read_patch(stored["patch"]) if "patch" in stored else None,
            normalization=Normalization.from_record(stored["normalization"]) if "normalization" in stored else None,
            depth_knots=tuple(float(knot) for knot in stored.get("depth_knots", ())),
            gene_symbols=str(stored.get("gene_symbols", "")) or None,
            training_sections=tuple(str(name) for name in stored.get("training_sections", ())),
            more={name: value for name, value in stored.items() if name not in _FIELDS},
        )

    def to_uns(self) -> dict[str, Any]:
        """Return the record as values that a table holds on disk."""
        values = {name: getattr(self, name) for name in _FIELDS if getattr(self, name) is not None}
        values |= {
            "depth_knots": np.asarray(self.depth_knots, dtype=float),
            "gene_symbols": self.gene_symbols or "",
            **self.more,
        }
        if self.patch is not None:
            values["patch"] = _patch_values(self.patch)
        if self.normalization is not None:
            values["normalization"] = self.normalization.record()
        return values

    def sibling_reference(self, genes: Sequence[str]) -> SiblingReference | None:
        """Return what predicts some of the modeled genes from each other; None where there are no components."""
        if self.siblings is None:
            return None
        components = self.siblings.set_index("gene").loc[list(genes)].to_numpy(dtype=float)
        return SiblingReference(components)

    @property
    def counts_layer(self) -> str | None:
        """Layer of counts that `tl.evaluate` was given; None is the one that was normalized."""
        return str(self.more.get(_COUNTS_LAYER, "")) or None

    def evaluated(self, scores: pd.DataFrame, summary: pd.DataFrame, *, counts_layer: str | None) -> FitRecord:
        """Return the record with scores, and with the layer of counts that they are against."""
        more = {name: value for name, value in self.more.items() if name != _COUNTS_LAYER}
        more |= {} if counts_layer is None else {_COUNTS_LAYER: counts_layer}
        return replace(self, scores=scores, summary=summary, more=more)

    def updates(self, sections: Sequence[Section], key: str) -> list[Update]:
        """Return the updates that write the record into ``uns[key]`` of every table."""
        return uns_updates(sections, key, self.to_uns())


_FIELDS = tuple(one.name for one in fields(FitRecord) if one.name != "more")


def sibling_table(genes: Sequence[str], components: np.ndarray) -> pd.DataFrame | None:
    """Return the (n_genes, n_components) components as a table; None without any."""
    if not components.shape[1]:
        return None
    columns = {f"component_{i}": components[:, i] for i in range(components.shape[1])}
    return pd.DataFrame({"gene": list(genes), **columns})


def _patch_values(patch: PatchSpec) -> dict[str, Any]:
    um_per_px = float("nan") if patch.um_per_px is None else patch.um_per_px
    context = [float(width) for width in patch.context]
    return {"size": patch.size, "um_per_px": um_per_px, "context": context, "dense": patch.dense}


def _read_patch(stored: Mapping[str, Any]) -> PatchSpec:
    um_per_px = float(stored["um_per_px"])
    context = tuple(float(width) for width in stored["context"])
    known = None if np.isnan(um_per_px) else um_per_px
    return PatchSpec(int(stored["size"]), known, context, dense=bool(stored.get("dense", False)))


def read_record(table: AnnData, key: str) -> FitRecord:
    """Return the record under ``uns[key]``, also one that 0.1 wrote.

    Raises
    ------
    KeyError
        There is none; the message lists the keys that have one.
    """
    record = table.uns.get(key)
    if not has_record(table, key):
        raise KeyError(_why_no_record(table, key))
    remedy = f"Predict again to write uns[{key!r}] anew."
    named = renamed_keys(record, RECORD_KEYS, where=f"uns[{key!r}]", remedy=remedy)
    method = str(named["method"])
    return FitRecord.from_uns(named | {"method": METHOD_NAMES.get(method, method)})


def _why_no_record(table: AnnData, key: str) -> str:
    """Return why a key has no record, and what to do: it was lost, is a layer's name, or nothing was predicted."""
    layer = prediction(key)
    if layer in layer_names(table):
        return (
            f"layers[{layer!r}] is there, but uns[{key!r}], which holds its scale and method, is not. Concatenation "
            "drops it by default: pass merge='same', uns_merge='same' to anndata.concat or spatialdata.concatenate, "
            "which keeps what all parts share, or call "
            f"sth.tl.predict(sdata, model, key_added={key!r}) again."
        )
    known = [name for name, value in table.uns.items() if _is_record(value)]
    meant = [name for name in known if key in (prediction(name), slots.prediction_sd(name))]
    if meant:
        return f"key_added={key!r} is the name of a layer. Pass the key that it was predicted under: {meant[0]!r}."
    return (
        f"Nothing was predicted under key_added={key!r}; keys with predictions: {listed(known)}. "
        f"Call sth.tl.predict(sdata, model, key_added={key!r}) first."
    )


def read_part(
    table: AnnData, key: str, part: Literal["history", "scores", "summary", "passport"], *, call: str
) -> pd.DataFrame:
    """Return a table of the record under a key; raise KeyError naming the `call` that writes it when it is missing."""
    found: pd.DataFrame | None = getattr(read_record(table, key), part)
    if found is None:
        msg = f"uns[{key!r}] holds no {part!r}. Call {call} first."
        raise KeyError(msg)
    return found


def read_normalization(table: AnnData, key: str) -> Normalization:
    """Return the scale of what was predicted under a key; raise KeyError where nothing was."""
    found = read_record(table, key).normalization
    if found is None:
        msg = f"uns[{key!r}] names no scale. Call sth.tl.predict(sdata, model, key_added={key!r}) first."
        raise KeyError(msg)
    return found


def method_labels(tables: Sequence[AnnData], keys: Sequence[str]) -> dict[str, str]:
    """Return how each key is called in a picture: its method's name, with the key where a method repeats."""
    methods = {}
    for key in keys:
        table = next((one for one in tables if has_record(one, key)), tables[0])
        methods[key] = method_label(read_record(table, key).method)
    names = list(methods.values())
    return {key: f"{name} ({key})" if names.count(name) > 1 else name for key, name in methods.items()}


def symbols_of(table: AnnData, key: str) -> str | None:
    """Return the column of `var` that names the genes of a prediction; None is `var_names`, also without a record."""
    return read_record(table, key).gene_symbols if has_record(table, key) else None


def check_predicted(table: AnnData, key: str) -> None:
    """Raise KeyError unless the table has the predictions of `key`, with or without a record."""
    if prediction(key) not in layer_names(table) and prediction(key) not in table.obsm:
        read_record(table, key)
        msg = (
            f"The table has no layer {prediction(key)!r}; its layers: {listed(layer_names(table))}. "
            f"Call sth.tl.predict(sdata, model, key_added={key!r}) first."
        )
        raise KeyError(msg)


def has_record(table: AnnData, key: str) -> bool:
    """Return whether anything was predicted under a key."""
    return _is_record(table.uns.get(key))


def _is_record(value: Any) -> bool:
    return isinstance(value, Mapping) and "method" in value


def record_updates(
    sections: Sequence[Section], model: ExpressionModel, *, key_added: str, gene_symbols: str | None, **more: Any
) -> list[Update]:
    """Return the updates that write what is known of a model into ``uns[key_added]``."""
    return FitRecord.of_model(model, gene_symbols=gene_symbols, **more).updates(sections, key_added)


def removed_results(sections: Sequence[Section], key_added: str) -> list[Update]:
    """Return the updates that remove what was predicted and scored under a key, so that two models never mix."""
    predicted = [of(key_added) for of in (slots.prediction, slots.prediction_sd, slots.low, slots.high)]
    return [
        *removals(sections, "layers", predicted),
        *removals(sections, "obsm", predicted),
        *removals(sections, "obs", [slots.confidence(key_added), slots.seen(key_added)]),
        *removals(sections, "var", [slots.score(key_added, metric) for metric in (*slots.SCORES, slots.CEILING)]),
        *removals(sections, "var", [slots.verdict(key_added)]),
    ]


def removed_embeddings(sections: Sequence[Section], key_added: str) -> list[Update]:
    """Return the updates that remove the embeddings under a key."""
    return removals(sections, "obsm", [slots.image_embedding(key_added), slots.gene_embedding(key_added)])


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
