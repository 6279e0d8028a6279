"""Ridge regression on the features of a frozen encoder: what a complicated method has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from sthisto._utils.validate import check_positive
from sthisto.models.base import ExpressionModel, stack
from sthisto.models.data import Exclude, Prediction, SectionInput, TrainingSection
from sthisto.models.encoders.features import extract
from sthisto.models.linear import fit_ridge, map_axes, map_from_state, map_state
from sthisto.models.methods.color import patch_colors
from sthisto.models.options import MethodOptions
from sthisto.models.pixels import N_COLORS


@dataclass(frozen=True)
class RidgeOptions(MethodOptions):
    """Options of `Ridge`.

    Parameters
    ----------
    n_components
        Principal components of the features that are kept.
    colors
        Take the colors of the patch as features too, the numbers of `Color`. Together they vary as much as the
        encoder's features do.
    within_sections
        Learn from differences within each training section alone, so that what sets sections apart, such as staining
        and depth, is not taken for biology. Features and expression are centered by section for it.
    """

    n_components: int = 256
    colors: bool = False
    within_sections: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.n_components, name="n_components")


class Ridge(ExpressionModel):
    """Frozen encoder, PCA, ridge regression: the probe of HEST-Bench (Jaume et al., NeurIPS 2024).

    The strength is chosen by cross-validation that holds out whole training sections.
    """

    method = "ridge"
    label = "Ridge"
    Options = RidgeOptions
    has_embedding = True
    rates_confidence = True

    def fit_sections(self, sections: Sequence[TrainingSection], seed: int) -> None:
        """Fit ridge regression on the features."""
        features = np.concatenate([self._features(section.inputs)[section.train] for section in sections])
        weight = self._feature_weights(features)
        scaled = fit_ridge(
            features * weight,
            stack(sections, "train"),
            groups=np.repeat(np.arange(len(sections)), [len(section.train) for section in sections]),
            n_components=self.options.n_components,
            within_groups=self.options.within_sections,
            seed=seed,
        )
        self._map = replace(scaled, weight=scaled.weight * weight[:, None])

    def predict_section(self, section: SectionInput, exclude: Exclude | None) -> Prediction:
        """Apply the linear map to the features."""
        seen = self.seen(extract(section, self.encoder).fingerprint)
        return Prediction(expression=self._map(self._features(section)), seen=seen)

    def _features(self, section: SectionInput) -> np.ndarray:
        """Return (n_spots, n_features) of the encoder, with the colors behind where they are asked for."""
        features = extract(section, self.encoder).values
        return np.hstack([features, patch_colors(section).values]) if self.options.colors else features

    def _feature_weights(self, features: np.ndarray) -> np.ndarray:
        """Return (n_features,) 1 for the encoder's and for the colors what makes both parts vary alike in total."""
        weight = np.ones(features.shape[1], dtype=np.float32)
        if self.options.colors:
            n_colors = N_COLORS * len(self.patch.context)
            encoded, colors = features[:, :-n_colors], features[:, -n_colors:]
            weight[-n_colors:] = np.sqrt(encoded.var(axis=0).sum() / n_colors) / np.maximum(colors.std(axis=0), 1e-8)
        return weight

    def embed(self, section: SectionInput) -> np.ndarray:
        """Return the features of the frozen encoder, (n_spots, n_features)."""
        return extract(section, self.encoder).values

    def state_axes(self) -> dict[str, tuple[int | str, ...]]:
        """Return the axes of what was learned."""
        n_colors = N_COLORS * len(self.patch.context) if self.options.colors else 0
        return map_axes(self.n_features + n_colors)

    def state(self) -> dict[str, Tensor]:
        """Return the linear map."""
        return map_state(self._map)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the linear map."""
        self._map = map_from_state(state)
