"""Harmony: remove section batch effects from the expression of several sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from sthisto.models.data import TrainingSection

N_COMPONENTS = 50
_PREFIX = "harmony."


@dataclass(frozen=True)
class Correction:
    """What Harmony changed in the spots that it was fitted on.

    Harmony says nothing of a section that it has not seen: expression that it was not fitted on stays as it is.

    Attributes
    ----------
    components
        (n_components, n_genes) principal axes.
    row
        (n_spots,) uint64, sorted, by which the expression of a spot is recognized.
    shift
        (n_spots, n_components) corrected less measured components.
    """

    components: np.ndarray
    row: np.ndarray
    shift: np.ndarray

    def __call__(self, expression: np.ndarray) -> np.ndarray:
        """Return (n_spots, n_genes) expression with the components of the known spots corrected."""
        digests = _digests(expression)
        place = np.minimum(np.searchsorted(self.row, digests), len(self.row) - 1)
        known = self.row[place] == digests
        corrected = expression.copy()
        corrected[known] += self.shift[place[known]] @ self.components
        return corrected

    def state(self) -> dict[str, Tensor]:
        """Return the correction as tensors."""
        return {
            f"{_PREFIX}components": torch.from_numpy(self.components),
            f"{_PREFIX}row": torch.from_numpy(self.row.view(np.int64)),
            f"{_PREFIX}shift": torch.from_numpy(self.shift),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Correction:
        """Return the correction of `state`."""
        components, row, shift = (state[f"{_PREFIX}{name}"].numpy() for name in ("components", "row", "shift"))
        return cls(components, row.view(np.uint64), shift)


def fit_harmony(sections: Sequence[TrainingSection], *, seed: int) -> Correction:
    """Fit Harmony on the principal components of all spots that are learned from; batches are sections.

    Raises
    ------
    ImportError
        harmonypy is not installed.
    ValueError
        There is only one section.

    References
    ----------
    Korsunsky et al., Nature Methods 2019, doi:10.1038/s41592-019-0619-0.
    """
    run_harmony = _import_harmony()
    if len(sections) < 2:
        msg = "batch_correction='harmony' brings sections together, and there is one. Leave it out, or fit on several."
        raise ValueError(msg)
    expression = np.concatenate([section.expression[section.used] for section in sections])
    pca = PCA(min(N_COMPONENTS, expression.shape[1], len(expression) - 1), random_state=seed).fit(expression)
    measured = pca.transform(expression)
    batch = pd.DataFrame(
        {"section": np.repeat([str(i) for i in range(len(sections))], [len(s.used) for s in sections])}
    )
    found = np.asarray(run_harmony(measured, batch, ["section"], random_state=seed, verbose=False).Z_corr)
    corrected = found if len(found) == len(measured) else found.T  # (n_components, n_spots) before version 0.2
    row = _digests(expression)
    order = np.argsort(row)
    shift = np.ascontiguousarray((corrected - measured)[order], dtype=np.float32)
    return Correction(np.ascontiguousarray(pca.components_, dtype=np.float32), row[order], shift)


def correct(sections: Sequence[TrainingSection], correction: Correction) -> list[TrainingSection]:
    """Return the sections with corrected expression."""
    return [replace(section, expression=correction(section.expression)) for section in sections]


def split_state(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Correction | None]:
    """Return a saved state without its correction, and the correction, None where it holds none."""
    rest = {name: value for name, value in state.items() if not name.startswith(_PREFIX)}
    return rest, Correction.from_state(state) if len(rest) < len(state) else None


def _import_harmony() -> Any:
    try:
        from harmonypy import run_harmony
    except ImportError as error:
        msg = "batch_correction='harmony' needs harmonypy. Install it with: pip install harmonypy"
        raise ImportError(msg) from error
    return run_harmony


def _digests(expression: np.ndarray) -> np.ndarray:
    rows = np.ascontiguousarray(expression, dtype=np.float32)
    digests = [blake2b(row.data, digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(digests), dtype=np.uint64).copy()
