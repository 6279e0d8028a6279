"""Parts of the training spots of a fold, from which a learning curve is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, Literal

import numpy as np

from sthisto._splits.folds import Fold
from sthisto._utils.validate import listed

By = Literal["spots", "sections", "patients", "depth"]
_SHARES: Final = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


def learning_sizes(by: By, sizes: Sequence[float] | None, n_units: int) -> list[float]:
    """Return the sizes of the training set, in rising order.

    Parameters
    ----------
    by
        What a size counts: a share of the spots or of the counts, or a number of sections or patients.
    sizes
        Sizes that were asked for. None: a sixteenth to all, or 1, 2, 4, … up to the number there is.
    n_units
        Number of sections or patients that every fold can train on.

    Raises
    ------
    ValueError
        A size is out of range, or there are fewer than two sizes.
    """
    if by in ("spots", "depth"):
        found = sorted({float(size) for size in (_SHARES if sizes is None else sizes)})
        if bad := [size for size in found if not 0 < size <= 1]:
            msg = f"`sizes` are shares of all training {by} between 0 and 1, found {listed(bad)}."
            raise ValueError(msg)
    else:
        doubled = [2**i for i in range(n_units.bit_length()) if 2**i < n_units]
        found = sorted({float(size) for size in ([*doubled, n_units] if sizes is None else sizes)})
        if bad := [size for size in found if size != int(size) or not 1 <= size <= n_units]:
            msg = f"`sizes` are numbers of training {by} from 1 to {n_units}, found {listed(bad)}."
            raise ValueError(msg)
    if len(found) < 2:
        msg = (
            f"A learning curve needs at least two sizes, found {found}: every fold can train on {n_units} {by}. Add "
            f"{by}, or pass by='spots'."
        )
        raise ValueError(msg)
    return found


def trained_units(fold: Fold, units: Sequence[str]) -> list[str]:
    """Return the names of the units, one per section, that a fold has training spots of."""
    return sorted({unit for unit, spots in zip(units, fold.train, strict=True) if spots.any()})


def parts_of(fold: Fold, by: By, size: float, units: Sequence[str], *, repeats: int) -> Iterator[tuple[int, Fold]]:
    """Yield the number of each repeat and the fold with a random part of its training spots.

    Parameters
    ----------
    fold
        The fold with all its training spots.
    by, size
        See `learning_sizes`. The same share of the spots of each section is drawn.
    units
        Section or patient of each section.
    repeats
        Number of random parts; the number of a part is its seed.
    """
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        if by == "depth":
            yield seed, replace(fold, depth=size, seed=seed)
        elif by == "spots":
            yield seed, replace(fold, train=[_share(spots, size, rng) for spots in fold.train])
        else:
            kept = set(rng.permutation(trained_units(fold, units))[: int(size)])
            yield seed, replace(fold, train=[s & (unit in kept) for s, unit in zip(fold.train, units, strict=True)])


def _share(spots: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return (n_spots,) bool with a share of the spots that are True, at least one if there is any."""
    at = np.flatnonzero(spots)
    kept = np.zeros(len(spots), dtype=bool)
    kept[rng.permutation(at)[: max(round(share * len(at)), min(len(at), 1))]] = True
    return kept
