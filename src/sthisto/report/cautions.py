"""What a reader of a report should beware of, told from the tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sthisto._sdata.slots import ALL_GENES, SPLIT, confidence
from sthisto.models.familiarity import UNLIKE
from sthisto.report.subject import GENES, Subject

_FEW_SPOTS = 50
_HALF = 0.5


def cautions(subject: Subject) -> list[str]:
    """Return sentences, none where there is nothing to beware of."""
    return [*_of_data(subject), *_of_scores(subject)]


def _of_data(subject: Subject) -> list[str]:
    found = []
    if subject.is_given:
        found.append("What this prediction's model was trained on is not recorded: a leak can't be excluded from here.")
    if not any(SPLIT in section.table.obs for section in subject.sections):
        found.append("There is no split: nothing says which spots were kept aside.")
    for section in subject.sections:
        known = subject.predicted_spots(section)
        if not known.all():
            found.append(f"{(~known).sum():,} of {len(section):,} spots of {section.name} have no prediction.")
        column = subject.column(section, confidence(subject.key))
        if column is not None and (low := _share_unlike(column)) > _HALF:
            found.append(f"{low:.0%} of the spots of {section.name} look unlike what the model was trained on.")
    trained = [one.name for one in subject.sections if subject.seen_spots(one).any()]
    if trained:
        found.append(f"The model was trained on spots of {', '.join(trained)}: maps of these show what it has seen.")
    if not any(section.um_per_px for section in subject.sections):
        found.append("The µm per px are unknown: sizes are in px.")
    return found


def _share_unlike(confidence: pd.Series) -> float:
    """Return the share of the known values that `tl.predict` warns of, 0 where none is known."""
    values = confidence.to_numpy(dtype=float)
    known = values[np.isfinite(values)]
    return float((known < UNLIKE).mean()) if len(known) else 0.0


def _of_scores(subject: Subject) -> list[str]:
    if subject.summary is None:
        return [
            "The prediction was not scored." if subject.is_measured() else "Nothing was measured: no score is possible."
        ]
    found = []
    whole = subject.summary[subject.summary["genes"] == ALL_GENES]
    overall = whole[whole["section"] == "all"].iloc[0]
    if pd.isna(overall["pcc_residual"]):
        found.append("The prediction does not vary between spots: it has no correlation.")
    elif not overall["pcc_residual_low"] > 0:
        found.append("The interval of the mean score includes 0, or there is none: it may be chance.")
    if pd.notna(overall["pcc_residual"]) and overall["depth_pcc"] >= overall["pcc"]:
        found.append(
            "On the raw scale, the spot's total count alone scores as high as the prediction: compare residual scores."
        )
    if pd.isna(overall["sibling"]) and subject.what == GENES:
        found.append("There are no training spots or other sections to take the sibling reference from.")
    few = whole[(whole["section"] != "all") & (whole["n_spots"] < _FEW_SPOTS)]["section"]
    if len(few):
        found.append(f"Fewer than {_FEW_SPOTS} spots were scored in {', '.join(few)}: their scores are noisy.")
    if len(whole) == 2:
        found.append("One section was scored: nothing here says how scores vary between patients.")
    return found
