"""The methods, behind one call. Arrays in, arrays out: neither SpatialData nor AnnData is needed here."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from sthisto._images.patches import PatchSource, PatchSpec
from sthisto._utils.arguments import checked
from sthisto.models import bundle
from sthisto.models.base import ExpressionModel
from sthisto.models.data import Prediction, SectionInput, TrainingSection
from sthisto.models.encoders.encoder import Encoder, load_encoder
from sthisto.models.encoders.features import clear_cache
from sthisto.models.methods.bleep import BLEEP
from sthisto.models.methods.color import Color
from sthisto.models.methods.danet import DANet
from sthisto.models.methods.ensemble import Ensemble, resolve_method
from sthisto.models.methods.histogene import FinePrediction, HisToGene
from sthisto.models.methods.hybrid import Hybrid
from sthisto.models.methods.knn import Knn
from sthisto.models.methods.mean import Mean
from sthisto.models.methods.ridge import Ridge
from sthisto.models.methods.stnet import STNet
from sthisto.models.retrieval.bank import Bank
from sthisto.models.torch_state import plain_torch

__all__ = [
    "BLEEP",
    "METHODS",
    "Bank",
    "Color",
    "DANet",
    "Encoder",
    "Ensemble",
    "ExpressionModel",
    "FinePrediction",
    "HisToGene",
    "Hybrid",
    "Knn",
    "Mean",
    "PatchSource",
    "PatchSpec",
    "Prediction",
    "Ridge",
    "STNet",
    "SectionInput",
    "TrainingSection",
    "clear_cache",
    "load",
    "load_encoder",
    "resolve_method",
]

METHODS: dict[str, type[ExpressionModel]] = {
    **{cls.method: cls for cls in (DANet, BLEEP, STNet, HisToGene, Ridge, Knn, Color, Mean, Hybrid, Ensemble)},
    "recommended": Hybrid,
}
"""Every method by its name; a new one is added here. `Hybrid` says how "recommended" was chosen."""


@checked()
@plain_torch()
def load(path: str | Path, *, image_encoder: str | nn.Module | None = None) -> ExpressionModel:
    """Read a model that `ExpressionModel.save` wrote.

    Parameters
    ----------
    path
        The model's folder.
    image_encoder
        The encoder it was fitted with, where that was a module of your own; None loads it by its name.

    Returns
    -------
    The fitted model.

    Raises
    ------
    FileNotFoundError
        There is no model at `path`.
    ValueError
        Its parts do not belong together, or the encoder's weights are others than those it was fitted with.

    Examples
    --------
    >>> import sthisto as sth
    >>> model = sth.models.load("liver.sthisto")  # doctest: +SKIP
    """
    return bundle.load(Path(path), METHODS, image_encoder)
