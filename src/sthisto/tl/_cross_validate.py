"""Run methods on folds and score what each says of spots that it could not have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sthisto import __version__
from sthisto._scoring.summary import overall_means, section_means, with_reproducibility
from sthisto._sdata.inputs import seen_width
from sthisto._sdata.keys import ELEMENT_KEYS, ElementKeys
from sthisto._sdata.sections import as_cohort, read_sections
from sthisto._sdata.slots import CROSS_VALIDATION, GENES_GIVEN, GENES_VARIABLE, SELECTED_GENES
from sthisto._sdata.tables import selection_rule
from sthisto._sdata.targets import read_sets
from sthisto._sdata.write import apply, check_slot, uns_updates
from sthisto._splits.folds import make_folds
from sthisto._utils.arguments import checked
from sthisto._utils.checks import mapping, mapping_to, texts
from sthisto._utils.deprecate import METHOD_NAMES
from sthisto._utils.jobs import run_calls
from sthisto._utils.targets import is_proportions
from sthisto._utils.validate import check_choice
from sthisto.models.registry import method_name
from sthisto.tl._fit import check_fit
from sthisto.tl._fold_run import FoldContext, FoldRun, load_shared_encoder

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

_OWN = ("method", "seed", "checkpoint", "key_added")
_SUMMARY = ["method", "seed", "fold"]
_OPTIONS = mapping_to(mapping("a mapping"), "a mapping from method to a mapping of its options")


@checked(methods=texts, options=_OPTIONS)
def cross_validate(
    sdata: SpatialData | Sequence[SpatialData],
    methods: str | Sequence[str] = "danet",
    *,
    groups: str = "patient",
    n_folds: int | None = None,
    seeds: int = 3,
    patient_key: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    counts_layer: str | None = None,
    out: str | Path | None = None,
    n_jobs: int = 1,
    key_added: str = CROSS_VALIDATION,
    **fit_arguments: Any,
) -> None:
    """Hold out each patient, section or band of a section in turn, and score every method on what was held out.

    All that is fitted is fitted within the fold: the choice of genes (where `genes` does not fix them), the
    normalization, the choice of epoch, the model. A method is given a SpatialData in which the held-out spots do not
    exist; to predict, one in which their expression is zero. It is given back for the scoring alone.

    Parameters
    ----------
    sdata
        One SpatialData or a list of them. An ``obs["sthisto_split"]`` that is there is not looked at.
    methods
        Names that `sthisto.models.available` lists.
    groups
        What stays on one side of a fold: a column of ``obs`` with one value a section, such as "patient"; "section"
        for every section by itself; or "block" for bands across each section, with the training spots between them
        left out whose patch, with its widest context, shares pixels with a held-out one's.
    n_folds
        Folds that the groups are dealt to; None holds out one group at a time, and cuts a section into 5 bands.
    seeds
        Number of seeds, from 0, that each method is fitted with on each fold. The folds stay the same.
    patient_key
        Column of ``obs`` that names the patient, to warn where `groups` puts one on both sides.
    options
        Method -> its options, such as ``{"danet": {"k": 50}}``.
    counts_layer
        Layer of raw counts, see `tl.evaluate`.
    out
        Folder that keeps each finished fold in a file. Called again after it was killed, it goes on with the next. A
        file is used only where counts, fold, method, seed and all arguments are the same; pixels are not looked at.
    n_jobs
        Processes that fit at the same time, -1 for one a core; joblib's backends work, such as dask's within
        ``joblib.parallel_config("dask")``. The scores are the same; the seconds of a fit are those of a busy machine.
    key_added
        Key of ``uns`` that is written.
    **fit_arguments
        Arguments of `tl.fit`: image_encoder, genes, patch_size, image_key and the others, but `method`, `seed`,
        `checkpoint` and `key_added`.

    Returns
    -------
    None. Writes ``uns["{key_added}"]``: "scores", one row a method, seed, fold, section and gene with the columns of
    `tl.evaluate`; "summary", one row a method, seed, fold, section and set of genes with seconds_fit and
    seconds_predict, and section "all" for the mean over sections of all folds. `get.scores` reads both.

    Raises
    ------
    KeyError
        An element, or the column `groups`, is missing.
    ValueError
        A name is no method, there are too few groups, or a spot stands on both sides of a fold (recognized by its
        pixels, whatever it is called).
    TypeError
        A method has no such option, or an argument is one that folds decide.

    Notes
    -----
    Scores between patients say what to expect of a new patient; those between sections of one patient or bands of one
    section do not, and the logger says so.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=3, n_patients=3)
    >>> sth.tl.cross_validate(sdata, ["color", "mean"], groups="patient", seeds=1)
    >>> sth.get.scores(sdata, key_added="sthisto_cv", by="section")[["fold", "pcc_residual"]]  # doctest: +SKIP
    """
    wanted = [methods] if isinstance(methods, str) else list(methods)
    names = list(dict.fromkeys(method_name(name, name="methods") for name in wanted))
    own = {METHOD_NAMES.get(name, name): of_method for name, of_method in (options or {}).items()}
    for name in own:
        check_choice(name, names, name="options")
    if refused := [name for name in _OWN if name in fit_arguments or any(name in one for one in own.values())]:
        msg = f"`{refused[0]}` is no argument here: each fold, method and seed has its own."
        raise TypeError(msg)
    if refused := [name for name in ELEMENT_KEYS if any(name in one for one in own.values())]:
        msg = f"`{refused[0]}` is the same for all methods: pass it as an argument, not among the options of one."
        raise TypeError(msg)
    for name in names:
        check_fit(name, {**fit_arguments, **own.get(name, {})})
    if fit_arguments.get("target_sets") is not None:  # a file is read once, so that kept folds know what it held
        fit_arguments["target_sets"] = read_sets(fit_arguments["target_sets"])
    keys = ElementKeys(**{name: fit_arguments.get(name) for name in ELEMENT_KEYS})
    sections = read_sections(sdata, keys)
    for section in sections:
        check_slot(section.table, "uns", key_added)
    width = seen_width(sections, {name: {**fit_arguments, **own.get(name, {})} for name in names})
    folds = make_folds(sections, groups, n_folds, patient_key, width)
    encoder = load_shared_encoder(names, fit_arguments)
    job = FoldContext(as_cohort(sdata), sections, encoder, fit_arguments, counts_layer)
    runs = [FoldRun(fold, name, seed, own.get(name, {})) for fold in folds for name in names for seed in range(seeds)]
    kept = None if out is None else Path(out)
    parts = run_calls(job.finished, [(run, kept) for run in runs], n_jobs=n_jobs)
    scores = pd.concat(parts, ignore_index=True)
    record = {
        "version": __version__,
        "method": "cross_validate",
        "groups": groups,
        "folds": [fold.name for fold in folds],
        "genes_rule": _genes_rule(sections[0].table, fit_arguments),
        "scores": scores.drop(columns=["seconds_fit", "seconds_predict"]),
        "summary": _summary(scores),
    }
    apply(uns_updates(sections, key_added, record))


def _genes_rule(table: AnnData, fit_arguments: Mapping[str, Any]) -> str:
    """Return how the genes of each fold are chosen; a choice that saw withheld spots is made anew."""
    if is_proportions(fit_arguments.get("target") or ""):
        return GENES_GIVEN
    is_panel = any(fit_arguments.get(name) is not None for name in ("genes", "target_sets")) or (
        SELECTED_GENES in table.var and selection_rule(table) == GENES_GIVEN
    )
    return GENES_GIVEN if is_panel else GENES_VARIABLE


def _summary(scores: pd.DataFrame) -> pd.DataFrame:
    parts = []
    for values, part in scores.groupby(_SUMMARY, sort=False):
        seconds = {name: part[name].iloc[0] for name in ("seconds_fit", "seconds_predict")}
        parts.append(section_means(part).assign(**dict(zip(_SUMMARY, values, strict=True)), **seconds))
    by_section = pd.concat(parts, ignore_index=True)
    overall = overall_means(by_section, ["method", "seed", "genes"]).assign(section="all", fold="all")
    table = with_reproducibility(pd.concat([by_section, overall], ignore_index=True))
    return table[[*_SUMMARY, *(name for name in table if name not in _SUMMARY)]]
