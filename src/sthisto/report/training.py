"""The parts of a report on what was trained on what, and on the model's passport."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sthisto._sdata.slots import CALIBRATION, SPLIT, TEST, TRAIN, VALIDATION
from sthisto.pl._read import scale_label
from sthisto.report.page import Block, Table, as_cell, with_interval
from sthisto.report.subject import Subject

_ROLES = {TRAIN: "train", VALIDATION: "validation", CALIBRATION: "calibration", TEST: "test"}


def method_block(subject: Subject) -> Block:
    """Return what is known of the method: its settings, or that it was made elsewhere."""
    record = subject.record
    scale = "unknown" if record.normalization is None else scale_label(record.normalization)
    facts = {"method": subject.label, "key": subject.key, "scale": scale, "genes": f"{len(subject.genes):,}"}
    if record.genes_rule:
        facts["how genes were chosen"] = record.genes_rule
    if subject.is_given:
        text = [
            "This prediction was not made by sthisto: what its model was trained on is not recorded in the data. Ask "
            "whether any section or patient below took part."
        ]
    else:
        text = []
        facts |= _fitted(subject)
    rows = [[name, value] for name, value in facts.items()]
    return Block("What was trained on what", text, tables=[Table("The method", ["", ""], rows), _split(subject)])


def _fitted(subject: Subject) -> dict[str, str]:
    record, facts = subject.record, {}
    if record.image_encoder:
        layer = f", {record.encoder_layer}" if record.encoder_layer else ""
        facts["image encoder"] = f"{record.image_encoder}{layer}"
    if record.patch is not None:
        um = record.patch.um_per_px
        facts["patch"] = f"{record.patch.size} px" + ("" if um is None else f" of {um * record.patch.size:.0f} µm")
    if record.training_sections:
        facts["trained on"] = ", ".join(record.training_sections)
    if record.parameters:
        facts["options"] = ", ".join(f"{name}={value}" for name, value in record.parameters.items())
    return facts | {"sthisto that fitted it": record.version}


def _split(subject: Subject) -> Table:
    """Return the spots of each section by their role."""
    has_split = any(SPLIT in section.table.obs for section in subject.sections)
    rows = []
    for section in subject.sections:
        role = subject.column(section, SPLIT)
        counts = {} if role is None else role.astype(str).value_counts().to_dict()
        roles = [name for key, name in _ROLES.items()] if has_split else []
        by_role = {name: int(counts.get(key, 0)) for key, name in _ROLES.items() if name in roles}
        rows.append(
            {"section": section.name, "spots": len(section)}
            | by_role
            | {
                "predicted": int(subject.predicted_spots(section).sum()),
                "trained on": "not known" if subject.is_given else int(subject.seen_spots(section).sum()),
                "µm per px": section.um_per_px,
            }
        )
    frame = pd.DataFrame(rows)
    empty = [name for name in ("validation", "calibration") if name in frame and not frame[name].any()]
    caption = "Spots of each section by their role in the split" if has_split else "Spots of each section; no split"
    return Table.of(frame.drop(columns=empty).astype(object), caption)


def passport_block(passport: pd.DataFrame | None) -> Block | None:
    """Return which genes of a model can be used, None where that was not assessed."""
    if passport is None or passport.empty:
        return None
    frame = passport.sort_values("pcc_residual", ascending=False)
    shown = pd.DataFrame({"gene": frame["gene"]})
    if "verdict" in frame:
        shown["verdict"] = frame["verdict"]
    low, high = (frame.get(f"pcc_residual_{end}", pd.Series(np.nan, frame.index)) for end in ("low", "high"))
    shown["residual PCC"] = [
        with_interval(value, a, b) for value, a, b in zip(frame["pcc_residual"], low, high, strict=True)
    ]
    for name in ("pcc", "depth", "color", "ridge", "reproducibility", "sibling"):
        if name in frame:
            shown[name] = [as_cell(_number(value)) for value in frame[name]]
    items = [f"{verdict}: {count} genes" for verdict, count in frame.get("verdict", pd.Series()).value_counts().items()]
    text = ["Scores of the model's recipe on groups of training data that were held out, gene by gene."]
    return Block("Passport: which genes", text, items, [Table.of(shown, f"All {len(shown):,} genes", folded=True)])


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
