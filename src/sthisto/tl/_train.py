"""Train a model that goes on from its checkpoint, and say what an interrupt keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from sthisto import __version__
from sthisto._utils.digest import digest_arrays, digest_names
from sthisto._utils.logging import logger
from sthisto._utils.memory import available_memory
from sthisto._utils.signals import ends_like_ctrl_c
from sthisto.models import ExpressionModel
from sthisto.models.training.checkpoint import checkpointing, open_checkpoint
from sthisto.tl._prepare import Prepared

_GIB: Final = 2**30
_SMALL: Final = 2**27
"""Bytes that are not worth a warning, however little is free."""
_MUCH_OF_FREE: Final = 0.8


def train(model: ExpressionModel, prepared: Prepared, *, seed: int, checkpoint: str | Path | None) -> None:
    """Fit the model, after saying what memory that takes; an interrupted fit says what is kept of it."""
    _tell_memory(model, sum(len(section.train) for section in prepared.training))
    kept = None if checkpoint is None else open_checkpoint(checkpoint, _about(model, prepared, seed))
    try:
        with ends_like_ctrl_c(), checkpointing(kept):
            model.fit(prepared.training, seed=seed)
    except KeyboardInterrupt as stop:
        why = str(stop.__cause__ or stop) or "Ctrl-C"
        if kept is None:
            logger.warning("The fit was interrupted (%s) and nothing of it is kept. Pass checkpoint=… to go on.", why)
        else:
            logger.warning(
                "The fit was interrupted (%s). What was trained is kept in %s: the same call goes on from there.",
                why,
                kept.folder,
            )
        raise


def _tell_memory(model: ExpressionModel, n_spots: int) -> None:
    """Say how much memory the fit takes where that is much, and warn where it is more than is free."""
    size, free = model.fit_memory(n_spots), available_memory()
    about = f"Fitting {model.method!r} on {n_spots:,} training spots takes about {size / _GIB:,.1f} GiB"
    if free is not None and size > max(_MUCH_OF_FREE * free, _SMALL):
        logger.warning(
            "%s, and %.1f GiB are free. Fit on fewer sections (shapes_key=…), or use method='ridge', which compares no "
            "spot with every other.",
            about,
            free / _GIB,
        )
    elif size > _GIB:
        logger.info("%s.", about)


def _about(model: ExpressionModel, prepared: Prepared, seed: int) -> dict[str, Any]:
    """Return what a checkpoint belongs to, but for pixels, which are not read yet."""
    arrays: dict[str, np.ndarray] = {}
    for i, section in enumerate(prepared.training):
        parts = (section.expression, section.train, section.validation, section.inputs.positions)
        arrays |= {f"{i}-{j}": part for j, part in enumerate(parts)}
    return {
        "version": __version__,
        "torch": torch.__version__,
        "method": model.method,
        "options": model.parameters,
        "seed": seed,
        "genes": f"{len(model.genes)}, digest {digest_names(model.genes)}",
        "patch": [model.patch.size, model.patch.um_per_px, list(model.patch.context)],
        "normalization": model.normalization,
        "encoder": model.encoder.digest() if model.needs_encoder(model.options) else "",
        "sections": [section.name for section in prepared.training],
        "expression and spots": digest_arrays(arrays),
    }
