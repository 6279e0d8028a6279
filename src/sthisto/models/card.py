"""The model card of a saved model: `README.md` with the metadata of the Hugging Face hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from sthisto._utils.targets import SET_MEANS, is_proportions
from sthisto._utils.verdicts import DO_NOT_USE, PATTERN_ONLY, USE
from sthisto.models.base import ExpressionModel
from sthisto.models.encoders.describe import EncoderTerms, terms_of
from sthisto.models.recipe import fit_call

FILE: Final = "README.md"
_MOST_NAMES: Final = 2000
_NOT_STATED: Final = "not stated"
_MEANING: Final = {
    USE: "expected to hold in a further {group}, and more than depth or color",
    PATTERN_ONLY: "follows the tissue's regions, and not clearly more than depth or color does",
    DO_NOT_USE: "not shown to be predicted",
}


def model_card(model: ExpressionModel) -> str:
    """Return the model card of a fitted model.

    It depends on the model alone, so that the same model always has the same card.
    """
    terms = terms_of(model.encoder) if model.has_encoder else None
    parts = [
        _metadata(model, terms),
        f"# {_title(model)}",
        "A model of [sthisto](https://sthisto.readthedocs.io) that predicts spatial gene expression from H&E images.",
        "## What it is\n\n" + _bullets(_facts(model)),
        "## Image encoder\n\n" + _encoder(model, terms),
        "## Training data\n\n" + _bullets(_training(model)),
        "## Which genes can be used\n\n" + _genes(model),
        "## Intended use\n\n" + _intended(model),
        "## What it is not for\n\n" + _not_for(model),
        f"## How it was made\n\n```python\n{_code(model)}\n```",
        "## How to use it\n\n```python\n" + _usage(model) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(model: ExpressionModel, terms: EncoderTerms | None) -> str:
    license_id = model.facts.get("license")
    lines = [f"license: {json.dumps(license_id or 'other')}"]
    if license_id is None:
        lines.append("license_name: not-stated")
    lines.append("library_name: sthisto")
    if terms is not None and terms.hub_id:
        lines.append(f"base_model: {json.dumps(terms.hub_id)}")
    tags = ["spatial-transcriptomics", "histology", "gene-expression", "sthisto"]
    if organ := model.facts.get("organ"):
        tags.append(str(organ))
    lines += ["tags:", *(f"- {json.dumps(tag, ensure_ascii=False)}" for tag in tags)]
    return "\n".join(["---", *lines, "---"])


def _title(model: ExpressionModel) -> str:
    organ = f" in {_plain(model.facts['organ'])}" if model.facts.get("organ") else ""
    return f"{type(model).label or model.method}: {len(model.genes)} genes from H&E{organ}"


def _facts(model: ExpressionModel) -> dict[str, str]:
    patch = model.patch
    width = f"{patch.size} px"
    if patch.um_per_px:
        width += f", {patch.size * patch.um_per_px:.4g} µm"
    views = (
        f", at {', '.join(f'{width:g}' for width in patch.context)} times that width" if patch.context != (1.0,) else ""
    )
    return {
        "Method": f"`{model.method}`",
        "Genes": f"{len(model.genes)}",
        "Scale of the prediction": _scale(model.normalization),
        "Patches": width + views,
        "µm per px": f"{patch.um_per_px:.4g}" if patch.um_per_px else "unknown: patches are cut in px",
        "License": str(model.facts.get("license", f"{_NOT_STATED}; the image encoder's terms apply in any case")),
    }


def _scale(normalization: dict[str, Any]) -> str:
    target = normalization.get("target")
    if target == "log1p":
        return f"log1p of counts scaled to {normalization.get('target_sum', 1e4):g} over all measured genes"
    if is_proportions(str(target)):
        return f"proportions that add up to one, as in {_plain(str(target))} of the training table"
    named = {
        "pearson_residuals": "Pearson residuals",
        "as_is": "that of the training table",
        SET_MEANS: "means of Pearson residuals over sets of genes",
    }
    return named.get(str(target), _NOT_STATED)


def _encoder(model: ExpressionModel, terms: EncoderTerms | None) -> str:
    if terms is None:
        return "None: the model looks at no features of a network."
    facts = {"Name": f"`{_plain(terms.name)}`", "License": terms.license, "Pretrained on": terms.cohort}
    if model.trains_encoder(model.options):
        facts["Trained"] = "its weights were trained further with this model and are part of it"
    return _bullets(facts)


def _training(model: ExpressionModel) -> dict[str, str]:
    patients = model.facts.get("patients")
    n_spots = np.bincount(model.training_spots.section, minlength=len(model.training_sections))
    sections = [f"{_plain(name)} ({n} spots)" for name, n in zip(model.training_sections, n_spots, strict=True)]
    return {
        "Organ or tissue": _plain(model.facts.get("organ", _NOT_STATED)),
        "Sections": _names(sections),
        "Patients": _names(map(_plain, patients)) if patients else _NOT_STATED,
    }


def _genes(model: ExpressionModel) -> str:
    passport = model.passport
    if passport is None:
        return (
            "**Not assessed.** Nobody has looked yet which of these genes are predicted in tissue that the model has "
            f"not seen: call `sth.tl.assess`. The genes: {_names(map(_plain, model.genes))}."
        )
    group, n_groups = str(passport["groups"].iloc[0]), int(passport["n_groups"].max())
    said = (
        f"By predictions on {n_groups} held-out groups (by {_plain(group)}), each by models that were fitted without "
        "it. Scores are Pearson correlations with Pearson residuals, on which sequencing depth alone scores about 0; "
        "the interval, at 90 %, is that of a further group."
    )
    if group in ("section", "block"):
        said += (
            " **All groups are of tissue that the training patients share: the verdicts say nothing of new patients.**"
        )
    parts = [said]
    for verdict, meaning in _MEANING.items():
        rows = passport[passport["verdict"] == verdict]
        parts.append(f"**{verdict}** ({len(rows)}; {meaning.format(group=_plain(group))})" + (_of(rows, verdict)))
    return "\n\n".join(parts)


def _of(rows: pd.DataFrame, verdict: str) -> str:
    if not len(rows):
        return ": none."
    if verdict != USE:
        return f": {_names(map(_plain, rows['gene']))}."
    ranked = rows.sort_values("pcc_residual", ascending=False, kind="stable")
    lines = ["| gene | residual PCC | interval | PCC | color | sibling genes |", "|---|---|---|---|---|---|"]
    for row in ranked.itertuples():
        interval = f"{row.pcc_residual_low:.2f} to {row.pcc_residual_high:.2f}"
        scores = (f"{row.pcc_residual:.2f}", interval, *(f"{value:.2f}" for value in (row.pcc, row.color, row.sibling)))
        lines.append(f"| {_plain(str(row.gene))} | {' | '.join(scores)} |")
    return ":\n\n" + "\n".join(lines)


def _intended(model: ExpressionModel) -> str:
    organ = model.facts.get("organ")
    tissue = f"H&E sections of {_plain(organ)}" if organ else "H&E sections of the same tissue"
    return (
        f"Research on {tissue}, prepared and scanned like the training sections: to look for patterns of "
        "the genes with the verdict `use`, and to choose what to measure."
    )


def _not_for(model: ExpressionModel) -> str:
    not_for = [
        "diagnosis, prognosis, or any other decision on a patient",
        "other organs, stains or species than those of the training sections",
        "genes with another verdict than `use`" if model.passport is not None else "any gene, before it was assessed",
        "differential expression or co-expression: predictions have no count noise, and correlate with each other",
        "mutations, treatments, or anything else that changes expression and does not change the tissue's look",
    ]
    return "\n".join(f"- {one}" for one in not_for)


def _code(model: ExpressionModel) -> str:
    target = model.normalization.get("target")
    given = {
        None: "# genes: the model's genes in its order, model.genes\n",
        SET_MEANS: "# target_sets: each set and its genes, as lines of model.normalization['targets'] name them\n",
    }
    comment = given.get(target if model.normalization.get("targets") else None, "")
    return f"import sthisto as sth\n\n{comment}model = {fit_call(model)}"


def _usage(model: ExpressionModel) -> str:
    chosen = ', genes="use"' if model.passport is not None else ""
    return "\n".join(
        [
            "import sthisto as sth",
            "",
            'model = sth.models.load("path/to/this/folder")',
            f"sth.tl.predict(sdata, model{chosen})",
        ]
    )


def _names(names: Iterable[str]) -> str:
    every = list(names)
    more = f", … ({len(every)} in all)" if len(every) > _MOST_NAMES else ""
    return ", ".join(every[:_MOST_NAMES]) + more


def _bullets(facts: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def _plain(value: str | Sequence[str]) -> str:
    """Return a text on one line in which Markdown and HTML mean nothing."""
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", text)
