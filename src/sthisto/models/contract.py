"""What a method says of itself, and what it fills in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch import Tensor

from sthisto._utils.arguments import check_fields
from sthisto._utils.defaults import IMAGE_ENCODER
from sthisto._utils.deprecate import METHOD_HOOKS, OPTION_NAMES, renamed_options, warn_renamed
from sthisto._utils.validate import listed
from sthisto.models.data import Exclude, FinePrediction, Prediction, SectionInput, TrainingSection
from sthisto.models.options import MethodOptions, NoOptions


class MethodContract(ABC):
    """What a method declares by class attributes, and the functions that it fills in.

    `fit_sections`, `predict_section`, `state` and `load_state` are required. The others have defaults, for methods that
    cannot do what they are for.

    Attributes
    ----------
    method
        The name by which `tl.fit` finds the method.
    label
        What tables and figures call it; "" is the same as `method`.
    Options
        The frozen dataclass of its options.
    uses_encoder
        It needs an image encoder.
    uses_residuals
        It learns from Pearson residuals beside log1p expression.
    default_context
        The widths of tissue that it looks at where none are given, relative to the patch.
    default_patch_um, default_encoder, default_reduction
        Width of the patch in µm where none is given and the µm per px are known (None: px of the full resolution); the
        image encoder where none is given; and, of a convolutional encoder without a chosen layer, how many px of the
        patch are one px of the feature map that is averaged (None: the encoder's own output).
    projects_itself
        It answers in `expression_components` of its own; of other methods the prediction is projected.
    has_epochs
        It is trained in epochs, from a seed, and validation spots choose the epoch. Other methods learn from the
        validation spots too.
    combines_models
        It is made of several models, so ``n_models=`` cannot make an ensemble of it.
    rates_confidence
        `appearance` says what a spot looks like, from which the confidence of its prediction follows. Methods made of
        others set it on the instance.
    has_embedding, has_gene_embedding
        `embed` and `embed_genes` are there. Methods made of others set these on the instance.
    retrieves
        It predicts from training spots that `neighbors` and `fingerprint` name.
    predicts_between
        `predict_between` is there.
    """

    method: ClassVar[str]
    label: ClassVar[str] = ""
    Options: ClassVar[type] = NoOptions
    uses_encoder: ClassVar[bool] = True
    uses_residuals: ClassVar[bool] = False
    default_context: ClassVar[tuple[float, ...]] = (1.0,)
    default_patch_um: ClassVar[float | None] = None
    default_encoder: ClassVar[str] = IMAGE_ENCODER
    default_reduction: ClassVar[int | None] = None
    projects_itself: ClassVar[bool] = False
    has_epochs: ClassVar[bool] = False
    combines_models: ClassVar[bool] = False
    rates_confidence: bool = False
    has_embedding: bool = False
    has_gene_embedding: bool = False
    retrieves: ClassVar[bool] = False
    predicts_between: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for old, new in METHOD_HOOKS.items():
            if old in vars(cls):
                warn_renamed(f"The method {old} of {cls.__name__}", new)
                setattr(cls, new, vars(cls)[old])

    @classmethod
    def option_names(cls) -> list[str]:
        """Return the names of the method's options, those of `MethodOptions` last."""
        shared = {field.name for field in fields(MethodOptions)}
        return sorted((field.name for field in fields(cls.Options)), key=lambda name: name in shared)

    @classmethod
    def make_options(cls, options: Mapping[str, Any]) -> Any:
        """Return the method's options; raise TypeError for one that it does not have."""
        known = cls.option_names()
        old = {name: new for name, new in OPTION_NAMES.items() if new in known and name not in known}
        options = renamed_options(options, old, method=cls.method)
        unknown = [name for name in options if name not in known]
        if unknown:
            msg = f"Method {cls.method!r} has no option {listed(unknown)}. It has: {listed(known, 40)}."
            raise TypeError(msg)
        check_fields(cls.Options, options)
        return cls.Options(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        )

    @classmethod
    def needs_encoder(cls, options: Any) -> bool:
        """Return whether an image encoder is used with these options."""
        return cls.uses_encoder

    @classmethod
    def widest(cls, options: Any, context: Sequence[float]) -> float:
        """Return the widest view around a spot, relative to the patch, with these options and widths of patches."""
        return max(context)

    @classmethod
    def trains_encoder(cls, options: Any) -> bool:
        """Return whether the image encoder is trained too, and so part of `state`, with these options."""
        return False

    @classmethod
    def needs_patches(cls, options: Any) -> bool:
        """Return whether the method, with these options, looks at patches and not at features of a frozen encoder."""
        return not cls.uses_encoder or cls.trains_encoder(options)

    def fit_memory(self, n_spots: int) -> int:
        """Return about how many bytes a fit on so many training spots takes at its peak for arrays of spots x spots.

        What grows with the spots alone, such as features and expression, is not counted; 0 for methods that compare no
        spot with every other. `tl.fit` tells the number before it starts, where it is large.
        """
        return 0

    @abstractmethod
    def fit_sections(self, sections: Sequence[TrainingSection], seed: int) -> None:
        """Learn from the training rows of sections that `fit` has checked.

        Parameters
        ----------
        sections
            At least one training spot. Validation rows are empty unless `has_epochs`.
        seed
            Of everything random.
        """

    @abstractmethod
    def predict_section(self, section: SectionInput, exclude: Exclude | None) -> Prediction:
        """Return the prediction of every spot of a section, for `predict`; the model is fitted."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return what was learned, as tensors.

        A model is saved only if all values are finite, and loaded only if `state` returns tensors of the same names,
        shapes and dtypes after `load_state` as when it was saved. The same holds for `bank_state`.
        """

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state` returned."""

    def state_axes(self) -> dict[str, tuple[int | str, ...]]:
        """Return the axes that tensors of `state` must have when a model is read.

        Returns
        -------
        Name of a tensor -> length of each axis, or the axis' name: "genes" and "spots" (training spots) are known,
        axes of any other name must agree. Weights of a torch module need no entry: torch compares them.
        """
        return {}

    def bank_state(self) -> dict[str, Tensor]:
        """Return the tensors of the bank, for methods that retrieve."""
        return {}

    def load_bank_state(self, state: Mapping[str, Tensor]) -> None:
        """Take what `bank_state` returned."""
        if state:
            msg = f"Method {self.method!r} keeps no bank, but the saved model holds one."
            raise ValueError(msg)

    def bank_axes(self) -> dict[str, tuple[int | str, ...]]:
        """Return the axes that tensors of `bank_state` must have, as `state_axes` does."""
        return {}

    def predict_between(self, section: SectionInput, *, factor: int = 2) -> FinePrediction:
        """Predict between the spots of a section: `factor` points along each axis for every spot."""
        msg = f"Method {self.method!r} does not predict between spots."
        raise TypeError(msg)

    def neighbors(self, section: SectionInput, *, exclude: Exclude | None = None) -> pd.DataFrame:
        """Return the training spots that each prediction was retrieved from.

        Returns
        -------
        One row a spot and rank: spot (its position in the section), rank, section (name of the training section),
        training_spot (its position there), cosine.
        """
        msg = f"Method {self.method!r} predicts without retrieving training spots, so a spot has no neighbors."
        raise TypeError(msg)

    def fingerprint(self, section: str, spot: int) -> int:
        """Return what a training spot, by its section's name and its position there, is recognized by; 0 is nothing."""
        msg = f"Method {self.method!r} keeps no training spots."
        raise TypeError(msg)

    def embed(self, section: SectionInput) -> np.ndarray:
        """Return the image embedding of every spot, (n_spots, n_dimensions) float32."""
        msg = f"Method {self.method!r} has no embedding."
        raise TypeError(msg)

    def embed_genes(self, expression: np.ndarray) -> np.ndarray:
        """Return the gene embedding of (n_spots, n_genes) normalized expression, (n_spots, n_dimensions) float32."""
        msg = f"Method {self.method!r} has no gene embedding."
        raise TypeError(msg)
