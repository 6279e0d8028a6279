"""The role of each spot: read from the table, or made where there is no split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sthisto._sdata.sections import Section
from sthisto._sdata.slots import CALIBRATION, SPLIT, TEST, TRAIN, VALIDATION
from sthisto._splits.blocks import spatial_blocks
from sthisto._utils.logging import logger
from sthisto._utils.validate import listed


def read_roles(sections: Sequence[Section], *, validation: float = 0.0, seed: int = 0) -> list[np.ndarray]:
    """Return the role of every spot of each section: "train", "val", "test", "calibration", or "" for none.

    Parameters
    ----------
    sections
        Their tables may hold ``obs["sthisto_split"]``, which `pp.split` writes; without it every spot is trained on.
    validation
        Share of each section's training spots, in spatial blocks, that become "val" where there are none.
    seed
        Of the choice of blocks.

    Raises
    ------
    ValueError
        The column holds something else, or only some tables have it.
    """
    split = [section.name for section in sections if SPLIT in section.table.obs]
    if split and len(split) < len(sections):
        msg = (
            f"Only the tables of some sections have obs[{SPLIT!r}]: {listed(split)}. Call sth.pp.split on all of them "
            "together, or leave out those that are not to be trained on."
        )
        raise ValueError(msg)
    roles = [_stored(section) for section in sections]
    if validation and not any((role == VALIDATION).any() for role in roles):
        for i, (section, role) in enumerate(zip(sections, roles, strict=True)):
            train = np.flatnonzero(role == TRAIN)
            role[train[spatial_blocks(section.centers[train], validation, seed=seed + i)]] = VALIDATION
        logger.info("No validation spots are marked: spatial blocks of every section choose the epoch.")
    return roles


def _stored(section: Section) -> np.ndarray:
    if SPLIT not in section.table.obs:
        return np.full(len(section), TRAIN, dtype=object)
    column = section.table.obs[SPLIT].iloc[section.rows].astype(object)
    role = column.where(column.notna(), "").to_numpy(dtype=object, copy=True)
    unknown = sorted(set(role) - {TRAIN, VALIDATION, TEST, CALIBRATION, ""})
    if unknown:
        msg = (
            f"obs[{SPLIT!r}] holds {listed(unknown)}; expected 'train', 'val', 'test' or 'calibration'. "
            "Call sth.pp.split(sdata, by=…) to write it."
        )
        raise ValueError(msg)
    return role
