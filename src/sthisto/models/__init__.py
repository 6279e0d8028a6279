"""The methods, behind one call. Arrays in, arrays out: neither SpatialData nor AnnData is needed here."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from sthisto._patches import PatchSource, PatchSpec
from sthisto.models import _bundle
from sthisto.models._base import ExpressionModel
from sthisto.models._data import Prediction, SectionInput, TrainingSection
from sthisto.models._encoders import Encoder, load_encoder
from sthisto.models._features import clear_cache
from sthisto.models._retrieval import Bank
from sthisto.models.bleep import BLEEP
from sthisto.models.colour import Colour
from sthisto.models.danet import DANet
from sthisto.models.ensemble import Ensemble, resolve_method
from sthisto.models.histogene import FinePrediction, HisToGene
from sthisto.models.hybrid import Hybrid
from sthisto.models.mean import Mean
from sthisto.models.probe import Knn, Ridge
from sthisto.models.stnet import STNet

__all__ = [
    "BLEEP",
    "METHODS",
    "Bank",
    "Colour",
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
    **{cls.method: cls for cls in (DANet, BLEEP, STNet, HisToGene, Ridge, Knn, Colour, Mean, Hybrid, Ensemble)},
    "recommended": Hybrid,
}
"""Every method by its name; a new one is added here. `Hybrid` says how "recommended" was chosen."""


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
    return _bundle.load(Path(path), METHODS, image_encoder)
