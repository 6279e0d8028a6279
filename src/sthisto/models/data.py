"""What a model sees of a section: patches, positions and, for training, expression. No SpatialData here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sthisto._images.patches import PatchSource
from sthisto._images.pyramid import Pyramid


@dataclass(frozen=True)
class SectionInput:
    """One section without its expression.

    Attributes
    ----------
    name
        For messages only.
    patches
        One source for each width of context; all over the same n_spots spots.
    positions
        (n_spots, 2) x and y of the spots, in px of the full resolution.
    image
        The whole slide, for features that are measured on it instead of on patches; None: the level of the patches.
    um_per_px
        µm per px of the full resolution as the patches have them; None if unknown.
    known
        What was computed from the patches already, so that the image is read once: features by the encoder's digest.
    """

    name: str
    patches: Sequence[PatchSource]
    positions: np.ndarray
    image: Pyramid | None = None
    um_per_px: float | None = None
    known: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True)
class TrainingSection:
    """One section with the expression that may be learned from.

    Attributes
    ----------
    inputs
        All spots of the section; their images may be looked at.
    expression
        (n_spots, n_genes) float32 on the scale of the model's normalization; NaN in every row that is neither in
        `train` nor in `validation`, so that it cannot be learned from.
    train, validation
        Rows that weights are fitted on, and rows that choose the epoch.
    residuals
        (n_spots, n_genes) float32 Pearson residuals of the counts, for methods that learn from them beside the
        expression; NaN in the same rows. None where a method doesn't, or where there are no counts.
    """

    inputs: SectionInput
    expression: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    residuals: np.ndarray | None = None

    @property
    def name(self) -> str:
        """The section's name."""
        return self.inputs.name

    @property
    def used(self) -> np.ndarray:
        """Rows of `train`, then those of `validation`."""
        return np.concatenate([self.train, self.validation])


@dataclass(frozen=True)
class Prediction:
    """What a model says of one section.

    Attributes
    ----------
    expression
        (n_spots, n_genes) float32.
    sd
        (n_spots, n_genes) float32 spread of the expression that the prediction averages, None where a method has none.
    confidence
        (n_spots,) float32 between 0 and 1, None where a method has none.
    seen
        (n_spots,) bool: the model was trained on the spot.
    excluded
        What of the training spots was left out of the retrieval: "section", "spot", "none"; "" without retrieval.
    """

    expression: np.ndarray
    seen: np.ndarray
    sd: np.ndarray | None = None
    confidence: np.ndarray | None = None
    excluded: str = ""
