"""Ridge on the colors of a patch: how far staining alone goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sthisto._images.fingerprints import fingerprints
from sthisto._images.patches import PatchSource, read_once
from sthisto.models.base import ExpressionModel, stack
from sthisto.models.data import Exclude, Features, Prediction, SectionInput, TrainingSection, kept_features
from sthisto.models.encoders import cache
from sthisto.models.linear import fit_ridge, map_axes, map_from_state, map_state
from sthisto.models.pixels import N_COLORS, color_numbers

_KEY = "color"
_CACHE = "color-2"
"""What the colors of a patch are found by on disk; another number where their formula changes."""


class Color(ExpressionModel):
    """Ridge on nine numbers of a patch: mean and spread of red, green and blue, and the mean of three stains.

    Hematoxylin, eosin and residual are unmixed with the vectors of Ruifrok and Johnston (2001), as scikit-image
    has them. The numbers are standardized on the training spots; several widths of context have nine each.
    """

    method = "color"
    label = "Color"
    uses_encoder = False
    rates_confidence = True

    def fit_sections(self, sections: Sequence[TrainingSection], seed: int) -> None:
        """Fit ridge regression on the standardized colors."""
        rows = [patch_colors(section.inputs).values[section.train] for section in sections]
        colors = np.concatenate(rows)
        self._mean = colors.mean(axis=0)
        self._sd = np.maximum(colors.std(axis=0), 1e-8)
        self._map = fit_ridge(
            (colors - self._mean) / self._sd,
            stack(sections, "train"),
            groups=np.repeat(np.arange(len(sections)), [len(part) for part in rows]),
            seed=seed,
        )

    def predict_section(self, section: SectionInput, exclude: Exclude | None) -> Prediction:
        """Apply the linear map to the colors."""
        colors = patch_colors(section)
        expression = self._map((colors.values - self._mean) / self._sd)
        return Prediction(expression=expression, seen=self.seen(colors.fingerprint))

    def appearance(self, section: SectionInput) -> Sequence[np.ndarray]:
        """Return the colors of each spot's patches as one block, (n_spots, 9 n_widths) float32."""
        return [patch_colors(section).values]

    def state_axes(self) -> dict[str, tuple[int | str, ...]]:
        """Return the axes of what was learned."""
        n_colors = N_COLORS * len(self.patch.context)
        return {"mean": (n_colors,), "sd": (n_colors,), **map_axes(n_colors)}

    def state(self) -> dict[str, Tensor]:
        """Return the linear map and what standardizes its input."""
        return {"mean": torch.from_numpy(self._mean), "sd": torch.from_numpy(self._sd), **map_state(self._map)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the linear map and what standardizes its input."""
        self._mean, self._sd = state["mean"].numpy(), state["sd"].numpy()
        self._map = map_from_state(state)


def patch_colors(section: SectionInput) -> Features:
    """Return nine numbers of each spot's patch for each width of context, (n_spots, 9 n_widths) float32."""

    def cut() -> tuple[np.ndarray, np.ndarray]:
        parts = [_colors(source) for source in read_once(section.patches)]
        return np.concatenate([values for values, _ in parts], axis=1), parts[0][1]

    return section.features(_KEY, lambda: kept_features(_CACHE, section.patches, cut))


def _colors(source: PatchSource) -> tuple[np.ndarray, np.ndarray]:
    values = np.empty((len(source), N_COLORS), dtype=np.float32)
    fingerprint = np.zeros(len(source), dtype=np.uint64)
    for index, patches in source.batches():
        fingerprint[index] = fingerprints(patches)
        key = cache.batch_key(patches, fingerprint[index])
        values[index] = cache.kept(_CACHE, key, partial(color_numbers, patches))
    return values, fingerprint
