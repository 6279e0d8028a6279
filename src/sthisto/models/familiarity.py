"""How familiar a spot looks: its distance to training spots, against distances between held-out training groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from sthisto.models.distances import BLOCK_AXES, BlockDistance, fit_block_distance, median_and_width

GroupKind = Literal["patient", "section", "block"]

UNLIKE: Final = 0.05
"""Confidence below which a spot is called unlike the training spots."""
_N_REFERENCE: Final = 3000
_MOST_FOLDS: Final = 5
_ROWS_AT_ONCE: Final = 2048


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Training spots in few dimensions, and how far apart held-out groups of them are.

    Each block of features (such as an encoder's, colors, sharpness) gives a distance to the training spots, in units in
    which held-out groups have a median of 0 and quartiles of about -1.1 and 1.1 (see `BlockDistance`). A spot is as
    unlike as it is in the block in which it is most so: a blurred slide may have usual colors. The confidence is the
    logistic function of that, less the median of held-out groups, divided by their spread: 0.5 where a spot is as
    unlike as half of the spots of a held-out group, and about 0.25 and 0.75 at the quartiles.

    Groups are dealt into folds, and the distance is the mean of those to all folds but one, so that a new spot is
    compared with as many spots as a held-out one was (as in cross-conformal prediction: Vovk, Ann Math Artif Intell
    74:9, 2015, doi:10.1007/s10472-013-9368-4).

    Attributes
    ----------
    blocks
        The distance in each block of features.
    fold
        (n_reference,) float32 fold of each reference spot.
    median, width
        Of the largest distance over the blocks, of held-out spots.
    groups
        What was held out: "patient", "section" or spatial "block".
    """

    blocks: Sequence[BlockDistance]
    fold: np.ndarray
    median: float
    width: float
    groups: GroupKind

    def confidence(self, blocks: Sequence[np.ndarray]) -> np.ndarray:
        """Return the confidence of spots, (n_spots,) float32 between 0 and 1; NaN where a feature is not finite.

        Parameters
        ----------
        blocks
            (n_spots, n) features each, the same blocks as were fitted on.
        """
        result = np.full(len(blocks[0]), np.nan, dtype=np.float32)
        kept = _finite(blocks)
        for start in range(0, len(kept), _ROWS_AT_ONCE):
            rows = kept[start : start + _ROWS_AT_ONCE]
            parts = [one.excess(values[rows], self.fold) for one, values in zip(self.blocks, blocks, strict=True)]
            result[rows] = expit((self.median - np.max(parts, axis=0)) / self.width)
        return result

    def state(self) -> dict[str, Tensor]:
        """Return what is saved, as tensors."""
        tensors = {f"{i}.{name}": values for i, one in enumerate(self.blocks) for name, values in one.state().items()}
        curve = torch.tensor([self.median, self.width], dtype=torch.float64)
        return tensors | {"fold": torch.from_numpy(self.fold), "curve": curve}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], groups: GroupKind) -> Familiarity:
        """Return what `state` returned; raise ValueError for a curve that does not fall."""
        blocks = []
        for i in range(_n_blocks(state)):
            own = {name.removeprefix(f"{i}."): v for name, v in state.items() if name.startswith(f"{i}.")}
            blocks.append(BlockDistance.from_state(own))
        median, width = state["curve"].tolist()
        if not width >= 1:
            msg = "the spread of the distances must be at least 1"
            raise ValueError(msg)
        return cls(blocks, state["fold"].numpy(), median, width, groups)


def familiarity_axes(state: Mapping[str, Tensor]) -> dict[str, tuple[int | str, ...]]:
    """Return the axes that the tensors of `Familiarity.state` must have, for as many blocks as there are."""
    axes: dict[str, tuple[int | str, ...]] = {"fold": ("references",), "curve": (2,)}
    for i in range(max(_n_blocks(state), 1)):
        shared = ("references", 2)
        own = {name: tuple(a if a in shared else f"{i}.{a}" for a in each) for name, each in BLOCK_AXES.items()}
        axes |= {f"{i}.{name}": each for name, each in own.items()}
    return axes


def fit_familiarity(
    blocks: Sequence[np.ndarray],
    *,
    section: np.ndarray,
    patients: Sequence[str],
    positions: np.ndarray,
    seed: int = 0,
) -> Familiarity | None:
    """Measure how far apart groups of training spots are; None where there are not two groups to compare.

    Groups are patients where there are several, else sections, else five bands across the longer side of the only
    section.

    Parameters
    ----------
    blocks
        (n_spots, n) features each, of all training spots.
    section
        (n_spots,) number of each spot's section.
    patients
        The patient of each section, "" where unknown.
    positions
        (n_spots, 2) x and y.
    seed
        Seed of the choice of reference spots.
    """
    group, kind = _groups(section, patients, positions)
    kept = _finite(blocks)
    kept = kept[_sample(section[kept], _N_REFERENCE, seed)]
    if len(np.unique(group[kept])) < 2:
        return None
    fold = _dealt(group[kept], seed)
    fitted = [fit_block_distance(values[kept], section[kept], fold, seed=seed) for values in blocks]
    median, width = median_and_width(np.max([held_out for _, held_out in fitted], axis=0), fold)
    return Familiarity([one for one, _ in fitted], fold, median, max(width, 1.0), kind)


def _finite(blocks: Sequence[np.ndarray]) -> np.ndarray:
    return np.flatnonzero(np.all([np.isfinite(values).all(axis=1) for values in blocks], axis=0))


def _n_blocks(state: Mapping[str, Tensor]) -> int:
    return len({name.split(".")[0] for name in state if "." in name})


def _groups(section: np.ndarray, patients: Sequence[str], positions: np.ndarray) -> tuple[np.ndarray, GroupKind]:
    """Return what is held out together, (n_spots,), and its kind."""
    if all(patients) and len({patients[i] for i in np.unique(section)}) > 1:
        return np.unique(np.asarray(patients), return_inverse=True)[1][section], "patient"
    if len(np.unique(section)) > 1:
        return section, "section"
    order = np.argsort(np.argsort(positions[:, np.argmax(np.ptp(positions, axis=0))], kind="stable"), kind="stable")
    return np.asarray(order * min(_MOST_FOLDS, len(section)) // len(section)), "block"


def _dealt(group: np.ndarray, seed: int) -> np.ndarray:
    """Return the fold of each spot, (n_spots,) float32; groups stay together, and there are five folds at most."""
    names, number = np.unique(group, return_inverse=True)
    return np.asarray(np.random.default_rng(seed).permutation(len(names))[number] % _MOST_FOLDS, dtype=np.float32)


def _sample(section: np.ndarray, n_most: int, seed: int) -> np.ndarray:
    """Return at most `n_most` ascending positions in `section`, (n_spots,), from each as many as from any other."""
    rng = np.random.default_rng(seed)
    rank = np.empty(len(section), dtype=int)
    for number in np.unique(section):
        rows = np.flatnonzero(section == number)
        rank[rows] = rng.permutation(len(rows))
    return np.sort(np.argsort(rank, kind="stable")[:n_most])
