"""The spots that each fold trains on and holds out, and what to say where a patient stands on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sthisto._sdata.inputs import patch_spec
from sthisto._sdata.sections import Section
from sthisto._splits.folds import block_folds, group_folds, near
from sthisto._utils.logging import logger
from sthisto.models import METHODS
from sthisto.pp._split import _patient

N_BANDS = 5


@dataclass(frozen=True)
class Fold:
    """Training and held-out spots, (n_spots,) bool for each section; some spots may be neither."""

    name: str
    train: list[np.ndarray]
    test: list[np.ndarray]


def make_folds(
    sections: Sequence[Section], groups: str, n_folds: int | None, patient_key: str | None, width: Sequence[float]
) -> list[Fold]:
    """Return the folds by a column of obs, "section" or "block", and warn where they put a patient on both sides.

    `width` is what is seen around a spot of each section, in px: the margin beside a band.
    """
    if groups == "block":
        _warn_of_patients(sections, None, patient_key)
        return _banded(sections, n_folds or N_BANDS, width)
    own = [section.name if groups == "section" else _patient(section, groups) for section in sections]
    if groups == "section" or patient_key is not None:
        _warn_of_patients(sections, own, patient_key)
    folds = []
    for name, held_out in group_folds(own, n_folds).items():
        test = [np.full(len(one), group in held_out) for one, group in zip(sections, own, strict=True)]
        folds.append(Fold(name, [~mine for mine in test], test))
    return folds


def _banded(sections: Sequence[Section], n_folds: int, width: Sequence[float]) -> list[Fold]:
    band = [block_folds(section.centers, n_folds) for section in sections]
    folds = []
    for i in range(n_folds):
        test = [mine == i for mine in band]
        beside = [near(one.centers, out, w) for one, out, w in zip(sections, test, width, strict=True)]
        train = [~(out | lost) for out, lost in zip(test, beside, strict=True)]
        if not any(mine.any() for mine in train):
            msg = (
                f"No training spot is left outside the margin of {max(width):.0f} px around band {i + 1}. Hold out "
                "sections, or take smaller patches or less context."
            )
            raise ValueError(msg)
        folds.append(Fold(f"band {i + 1}", train, test))
    return folds


def _warn_of_patients(sections: Sequence[Section], groups: Sequence[str] | None, patient_key: str | None) -> None:
    if patient_key is None:
        logger.warning(
            "The folds are not by patient: scores on them say nothing of a new patient. Pass patient_key=… to see "
            "which patients stand on both sides."
        )
        return
    patients = [_patient(section, patient_key) for section in sections]
    placed = list(zip(patients, groups or [""] * len(patients), strict=True))
    shared = sorted({name for name in patients if groups is None or len({g for p, g in placed if p == name}) > 1})
    if shared:
        logger.warning(
            "Patients %s stand on both sides of folds, with serial sections or parts of one: scores on them say "
            "nothing of a new patient.",
            ", ".join(map(repr, shared)),
        )


def seen_width(sections: Sequence[Section], arguments: Mapping[str, Mapping[str, Any]]) -> list[float]:
    """Return the width in px, of each section, of what the widest method sees around a spot.

    `arguments` are those of `tl.fit`, for each method.
    """
    widths = [_width(sections, name, own) for name, own in arguments.items()]
    return [max(of_section) for of_section in zip(*widths, strict=True)]


def _width(sections: Sequence[Section], method: str, arguments: Mapping[str, Any]) -> list[float]:
    spec = patch_spec(
        sections,
        patch_size=arguments.get("patch_size", 224),
        patch_um=arguments.get("patch_um"),
        context=arguments.get("context") or METHODS[method].default_context,
    )
    return [spec.width_on(section.um_per_px) for section in sections]
