"""The training mean of each gene: what a prediction without an image reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from sthisto.models.base import ExpressionModel, stack
from sthisto.models.data import Exclude, Prediction, SectionInput, TrainingSection


class Mean(ExpressionModel):
    """Predicts the mean of the training spots for every spot, with their standard deviation as its spread.

    A constant has no correlation with anything: its PCC is NaN, its error is what every method must beat.
    """

    method = "mean"
    label = "Mean"
    uses_encoder = False

    def fit_sections(self, sections: Sequence[TrainingSection], seed: int) -> None:
        """Keep mean and standard deviation of each gene."""
        expression = stack(sections, "train")
        self._mean, self._sd = expression.mean(axis=0), expression.std(axis=0)

    def predict_section(self, section: SectionInput, exclude: Exclude | None) -> Prediction:
        """Repeat them for every spot."""
        shape = (len(section), len(self.genes))
        return Prediction(
            expression=np.broadcast_to(self._mean, shape).astype(np.float32),
            sd=np.broadcast_to(self._sd, shape).astype(np.float32),
            seen=self.seen(section.fingerprint()),
        )

    def state_axes(self) -> dict[str, tuple[int | str, ...]]:
        """Return the axes of what was learned."""
        return {"mean": ("genes",), "sd": ("genes",)}

    def state(self) -> dict[str, Tensor]:
        """Return mean and standard deviation, (n_genes,) each."""
        return {"mean": torch.from_numpy(self._mean), "sd": torch.from_numpy(self._sd)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take mean and standard deviation."""
        self._mean, self._sd = state["mean"].numpy(), state["sd"].numpy()
