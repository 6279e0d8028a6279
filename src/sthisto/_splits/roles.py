"""The role of each spot, the patient of each section, and warnings of leaks between training and test spots."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sthisto._images.patches import PatchSpec
from sthisto._sdata.columns import read_known_names
from sthisto._sdata.sections import Section
from sthisto._sdata.slots import CALIBRATION, FITTED, PATIENT, SPLIT, TEST, TRAIN, VALIDATION
from sthisto._splits.blocks import shares_pixels, spatial_blocks
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key, listed


def read_roles(sections: Sequence[Section], *, validation: float = 0.0, seed: int = 0) -> list[np.ndarray]:
    """Return the role of each section's spots, (n_spots,): "train", "val", "test", "calibration", or "" for none.

    Parameters
    ----------
    sections
        Their tables may hold ``obs["sthisto_split"]``, which `pp.split` writes; without it every spot is trained on.
    validation
        Share of each section's training spots, in spatial blocks, that become "val" where there are none.
    seed
        Seed of the choice of blocks.

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


def warn_of_overlap(sections: Sequence[Section], roles: Sequence[np.ndarray], patch: PatchSpec) -> None:
    """Warn of training spots whose patches share pixels with those of test spots.

    Parameters
    ----------
    roles
        (n_spots,) role of every spot of each section.
    patch
        The patches, whose widest context counts.
    """
    for section, role in zip(sections, roles, strict=True):
        width, fitted = patch.width_on(section.um_per_px), np.isin(role, FITTED)
        overlapping = shares_pixels(section.centers, role == TEST, width) & fitted
        if overlapping.any():
            logger.warning(
                "%d of %d training spots of section %r see pixels that test spots see too (%.0f px wide): scores on "
                "these are too high. Pass margin=%.0f to sth.pp.split. Where the section is too small for it, hold out "
                "sections or patients, or fit a narrower view: a smaller `patch_um` or `context`, or `texture_context` "
                "of methods that have it.",
                overlapping.sum(),
                fitted.sum(),
                section.name,
                width,
                width,
            )


def read_patients(sections: Sequence[Section], patient_key: str) -> list[str]:
    """Return the patient of each section, or another property that all its spots share, from a column of obs.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        The spots of a section name several patients, or none.
    """
    patients = [_patient(section, patient_key) for section in sections]
    _warn_of_names_alike(patients)
    return patients


def known_patients(sections: Sequence[Section], patient_key: str | None = None) -> list[str]:
    """Return the patient of each section; empty where any section names none or several.

    Parameters
    ----------
    patient_key
        Column of ``obs`` with the patient. None: the one that `pp.split` was given, else "patient".

    Raises
    ------
    KeyError, ValueError
        As for `read_patients`, for a `patient_key` that is given.
    """
    if patient_key is not None:
        return read_patients(sections, patient_key)
    names = []
    for section in sections:
        key = str(section.table.uns.get(SPLIT, {}).get("patient_key", "")) or PATIENT
        column = section.table.obs.get(key)
        found = [] if column is None else _named(column.iloc[section.rows])
        if len(found) != 1:
            return []
        names.append(str(found[0]))
    return names


def _patient(section: Section, patient_key: str) -> str:
    check_key(patient_key, section.table.obs.columns, name="patient_key", where="the columns of obs")
    names = _named(section.table.obs[patient_key].iloc[section.rows])
    if len(names) != 1:
        msg = f"Section {section.name!r} must belong to one patient; obs[{patient_key!r}] names {listed(names)}."
        raise ValueError(msg)
    return str(names[0])


def _named(column: pd.Series) -> list[str]:
    """Return the different names in a column; missing ones are left out."""
    return [str(name) for name in pd.unique(read_known_names(column)) if name is not None]


def _warn_of_names_alike(patients: Sequence[str]) -> None:
    """Warn of patients whose names differ by case, zeros or separators alone: they may be one."""
    alike: dict[str, list[str]] = {}
    for name in sorted(set(patients)):
        plain = re.sub(r"[\s_.-]+", "-", re.sub(r"(?<!\d)0+(?=\d)", "", name.casefold()))
        alike.setdefault(plain, []).append(name)
    for names in alike.values():
        if len(names) > 1:
            logger.warning(
                "Patients %s differ by case, zeros or separators alone and count as different ones: where they are "
                "one, it stands on both sides of a split. Name them alike.",
                listed(names),
            )


def warn_of_shared_patients(
    patients: Sequence[str] | None, held_out: Sequence[Sequence[np.ndarray]], *, what: str
) -> None:
    """Warn of patients with spots on both sides: scores then do not generalize to a new patient.

    Parameters
    ----------
    patients
        The patient of each section; None warns that patients are unknown.
    held_out
        For each fold, or for the one split, (n_spots,) bool of every section: the spots that are tested.
    what
        What the warning calls it: "split" or "folds".
    """
    if patients is None:
        logger.warning(
            "Spots are not held out by patient: scores do not generalize to a new patient. Pass patient_key=… to see "
            "which patients stand on both sides of the %s.",
            what,
        )
        return
    shared: set[str] = set()
    for fold in held_out:
        tested = {name for name, out in zip(patients, fold, strict=True) if out.any()}
        shared |= tested & {name for name, out in zip(patients, fold, strict=True) if not out.all()}
    if shared:
        logger.warning(
            "Patients %s stand on both sides of the %s: scores do not generalize to a new patient.",
            listed(sorted(shared)),
            what,
        )
