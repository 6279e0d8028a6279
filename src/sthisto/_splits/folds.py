"""Folds of cross-validation: the spots that each one trains on and holds out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sthisto._sdata.sections import Section
from sthisto._splits.blocks import shares_pixels, spatial_bands
from sthisto._splits.roles import read_patients, warn_of_shared_patients
from sthisto._utils.validate import check_positive

N_BANDS = 5


@dataclass(frozen=True)
class Fold:
    """Training and held-out spots; some spots may be neither.

    Attributes
    ----------
    train, test
        (n_spots,) bool for each section.
    depth, seed
        Share of the training spots' counts that is kept, and seed of the binomial draw.
    """

    name: str
    train: list[np.ndarray]
    test: list[np.ndarray]
    depth: float = 1.0
    seed: int = 0


def make_folds(
    sections: Sequence[Section],
    groups: str,
    n_folds: int | None,
    patient_key: str | None,
    width: Sequence[float],
    *,
    warn: bool = True,
) -> list[Fold]:
    """Return the folds by a column of obs, "section" or "block", and warn where they put a patient on both sides.

    Parameters
    ----------
    groups
        "section", "block", or the column of obs that names each section's group.
    n_folds
        Number of folds, see `group_folds`; None cuts a section into `N_BANDS` bands.
    patient_key
        Column of obs that names the patient; None warns that patients are unknown.
    width
        Width in px, for each section, of what is seen around a spot: the margin beside a band.
    warn
        Whether to warn where a patient may stand on both sides.
    """
    patients = None if patient_key is None else read_patients(sections, patient_key)
    if groups == "block":
        folds = _banded(sections, n_folds or N_BANDS, width)
    else:
        names = [section.name for section in sections] if groups == "section" else read_patients(sections, groups)
        folds = []
        for name, held_out in group_folds(names, n_folds).items():
            test = [np.full(len(one), group in held_out) for one, group in zip(sections, names, strict=True)]
            folds.append(Fold(name, [~of_section for of_section in test], test))
    if warn and (groups in ("section", "block") or patients is not None):
        warn_of_shared_patients(patients, [fold.test for fold in folds], what="folds")
    return folds


def group_folds(groups: Sequence[str], n_folds: int | None = None, *, seed: int = 0) -> dict[str, set[str]]:
    """Divide the groups (patients or sections) into folds.

    Parameters
    ----------
    groups
        Name of the group of each section; names repeat.
    n_folds
        None holds out one group at a time.
    seed
        Seed of the order in which groups are assigned to folds.

    Returns
    -------
    Name of each fold -> the groups that it holds out. Leaving one out, a fold is named after its group, else
    "fold 1", "fold 2", …; folds differ by at most one group in size.

    Raises
    ------
    ValueError
        There are fewer than two groups, or fewer groups than folds.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        msg = f"Folds need at least two groups, found {names}: nothing would be left to train on."
        raise ValueError(msg)
    if n_folds is None:
        return {name: {name} for name in names}
    _check_n_folds(n_folds)
    if n_folds > len(names):
        msg = f"n_folds={n_folds} is more than the {len(names)} groups. Pass n_folds=None to leave out one at a time."
        raise ValueError(msg)
    dealt = np.random.default_rng(seed).permutation(names)
    return {f"fold {i + 1}": {str(name) for name in dealt[i::n_folds]} for i in range(n_folds)}


def _banded(sections: Sequence[Section], n_folds: int, width: Sequence[float]) -> list[Fold]:
    _check_n_folds(n_folds)
    band = [spatial_bands(section.centers, n_folds) for section in sections]
    folds = []
    for i in range(n_folds):
        test = [of_section == i for of_section in band]
        beside = [shares_pixels(one.centers, out, w) for one, out, w in zip(sections, test, width, strict=True)]
        train = [~(out | lost) for out, lost in zip(test, beside, strict=True)]
        if not any(of_section.any() for of_section in train):
            msg = (
                f"No training spot is left outside the margin of {max(width):.0f} px around band {i + 1}. Hold out "
                "sections, or take smaller patches or less context."
            )
            raise ValueError(msg)
        folds.append(Fold(f"band {i + 1}", train, test))
    return folds


def _check_n_folds(n_folds: int) -> None:
    """Raise ValueError for fewer than two folds."""
    check_positive(n_folds, name="n_folds")
    if n_folds < 2:
        msg = f"`n_folds` must be at least 2, found {n_folds}."
        raise ValueError(msg)
