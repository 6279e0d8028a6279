"""Folds: which sections or spots are held out in turn, and which training spots stand too near them. Arrays only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sthisto._utils.validate import check_positive


def group_folds(groups: Sequence[str], n_folds: int | None = None, *, seed: int = 0) -> dict[str, set[str]]:
    """Deal the groups, patients or sections, into folds.

    Parameters
    ----------
    groups
        Name of the group of each section; names repeat.
    n_folds
        None holds out one group at a time.
    seed
        Of the order in which groups are dealt to folds.

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
    check_n_folds(n_folds)
    if n_folds > len(names):
        msg = f"n_folds={n_folds} is more than the {len(names)} groups. Pass n_folds=None to leave out one at a time."
        raise ValueError(msg)
    dealt = np.random.default_rng(seed).permutation(names)
    return {f"fold {i + 1}": {str(name) for name in dealt[i::n_folds]} for i in range(n_folds)}


def block_folds(positions: np.ndarray, n_folds: int) -> np.ndarray:
    """Cut a section into bands across its longer side that hold equally many spots.

    A band has two borders at most, so that a margin beside it costs the fewest training spots.

    Parameters
    ----------
    positions
        (n_spots, 2) x and y.
    n_folds
        Bands.

    Returns
    -------
    (n_spots,) the fold that each spot is held out in, from 0.
    """
    check_n_folds(n_folds)
    extent = np.ptp(positions, axis=0) if len(positions) else np.zeros(2)
    order = np.argsort(positions[:, int(np.argmax(extent))], kind="stable")
    fold = np.empty(len(positions), dtype=int)
    fold[order] = np.arange(len(positions)) * n_folds // max(len(positions), 1)
    return fold


def near(positions: np.ndarray, held_out: np.ndarray, margin: float) -> np.ndarray:
    """Find the spots whose patch of the width `margin` shares pixels with that of a held-out spot.

    Parameters
    ----------
    positions
        (n_spots, 2) x and y in px.
    held_out
        (n_spots,) bool.
    margin
        Width in px of what a model sees around a spot: the patch with its widest context.

    Returns
    -------
    (n_spots,) bool; False for the held-out spots themselves.
    """
    from scipy.spatial import cKDTree

    result = np.zeros(len(positions), dtype=bool)
    if margin <= 0 or not held_out.any() or held_out.all():
        return result
    distance, _ = cKDTree(positions[held_out]).query(positions[~held_out], p=np.inf)
    result[~held_out] = distance < margin
    return result


def check_n_folds(n_folds: int) -> None:
    """Raise ValueError for fewer than two folds."""
    check_positive(n_folds, name="n_folds")
    if n_folds < 2:
        msg = f"`n_folds` must be at least 2, found {n_folds}."
        raise ValueError(msg)
