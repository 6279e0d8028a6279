"""The parts of a report on what was trained on what, and on the model's passport."""

from __future__ import annotations

import pandas as pd

from sthisto._sdata.slots import CALIBRATION, SPLIT, TEST, TRAIN, VALIDATION
from sthisto._utils.verdicts import VERDICTS
from sthisto.pl._read import scale_label
from sthisto.report.page import Block, Table, with_interval
from sthisto.report.subject import Subject

_OF_PASSPORT = {
    "pcc": "PCC",
    "depth": "depth alone",
    "color": "color",
    "ridge": "ridge",
    "sibling": "sibling genes",
    "reproducibility": "reproducibility",
}
_ROLES = {TRAIN: "train", VALIDATION: "validation", CALIBRATION: "calibration", TEST: "test"}


def method_block(subject: Subject) -> Block:
    """Return what is known of the method: its settings, or that it was made elsewhere."""
    record = subject.record
    scale = "unknown" if record.normalization is None else scale_label(record.normalization)
    facts = {"method": subject.label, "key": subject.key, "scale": scale, subject.what: f"{len(subject.genes):,}"}
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


def passport_block(subject: Subject) -> Block | None:
    """Return which genes of the model can be used, None where that was not assessed."""
    passport = subject.record.passport
    if passport is None or passport.empty:
        return None
    frame = passport.sort_values("pcc_residual", ascending=False)
    limits = zip(*(frame[f"pcc_residual{end}"] for end in ("", "_low", "_high")), strict=True)
    shown = pd.DataFrame({"gene": frame["gene"], "verdict": frame["verdict"].astype(str)})
    shown["residual PCC [90 %]"] = [with_interval(*row) for row in limits]
    for name, label in _OF_PASSPORT.items():
        shown[label] = frame[name].astype(float)
    counts = frame["verdict"].astype(str).value_counts()
    items = [f"{verdict}: {counts.get(verdict, 0):,} {subject.what}" for verdict in VERDICTS]
    groups = listed_once(frame["groups"])
    text = [
        "What the recipe of this model scores where parts of its training data are held out, gene by gene. Held out: "
        f"each {groups} in turn, {int(frame['n_groups'].max())} in all."
    ]
    table = Table.of(shown, f"All {len(shown):,} {subject.what}", folded=True)
    return Block(f"Passport: which {subject.what}", text, items, [table])


def listed_once(names: pd.Series) -> str:
    """Return the values of a column, each once."""
    return ", ".join(dict.fromkeys(names.astype(str)))
