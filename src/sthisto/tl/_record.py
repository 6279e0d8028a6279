"""What `uns` keeps of a fit and of a prediction: plain scalars, lists of str and DataFrames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sthisto import __version__
from sthisto import _constants as slots
from sthisto._expression import Normalization
from sthisto._tables import Update, removals, uns_updates
from sthisto._validate import check_key

if TYPE_CHECKING:
    from anndata import AnnData

    from sthisto._sections import Section
    from sthisto.models import ExpressionModel


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
        "normalisation": dict(model.normalization),
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


def read_record(table: AnnData, key: str, *, call: str) -> dict[str, Any]:
    """Return ``uns[key]``; without it raise KeyError that names the call which writes it."""
    check_key(key, table.uns, name="key_added", where="uns", remedy=f"Call {call} first.")
    record: dict[str, Any] = table.uns[key]
    return record


def read_normalization(record: dict[str, Any]) -> Normalization:
    """Return the scale that a record says a prediction is on."""
    return Normalization.from_record(record["normalisation"])


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
