"""The split into training, validation and test spots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from sthisto._sdata.columns import as_text
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.slots import CALIBRATION, GENES_VARIABLE, SELECTED_GENES, SPLIT, TEST, TRAIN, VALIDATION
from sthisto._sdata.write import Update, apply, obs_updates, removals, uns_updates
from sthisto._splits.blocks import shares_pixels, spatial_blocks
from sthisto._splits.roles import read_patients, warn_of_shared_patients
from sthisto._utils.arguments import checked
from sthisto._utils.checks import choice, label, labels, list_of, number, text
from sthisto._utils.defaults import PATCH_SIZE
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key

if TYPE_CHECKING:
    from spatialdata import SpatialData


_FEWEST_PATIENTS = 9
"""Patients to calibrate on below which there are no intervals at 90 % for new patients."""
_TEST = number(above=0, below=1).called("a share between 0 and 1") | labels

_CALIBRATION = number(least=0, below=1).called("a share from 0 to below 1") | text | list_of(label, "a list of names")


@checked(by=choice("patient", "section", "block"), test=_TEST, calibration=_CALIBRATION)
def split(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    by: Literal["patient", "section", "block"] = "patient",
    test: float | Sequence[str] = 0.25,
    validation: float = 0.1,
    calibration: float | Sequence[str] = 0.0,
    margin: float | None = None,
    patient_key: str | None = None,
    seed: int = 0,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
) -> None:
    """Divide the spots into training, validation and test spots.

    Only scores on a split by patient generalize to new patients: sections of one patient resemble each other, serial
    sections are nearly copies, and neighboring spots share most of their pixels.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    by
        What stays on one side of the split: a "patient", a "section", or a spatial "block" of a section.
    test
        Names of the patients or sections to test on, or the share of patients, sections or spots to draw at random.
    validation
        Share of each training section's spots, in spatial blocks, that become validation spots; they choose the epoch.
    calibration
        Spots that are not trained on, from whose errors `tl.predict(interval=…)` makes intervals. Names of the patients
        or sections, or the share of those that are not tested to draw at random. With by="block", and where the share
        makes fewer than the nine patients that intervals at 90 % for new patients need, spatial blocks are taken from
        each training section instead. 0: none.
    margin
        Width in px of the image's full resolution that a model sees around a spot, for blocks: the patch with its
        widest context. Training spots whose patch shares pixels with that of a test or calibration spot are left out.
        None: 224 px,
        the default patch without context; `tl.fit` warns where that is too little.
    patient_key
        Column of ``obs`` with the patient. Required for "patient"; for "section" and "block", used to warn of patients
        on both sides.
    seed
        Seed of the random draws.
    image_key
        H&E image, or a mapping from region to image. None: inferred if there is exactly one candidate; of several RGB
        images of one place, the finest.
    shapes_key
        Region or regions to use, shapes or labels. None: all regions that the table annotates.
    table_key
        Table that annotates the regions. None: inferred if there is exactly one.
    coordinate_system
        Coordinate system in which images and regions are aligned. None: inferred from those that both share.

    Returns
    -------
    None. Writes ``obs["sthisto_split"]``, categorical: "train", "val", "test" or "calibration";
    missing for spots that are left out
    (off tissue, outside the image, inside the margin, or in regions that `shapes_key` does not name); and
    ``uns["sthisto_split"]`` with `by` as "rule" and `patient_key`, by which `tl.fit` knows the patients. Removes highly
    variable genes of `pp.select_genes` that test spots helped to choose.

    Raises
    ------
    KeyError
        An element is missing, `patient_key` is not a column, or a name in `test` is not a patient or section.
    ValueError
        A share is not between 0 and 1, one side would be empty, or the spots of one section belong to several patients.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=3, n_patients=3)
    >>> sth.pp.split(sdata, by="patient", patient_key="patient")
    """
    if margin is not None and by != "block" and not calibration:
        msg = f"`margin` is a width in px for by='block' alone; found {margin!r} with by={by!r}. Leave it out."
        raise ValueError(msg)
    sections = read_sections(sdata, ElementKeys(image_key, shapes_key, table_key, coordinate_system))
    patients = None if patient_key is None else read_patients(sections, patient_key)
    if by == "block":
        held_out = [_drawn_blocks(section, test, seed + i) for i, section in enumerate(sections)]
        set_aside: set[str] = set()
        names = [section.name for section in sections]
    else:
        if by == "patient" and patients is None:
            msg = "by='patient' needs patient_key=…, the column of obs that names the patient."
            raise ValueError(msg)
        names = patients if by == "patient" and patients is not None else [section.name for section in sections]
        tested = _drawn_names(names, test, by, seed)
        set_aside = _set_aside(sorted(set(names) - tested), calibration, by, seed)
        held_out = [np.full(len(section), name in tested) for section, name in zip(sections, names, strict=True)]
    width = PATCH_SIZE if margin is None else margin
    blocks = 0.0 if set_aside else _share(calibration, by)
    roles = [
        np.full(len(section), CALIBRATION, dtype=object)
        if name in set_aside
        else _roles(section, out, validation, blocks, seed + i, width)
        for i, (section, name, out) in enumerate(zip(sections, names, held_out, strict=True))
    ]
    _check_sides(roles, calibrated=bool(calibration), margin=width)
    if by != "patient":
        warn_of_shared_patients(patients, [held_out], what="split")
    record = {"rule": by, "patient_key": patient_key or ""}
    apply([*obs_updates(sections, SPLIT, roles), *uns_updates(sections, SPLIT, record), *_outdated_genes(sections)])


def _outdated_genes(sections: Sequence[Section]) -> list[Update]:
    """Return the updates that remove highly variable genes chosen before the split, with the help of test spots."""
    chosen = [one for one in sections if one.table.uns.get(SELECTED_GENES, {}).get("rule") == GENES_VARIABLE]
    if chosen:
        logger.warning(
            "The highly variable genes in var[%r] were chosen before this split, from test spots too: they are "
            "removed. Call sth.pp.select_genes again, or leave the choice to sth.tl.fit.",
            SELECTED_GENES,
        )
    return [*removals(chosen, "var", [SELECTED_GENES]), *removals(chosen, "uns", [SELECTED_GENES])]


def _set_aside(names: Sequence[str], calibration: float | Sequence[str], by: str, seed: int) -> set[str]:
    """Return the patients or sections that are calibrated on; none where blocks of the training sections are."""
    if not isinstance(calibration, int | float | np.floating):
        return _drawn_names(names, calibration, by, seed, name="calibration")
    n_drawn = round(calibration * len(names))
    if by == "patient" and n_drawn < _FEWEST_PATIENTS:
        if calibration:
            logger.warning(
                "calibration=%g of %d patients are fewer than the %d that intervals at 90 %% for new patients need: "
                "spatial blocks of the training sections are set aside instead, and hold for the same patients.",
                calibration,
                len(names),
                _FEWEST_PATIENTS,
            )
        return set()
    return set(np.random.default_rng(seed + 1).permutation(names)[:n_drawn])


def _share(calibration: float | Sequence[str], by: str) -> float:
    """Return the share of each training section's spots that are calibrated on."""
    if isinstance(calibration, int | float | np.floating):
        return float(calibration)
    msg = f"by={by!r} needs `calibration` as a share of spots from 0 to below 1, found {calibration!r}."
    raise ValueError(msg)


def _drawn_names(
    names: Sequence[str], test: float | Sequence[str], by: str, seed: int, *, name: str = "test"
) -> set[str]:
    known = sorted(set(names))
    if not isinstance(test, int | float | np.floating):
        wanted = [test] if isinstance(test, str) else list(test)
        for one in wanted:
            check_key(
                as_text(one), known, name=name, where=f"the {by}s" + (" that are not tested" if name != "test" else "")
            )
        return {as_text(one) for one in wanted}
    if not 0 < test < 1:
        msg = f"`test` must be a share between 0 and 1, or names of {by}s, found {test!r}."
        raise ValueError(msg)
    n_test = max(1, round(test * len(known)))
    return set(np.random.default_rng(seed).permutation(known)[:n_test])


def _drawn_blocks(section: Section, test: float | Sequence[str], seed: int) -> np.ndarray:
    if not isinstance(test, int | float | np.floating) or not 0 < test < 1:
        msg = f"by='block' needs `test` as a share of spots between 0 and 1, found {test!r}."
        raise ValueError(msg)
    return spatial_blocks(section.centers, test, seed=seed)


def _roles(
    section: Section, held_out: np.ndarray, validation: float, calibration: float, seed: int, margin: float
) -> np.ndarray:
    roles = np.where(held_out, TEST, TRAIN).astype(object)
    known = np.flatnonzero(~held_out)
    roles[known[spatial_blocks(section.centers[known], calibration, seed=seed + 1)]] = CALIBRATION
    beside = shares_pixels(section.centers, roles != TRAIN, margin) | (
        shares_pixels(section.centers, held_out, margin) & (roles == CALIBRATION)
    )
    roles[beside] = None
    if beside.any():
        logger.info("%d of %d spots of %r lie in the margin and stay out.", beside.sum(), len(beside), section.name)
    train = np.flatnonzero(roles == TRAIN)
    roles[train[spatial_blocks(section.centers[train], validation, seed=seed)]] = VALIDATION
    return roles


def _check_sides(roles: Sequence[np.ndarray], *, calibrated: bool, margin: float) -> None:
    every = np.concatenate(roles)
    present, n_left_out = set(every), sum(role is None for role in every)
    for side in (TRAIN, TEST, *([CALIBRATION] if calibrated else [])):
        if side in present:
            continue
        if n_left_out:
            msg = (
                f"No spot would be {side!r}: {n_left_out} of {len(every)} spots lie in the margin of {margin:g} px and "
                "stay out. Hold out sections or patients, or pass a smaller `margin` and as narrow a view to "
                "sth.tl.fit (`patch_um`, `context`, `texture_context`)."
            )
        else:
            msg = f"No spot would be {side!r}. Change `test` or `calibration`, or add patients or sections."
        raise ValueError(msg)
