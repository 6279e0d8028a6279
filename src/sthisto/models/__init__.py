"""The methods, behind one call. Arrays in, arrays out: neither SpatialData nor AnnData is needed here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from sthisto._images.patches import PatchSource, PatchSpec
from sthisto._utils.arguments import checked
from sthisto._utils.deprecate import renamed_attribute
from sthisto.models import bundle
from sthisto.models.base import ExpressionModel
from sthisto.models.contract import MethodContract
from sthisto.models.data import Features, FinePrediction, Prediction, SectionInput, TrainingSection, TrainingSpots
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.encoders.features import clear_cache, extract
from sthisto.models.encoders.loading import load_encoder
from sthisto.models.hub import from_hub, push_to_hub
from sthisto.models.methods.bleep import BLEEP, BLEEPOptions
from sthisto.models.methods.color import Color
from sthisto.models.methods.danet import DANet, DANetOptions
from sthisto.models.methods.ensemble import Ensemble, EnsembleOptions, resolve_method
from sthisto.models.methods.histogene import HisToGene, HisToGeneOptions
from sthisto.models.methods.hybrid import Hybrid, HybridOptions
from sthisto.models.methods.kernel import Kernel, KernelOptions
from sthisto.models.methods.knn import Knn, KnnOptions
from sthisto.models.methods.mean import Mean
from sthisto.models.methods.mlp import MLP, MLPOptions
from sthisto.models.methods.recommended import Recommended, RecommendedOptions
from sthisto.models.methods.ridge import Ridge, RidgeOptions
from sthisto.models.methods.stnet import STNet, STNetOptions
from sthisto.models.options import (
    AlignmentOptions,
    BatchOptions,
    EpochOptions,
    FinetuneOptions,
    MethodOptions,
    OptimizerOptions,
    ParallelOptions,
    RetrievalOptions,
    TrainingOptions,
)
from sthisto.models.registry import METHODS, available, register
from sthisto.models.retrieval.bank import Bank
from sthisto.models.retrieval.contrastive import ContrastiveModel, TwoTowers
from sthisto.models.retrieval.model import RetrievalModel
from sthisto.models.torch_state import plain_torch, seeded
from sthisto.models.training.loop import Training, train
from sthisto.models.zenodo import from_zenodo

__all__ = [
    "BLEEP",
    "METHODS",
    "MLP",
    "AlignmentOptions",
    "BLEEPOptions",
    "Bank",
    "BatchOptions",
    "Color",
    "ContrastiveModel",
    "DANet",
    "DANetOptions",
    "Encoder",
    "Ensemble",
    "EnsembleOptions",
    "EpochOptions",
    "ExpressionModel",
    "Features",
    "FinePrediction",
    "FinetuneOptions",
    "HisToGene",
    "HisToGeneOptions",
    "Hybrid",
    "HybridOptions",
    "Kernel",
    "KernelOptions",
    "Knn",
    "KnnOptions",
    "MLPOptions",
    "Mean",
    "MethodContract",
    "MethodOptions",
    "OptimizerOptions",
    "ParallelOptions",
    "PatchSource",
    "PatchSpec",
    "Prediction",
    "Recommended",
    "RecommendedOptions",
    "RetrievalModel",
    "RetrievalOptions",
    "Ridge",
    "RidgeOptions",
    "STNet",
    "STNetOptions",
    "SectionInput",
    "Training",
    "TrainingOptions",
    "TrainingSection",
    "TrainingSpots",
    "TwoTowers",
    "available",
    "clear_cache",
    "extract",
    "from_hub",
    "from_zenodo",
    "load",
    "load_encoder",
    "push_to_hub",
    "register",
    "resolve_method",
    "seeded",
    "train",
]

for _cls in (Recommended, Kernel, MLP, DANet, BLEEP, STNet, HisToGene, Ridge, Knn, Color, Mean, Hybrid, Ensemble):
    METHODS[_cls.method] = _cls


@checked()
@plain_torch()
def load(
    path: str | Path,
    *,
    image_encoder: str | nn.Module | None = None,
    verify: bool = True,
    allow_download: bool = False,
) -> ExpressionModel:
    """Read a model that `ExpressionModel.save` wrote. Nothing in it is run, and no file outside its folder is opened.

    Parameters
    ----------
    path
        The model's folder.
    image_encoder
        The encoder it was fitted with, where that was a module of your own; None loads it by its name.
    verify
        Whether the files' digests are compared with those that were saved. All other checks are made in any case.
    allow_download
        Whether an encoder of the Hugging Face hub that is not among those that sthisto knows may be downloaded because
        the model names it.

    Returns
    -------
    The fitted model.

    Raises
    ------
    FileNotFoundError
        There is no model at `path`.
    ValueError
        It is not what was saved, its parts do not belong together, it names an encoder that is not loaded from a saved
        model, or the encoder's weights are others than those it was fitted with.

    Examples
    --------
    >>> import sthisto as sth
    >>> model = sth.models.load("liver.sthisto")  # doctest: +SKIP
    """
    return bundle.load(Path(path), METHODS, image_encoder, verify=verify, allow_download=allow_download)


def __getattr__(name: str) -> Any:
    return renamed_attribute(__name__, name, {"Colour": "Color"}, globals())


def __dir__() -> list[str]:
    return __all__
