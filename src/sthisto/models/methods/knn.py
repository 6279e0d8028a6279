"""Nearest neighbors in the features of a frozen encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sthisto.models.data import Features, TrainingSection
from sthisto.models.encoders.features import extract
from sthisto.models.options import RetrievalOptions
from sthisto.models.retrieval.model import RetrievalModel


@dataclass(frozen=True)
class KnnOptions(RetrievalOptions):
    """Options of `Knn`.

    Parameters
    ----------
    k
        Training spots that are averaged.
    aggregation
        "average", "weighted" or "simple" (the nearest alone).
    """


class Knn(RetrievalModel):
    """The average expression of the training spots with the most similar features, by cosine."""

    method = "knn"
    label = "kNN"
    Options = KnnOptions

    def fit_sections(self, sections: Sequence[TrainingSection], seed: int) -> None:
        """Fill the bank with the features of the training spots."""
        features = [extract(section.inputs, self.encoder).values for section in sections]
        self._center = np.concatenate([f[s.train] for f, s in zip(features, sections, strict=True)]).mean(axis=0)
        centered = [values - self._center for values in features]
        self.fill_bank(sections, centered)

    def queries(self, features: Features) -> np.ndarray:
        """Return the centered features, (n_spots, n_features)."""
        return features.values - self._center

    def state_axes(self) -> dict[str, tuple[int | str, ...]]:
        """Return the axes of what was subtracted."""
        return {"center": (self.n_features,)}

    def bank_axes(self) -> dict[str, tuple[int | str, ...]]:
        """Return the axes of the bank's tensors."""
        return super().bank_axes() | {"embedding": ("spots", self.n_features)}

    def state(self) -> dict[str, Tensor]:
        """Return the mean feature, which is subtracted before the cosine is taken."""
        return {"center": torch.from_numpy(self._center)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the mean feature."""
        self._center = state["center"].numpy()
