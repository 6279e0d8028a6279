"""Errors of a fitted model on the spots that were set aside for its intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sthisto._sdata.measured import read_expression
from sthisto._sdata.slots import CALIBRATION
from sthisto._splits.blocks import cells
from sthisto._splits.roles import known_patients, read_roles
from sthisto._utils.logging import logger
from sthisto.models.conformal import Calibration, fit_calibration

if TYPE_CHECKING:
    from sthisto.models import ExpressionModel
    from sthisto.tl._prepare import Prepared


def calibrate(model: ExpressionModel, prepared: Prepared, *, patient_key: str | None) -> Calibration | None:
    """Return the errors of a fitted model on the spots marked "calibration"; None where there are none with counts.

    Parameters
    ----------
    prepared
        What the model was fitted on; its sections hold the spots.
    patient_key
        Column of ``obs`` with the patient; None is the one that `pp.split` was given.
    """
    roles = read_roles(prepared.sections)
    used = [i for i, role in enumerate(roles) if (role == CALIBRATION).any()]
    measured, predicted, sd, patients, blocks = [], [], [], [], []
    names = known_patients([prepared.sections[i] for i in used], patient_key) or [""] * len(used)
    for i, name in zip(used, names, strict=True):
        section, spots = prepared.sections[i], np.flatnonzero(roles[i] == CALIBRATION)
        truth = read_expression(
            section,
            spots,
            genes=prepared.genes,
            normalization=prepared.normalization,
            gene_symbols=prepared.gene_symbols,
        )
        prediction = model.predict(prepared.inputs[i])
        kept = spots[np.isfinite(truth[spots]).all(axis=1) & np.isfinite(prediction.expression[spots]).all(axis=1)]
        measured.append(truth[kept])
        predicted.append(prediction.expression[kept])
        sd += [] if prediction.sd is None else [prediction.sd[kept]]
        patients.append(np.full(len(kept), name, dtype=object))
        blocks.append(np.array([f"{i}-{cell}" for cell in cells(section.centers)[kept]], dtype=object))
    if not sum(len(part) for part in measured):
        return None
    found = fit_calibration(
        np.concatenate(measured),
        np.concatenate(predicted),
        np.concatenate(sd) if sd else None,
        patients=np.concatenate(patients),
        blocks=np.concatenate(blocks),
    )
    logger.info("Intervals: %d calibration patients, %d spatial blocks.", len(found.patient), len(found.block))
    return found
