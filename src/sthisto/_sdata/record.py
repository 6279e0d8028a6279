"""The record of a method under a key of `uns`: written by the tools, read by `get` and `pl`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sthisto import __version__
from sthisto._sdata import slots
from sthisto._sdata.expression import Normalization
from sthisto._sdata.slots import prediction
from sthisto._sdata.tables import layer_names
from sthisto._sdata.write import Update, removals, uns_updates
from sthisto._utils.deprecate import METHOD_NAMES, RECORD_KEYS, renamed_keys
from sthisto._utils.validate import listed

if TYPE_CHECKING:
    from anndata import AnnData

    from sthisto._sdata.sections import Section
    from sthisto.models import ExpressionModel

_LABELS = {
    "danet": "DANet",
    "bleep": "BLEEP",
    "stnet": "ST-Net",
    "histogene": "HisToGene",
    "ridge": "Ridge",
    "knn": "kNN",
    "mean": "Mean",
    "depth": "Depth",
    "color": "Color",
    "hybrid": "Hybrid",
    "ensemble": "Ensemble",
}


def as_keys(key_added: str | Sequence[str]) -> list[str]:
    """Return a list of keys without repeats, whether one is given or several."""
    keys = [key_added] if isinstance(key_added, str) else list(dict.fromkeys(key_added))
    if not keys:
        msg = "`key_added` is empty; name at least one key that sth.tl.predict wrote."
        raise ValueError(msg)
    return keys


def read_record(table: AnnData, key: str) -> Mapping[str, Any]:
    """Return `uns[key]` by the names of today; raise KeyError with the keys that are there when it is no record."""
    record = table.uns.get(key)
    if not has_record(table, key):
        known = [name for name, value in table.uns.items() if _is_record(value)]
        msg = (
            f"Nothing was predicted under key_added={key!r}; keys with predictions: {listed(known)}. "
            f"Call sth.tl.predict(sdata, model, key_added={key!r}) first."
        )
        raise KeyError(msg)
    remedy = f"Predict again to write uns[{key!r}] anew."
    record = renamed_keys(record, RECORD_KEYS, where=f"uns[{key!r}]", remedy=remedy)
    return record | {"method": METHOD_NAMES.get(str(record["method"]), record["method"])}


def read_part(table: AnnData, key: str, part: str, *, call: str) -> Any:
    """Return `uns[key][part]`; raise KeyError naming the `call` that writes it when it is missing."""
    record = read_record(table, key)
    if part not in record:
        msg = f"uns[{key!r}] holds no {part!r}. Call {call} first."
        raise KeyError(msg)
    return record[part]


def method_labels(tables: Sequence[AnnData], keys: Sequence[str]) -> dict[str, str]:
    """Return how each key is called in a picture: its method's name, with the key where a method repeats."""
    methods = {}
    for key in keys:
        table = next((one for one in tables if has_record(one, key)), tables[0])
        method = str(read_record(table, key)["method"])
        methods[key] = _LABELS.get(method, method)
    names = list(methods.values())
    return {key: f"{name} ({key})" if names.count(name) > 1 else name for key, name in methods.items()}


def symbols_of(table: AnnData, key: str) -> str | None:
    """Return the column of `var` that names the genes of a prediction; None is `var_names`."""
    return str(read_record(table, key).get("gene_symbols", "")) or None


def check_predicted(table: AnnData, key: str) -> None:
    """Raise KeyError unless the table has a layer with the predictions of `key`."""
    read_record(table, key)
    if prediction(key) not in layer_names(table):
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
    sections: Sequence[Section],
    model: ExpressionModel,
    *,
    key_added: str,
    gene_symbols: str | None,
    **more: Any,
) -> list[Update]:
    """Return the updates that write what is known of a model into ``uns[key_added]``."""
    record = {
        "version": __version__,
        "method": model.method,
        "parameters": {name: _plain(value) for name, value in model.parameters.items()},
        "image_encoder": model.encoder.name if model.uses_encoder else "",
        "patch": {
            "size": model.patch.size,
            "um_per_px": model.patch.um_per_px or float("nan"),
            "context": [float(width) for width in model.patch.context],
        },
        "normalization": dict(model.normalization),
        "genes_rule": model.genes_rule,
        "depth_knots": np.asarray(model.depth_knots, dtype=float),
        "gene_symbols": gene_symbols or "",
        "training_sections": list(model.training_sections),
        "history": model.history,
        **more,
    }
    return uns_updates(sections, key_added, record)


def removed_results(sections: Sequence[Section], key_added: str) -> list[Update]:
    """Return the updates that remove what was predicted and scored under a key, so that two models never mix."""
    return [
        *removals(sections, "layers", [slots.prediction(key_added), slots.prediction_sd(key_added)]),
        *removals(sections, "obs", [slots.confidence(key_added), slots.seen(key_added)]),
        *removals(sections, "var", [slots.score(key_added, metric) for metric in slots.SCORES]),
    ]


def removed_embeddings(sections: Sequence[Section], key_added: str) -> list[Update]:
    """Return the updates that remove the embeddings under a key."""
    return removals(sections, "obsm", [slots.image_embedding(key_added), slots.gene_embedding(key_added)])


def read_normalization(record: Mapping[str, Any]) -> Normalization:
    """Return the scale that a record says a prediction is on."""
    return Normalization.from_record(record["normalization"])


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
