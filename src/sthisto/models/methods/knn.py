"""Nearest neighbors in the features of a frozen encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from sthisto._utils.validate import check_choice, check_positive
from sthisto.models.data import TrainingSection
from sthisto.models.encoders.features import Features, extract
from sthisto.models.retrieval.bank import Aggregation
from sthisto.models.retrieval.model import RetrievalModel


@dataclass(frozen=True)
class KnnOptions:
    """Options of `Knn`.

    Parameters
    ----------
    k
        Training spots that are averaged.
    aggregation
        "average", "weighted" or "simple" (the nearest alone).
    """

    k: int = 100
    aggregation: Aggregation = "average"

    def __post_init__(self) -> None:
        check_positive(self.k, name="k")
        check_choice(self.aggregation, get_args(Aggregation), name="aggregation")


class Knn(RetrievalModel):
    """The average expression of the training spots with the most similar features, by cosine."""

    method = "knn"
    Options = KnnOptions

    def _fit(self, sections: Sequence[TrainingSection], seed: int) -> None:
        features = [extract(section.inputs, self.encoder).values for section in sections]
        self._center = np.concatenate([f[s.train] for f, s in zip(features, sections, strict=True)]).mean(axis=0)
        centered = [values - self._center for values in features]
        self._fill_bank(sections, centered)
        queries = [values[section.used] for values, section in zip(centered, sections, strict=True)]
        self._rate_similarity(np.concatenate(queries))

    def _queries(self, features: Features) -> np.ndarray:
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
