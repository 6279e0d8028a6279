"""Prediction intervals from the errors on spots that were not trained on: split conformal, by patient or by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from sthisto._utils.validate import listed

IntervalGroups = Literal["patient", "block"]

HOLDS_FOR: Final[Mapping[str, str]] = {"patient": "new patients", "block": "same patients"}
"""Groups that were calibrated on -> whose tissue the intervals hold for."""
CALIBRATION_AXES: Final[dict[str, tuple[int | str, ...]]] = {
    "patient": ("calibration patients", "genes"),
    "block": ("calibration blocks", "genes"),
    "least_spread": ("genes",),
}
"""Axes of the tensors of `Calibration.state`."""
NOT_CALIBRATED: Final = (
    "`interval` needs a model with calibration spots, which are not trained on. Call "
    "sth.pp.split(sdata, calibration=…) before sth.tl.fit."
)
_N_DRAWS: Final = 101
_GENES_AT_ONCE: Final = 64
_LEAST_SHARE: Final = 0.1
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, eq=False)
class Calibration:
    """Errors on calibration spots, in units of the spread of the prediction, as quantiles over groups of spots.

    One spot is drawn from each of K groups. If the groups and that of a new spot are exchangeable, the new error is at
    most the r-th smallest of the K with probability r / (K + 1) (Vovk et al., Algorithmic Learning in a Random World,
    2005; Lei et al., JASA 113:1094, 2018, doi:10.1080/01621459.2017.1307116, for errors in units of a spread). Spots of
    one group are no independent evidence, hence one of each (Dunn et al., JASA 118:2491, 2023,
    doi:10.1080/01621459.2022.2060112). Two departures keep the coverage near the level where there are few groups: the
    median over 101 draws, and interpolation between ranks (Beran and Hall, JRSS B 55:643, 1993).

    Attributes
    ----------
    patient, block
        (n_groups, n_genes) float32: the r-th smallest error in row r - 1. Without rows where there were no groups.
    least_spread
        (n_genes,) float32 spread that smaller ones count as.
    """

    patient: np.ndarray
    block: np.ndarray
    least_spread: np.ndarray

    def groups_for(self, level: float) -> IntervalGroups:
        """Return the groups whose number allows intervals at a level: patients, else spatial blocks.

        Raises
        ------
        ValueError
            There are too few of both, or the level is below what the fewest errors cover.
        """
        found: IntervalGroups = "patient" if len(self.patient) >= fewest_groups(level) else "block"
        n_groups = len(self.patient if found == "patient" else self.block)
        if n_groups >= fewest_groups(level):
            if level * (n_groups + 1) < 1 - _ROUNDING:
                least = ceil(1000 / (n_groups + 1)) / 1000
                msg = (
                    f"interval={level!r} is less than the narrowest intervals cover that {n_groups} calibration "
                    f"{found}{'s' if n_groups > 1 else ''} can give. Pass interval={least} or more."
                )
                raise ValueError(msg)
            return found
        n_most = max(len(self.patient), len(self.block))
        msg = (
            f"interval={level!r} needs at least {fewest_groups(level)} patients or spatial blocks with spots marked "
            f"'calibration', the model has {len(self.patient)} and {len(self.block)}. Pass "
            f"{f'interval={floor(1000 * n_most / (n_most + 1)) / 1000} or less' if n_most else 'no interval'}, or fit "
            "with more."
        )
        raise ValueError(msg)

    def bounds(
        self, expression: np.ndarray, sd: np.ndarray | None, level: float, *, least: float = -np.inf
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and the upper bound of the measured expression, (n_spots, n_genes) float32 each.

        Parameters
        ----------
        expression, sd
            (n_spots, n_genes) prediction and its spread; None for methods without one.
        level
            Share of the measured values that lie within.
        least
            No expression is smaller.
        """
        errors = self.patient if self.groups_for(level) == "patient" else self.block
        half = _quantile(errors, level) * _spread(sd, self.least_spread)
        low = np.minimum(np.maximum(expression - half, least), expression)
        return low.astype(np.float32), (expression + half).astype(np.float32)

    def state(self) -> dict[str, Tensor]:
        """Return what is saved, as tensors."""
        arrays = {"patient": self.patient, "block": self.block, "least_spread": self.least_spread}
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Calibration:
        """Return what `state` returned; raise ValueError for errors that are negative or do not ascend."""
        arrays = {name: state[name].numpy() for name in CALIBRATION_AXES}
        wrong = [name for name, v in arrays.items() if (v < 0).any() or (v.ndim > 1 and (np.diff(v, axis=0) < 0).any())]
        if wrong:
            msg = f"{listed(wrong)} must hold ascending errors that are not negative"
            raise ValueError(msg)
        return cls(**arrays)


def fewest_groups(level: float) -> int:
    """Return the smallest number of groups that allows intervals at a level: 9 for 0.9."""
    return ceil(level / (1 - level) - _ROUNDING)


def fit_calibration(
    measured: np.ndarray,
    predicted: np.ndarray,
    sd: np.ndarray | None,
    *,
    patients: np.ndarray,
    blocks: np.ndarray,
    seed: int = 0,
) -> Calibration:
    """Measure how large errors are on spots that were not trained on.

    Parameters
    ----------
    measured, predicted, sd
        (n_spots, n_genes) expression of the calibration spots, its prediction, and the spread of that or None.
    patients, blocks
        (n_spots,) patient and spatial block of each spot; "" where the patient is unknown.
    seed
        Seed of the draws.
    """
    least = np.zeros(measured.shape[1]) if sd is None else _LEAST_SHARE * np.sqrt(np.square(sd).mean(axis=0))
    least = np.where(least > 0, least, 1.0).astype(np.float32)
    error = np.abs(measured - predicted) / _spread(sd, least)
    by_patient = patients if all(patients) else np.empty(0)
    return Calibration(_smallest(error, by_patient, seed), _smallest(error, blocks, seed), least)


def _spread(sd: np.ndarray | None, least: np.ndarray) -> np.ndarray:
    return least if sd is None else np.maximum(sd, least)


def _quantile(smallest: np.ndarray, level: float) -> np.ndarray:
    """Return the interpolated (n_groups + 1) level-th of the ascending rows, (n_genes,)."""
    place = min(max((len(smallest) + 1) * level, 1), len(smallest))
    below = min(int(place + _ROUNDING), len(smallest))
    above = min(below + 1, len(smallest))
    return np.asarray(smallest[below - 1] + max(place - below, 0) * (smallest[above - 1] - smallest[below - 1]))


def _smallest(error: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Return the errors of one spot from each group in ascending order, the median over draws, (n_groups, n_genes)."""
    names = np.unique(groups)
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(groups == name) for name in names]
    drawn = np.array([rng.choice(one, _N_DRAWS) for one in rows], dtype=int).reshape(len(rows), _N_DRAWS)
    result = np.empty((len(names), error.shape[1]), dtype=np.float32)
    for start in range(0, error.shape[1] if len(names) else 0, _GENES_AT_ONCE):
        genes = slice(start, start + _GENES_AT_ONCE)
        result[:, genes] = np.median(np.sort(error[:, genes][drawn], axis=0), axis=1)
    return result
