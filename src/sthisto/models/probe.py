"""Simple predictors on the features of a frozen encoder: what a complicated method has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from sthisto._validate import check_choice, check_positive
from sthisto.models._base import Exclude, ExpressionModel, stack
from sthisto.models._data import Prediction, SectionInput, TrainingSection
from sthisto.models._features import Features, extract
from sthisto.models._retrieval import Aggregation
from sthisto.models._retrieval_model import RetrievalModel
from sthisto.models._ridge import LinearMap, fit_ridge


@dataclass(frozen=True)
class RidgeOptions:
    """Options of `Ridge`.

    Parameters
    ----------
    n_components
        Principal components of the features that are kept.
    """

    n_components: int = 256

    def __post_init__(self) -> None:
        check_positive(self.n_components, name="n_components")


class Ridge(ExpressionModel):
    """Frozen encoder, PCA, ridge regression: the probe of HEST-Bench (Jaume et al., NeurIPS 2024).

    The strength is chosen by cross-validation that holds out whole training sections.
    """

    method = "ridge"
    Options = RidgeOptions

    def _fit(self, sections: Sequence[TrainingSection], seed: int) -> None:
        features = [extract(section.inputs, self.encoder).values[section.train] for section in sections]
        self._map = fit_ridge(
            np.concatenate(features),
            stack(sections, "train"),
            groups=np.repeat(np.arange(len(sections)), [len(rows) for rows in features]),
            n_components=self.options.n_components,
            seed=seed,
        )

    def _predict(self, section: SectionInput, exclude: Exclude | None) -> Prediction:
        features = extract(section, self.encoder)
        return Prediction(expression=self._map(features.values), seen=self.seen(features.fingerprint))

    def embed(self, section: SectionInput) -> np.ndarray:
        """Return the features of the frozen encoder, (n_spots, n_features)."""
        return extract(section, self.encoder).values

    def state(self) -> dict[str, Tensor]:
        """Return the linear map."""
        return map_state(self._map)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the linear map."""
        self._map = map_from_state(state)


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
        self._centre = np.concatenate([f[s.train] for f, s in zip(features, sections, strict=True)]).mean(axis=0)
        centred = [values - self._centre for values in features]
        self._fill_bank(sections, centred)
        queries = [values[section.used] for values, section in zip(centred, sections, strict=True)]
        self._rate_similarity(np.concatenate(queries))

    def _queries(self, features: Features) -> np.ndarray:
        return features.values - self._centre

    def state(self) -> dict[str, Tensor]:
        """Return the mean feature, which is subtracted before the cosine is taken."""
        return {"centre": torch.from_numpy(self._centre)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the mean feature."""
        self._centre = state["centre"].numpy()


def map_state(linear: LinearMap) -> dict[str, Tensor]:
    """Return a linear map as tensors."""
    return {
        "weight": torch.from_numpy(np.ascontiguousarray(linear.weight)),
        "bias": torch.from_numpy(np.ascontiguousarray(linear.bias)),
        "alpha": torch.tensor(linear.alpha, dtype=torch.float64),
    }


def map_from_state(state: Mapping[str, Tensor]) -> LinearMap:
    """Return the linear map of `map_state`."""
    return LinearMap(state["weight"].numpy(), state["bias"].numpy(), float(state["alpha"]))
