"""Train a model that goes on from its checkpoint, and say what an interrupt keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sthisto import __version__
from sthisto._utils.digest import digest_arrays, digest_names
from sthisto._utils.logging import logger
from sthisto._utils.signals import ends_like_ctrl_c
from sthisto.models import ExpressionModel
from sthisto.models.training.checkpoint import checkpointing, open_checkpoint
from sthisto.tl._prepare import Prepared


def train(model: ExpressionModel, prepared: Prepared, *, seed: int, checkpoint: str | Path | None) -> None:
    """Fit the model; an interrupted fit says what is kept of it."""
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
