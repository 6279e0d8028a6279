"""Ridge on the colours of a patch: how far staining alone goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from skimage.color import hed_from_rgb
from torch import Tensor

from sthisto._digest import fingerprints
from sthisto.models._base import Exclude, ExpressionModel, stack
from sthisto.models._data import Prediction, SectionInput, TrainingSection
from sthisto.models._features import Features
from sthisto.models._ridge import fit_ridge
from sthisto.models.probe import map_from_state, map_state


class Colour(ExpressionModel):
    """Ridge on nine numbers of a patch: mean and spread of red, green and blue, and the mean of three stains.

    Haematoxylin, eosin and residual are unmixed with the vectors of Ruifrok and Johnston (2001), as scikit-image
    has them. The numbers are standardised on the training spots.
    """

    method = "colour"
    uses_encoder = False

    def _fit(self, sections: Sequence[TrainingSection], seed: int) -> None:
        rows = [_colours(section.inputs).values[section.train] for section in sections]
        colours = np.concatenate(rows)
        self._mean = colours.mean(axis=0)
        self._sd = np.maximum(colours.std(axis=0), 1e-8)
        self._map = fit_ridge(
            (colours - self._mean) / self._sd,
            stack(sections, "train"),
            groups=np.repeat(np.arange(len(sections)), [len(part) for part in rows]),
            seed=seed,
        )

    def _predict(self, section: SectionInput, exclude: Exclude | None) -> Prediction:
        colours = _colours(section)
        expression = self._map((colours.values - self._mean) / self._sd)
        return Prediction(expression=expression, seen=self.seen(colours.fingerprint))

    def state(self) -> dict[str, Tensor]:
        """Return the linear map and what standardises its input."""
        return {"mean": torch.from_numpy(self._mean), "sd": torch.from_numpy(self._sd), **map_state(self._map)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the linear map and what standardises its input."""
        self._mean, self._sd = state["mean"].numpy(), state["sd"].numpy()
        self._map = map_from_state(state)


def _colours(section: SectionInput) -> Features:
    """Return nine numbers of each spot's patch."""
    values = np.empty((len(section), 9), dtype=np.float32)
    fingerprint = np.zeros(len(section), dtype=np.uint64)
    for index, patches in section.patches[0].batches():
        fingerprint[index] = fingerprints(patches)
        rgb = patches.astype(np.float32) / 255
        stains = -np.log(np.maximum(rgb, 1 / 255)) @ hed_from_rgb.astype(np.float32)
        numbers = (rgb.mean(axis=(1, 2)), rgb.std(axis=(1, 2)), stains.mean(axis=(1, 2)))
        values[index] = np.concatenate(numbers, axis=1)
    features = section.known["colour"] = Features(values, fingerprint)
    return features
