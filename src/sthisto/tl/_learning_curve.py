"""What more training data would bring: scores of held-out groups by the size of the training set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np
import pandas as pd
from scipy.stats import t

from sthisto._scoring.power_law import fit_power_law
from sthisto._scoring.summary import section_means
from sthisto._sdata.inputs import seen_width
from sthisto._sdata.keys import ELEMENT_KEYS, ElementKeys
from sthisto._sdata.sections import Section, as_cohort, read_sections
from sthisto._sdata.slots import ALL_GENES
from sthisto._splits.folds import Fold, make_folds
from sthisto._splits.learning import By, learning_sizes, parts_of, trained_units
from sthisto._splits.roles import read_patients
from sthisto._utils.arguments import checked
from sthisto._utils.checks import choice, mapping
from sthisto._utils.logging import logger
from sthisto._utils.targets import is_proportions
from sthisto.models.registry import method_name
from sthisto.pp._select_genes import genes_to_model
from sthisto.tl._fit import check_fit
from sthisto.tl._fold_run import FoldContext, FoldRun, load_shared_encoder

if TYPE_CHECKING:
    from spatialdata import SpatialData

_OWN: Final = ("seed", "checkpoint", "key_added", "genes")
_LEVEL: Final = 0.95
COLUMNS: Final = (
    "by", "size", "n_spots", "n_sections", "pcc_residual", "low", "high", "pcc", "gain", "gain_low", "gain_high",
    "n_runs", "fitted", "extrapolated",
)  # fmt: skip


@checked(by=choice(*get_args(By)), options=mapping("a mapping of options"))
def learning_curve(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    method: str = "ridge",
    groups: str = "patient",
    by: By = "spots",
    sizes: Sequence[float] | None = None,
    n_folds: int | None = None,
    repeats: int = 3,
    patient_key: str | None = None,
    options: Mapping[str, Any] | None = None,
    genes: str | Sequence[str] | None = None,
    counts_layer: str | None = None,
    out: str | Path | None = None,
    **fit_arguments: Any,
) -> pd.DataFrame:
    """Score a method on held-out groups when it is trained on more and more data.

    It answers what one more patient, one more section, more spots or deeper sequencing would bring, before anybody pays
    for them. Folds are those of `tl.cross_validate`: each group is held out in turn, and the training set of the others
    is made smaller at random. The held-out spots always have all their counts, and all sizes of a fold are scored on
    the same genes.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    method
        Name that `sthisto.models.available` lists.
    groups
        Groups that are held out, as for `tl.cross_validate`: a column of ``obs``, "section" or "block".
    by
        "spots": a share of the training spots of each section. "sections" or "patients": a number of them. "depth": a
        share of the counts of the training spots, by binomial thinning.
    sizes
        Sizes of the training set: shares from 0 to 1 for "spots" and "depth", else numbers. None: a sixteenth, an
        eighth, …, all; or 1, 2, 4, …, all.
    n_folds
        Number of folds that the groups are assigned to. None: one group at a time.
    repeats
        Number of random parts of each size, each with a seed of its own for the method too.
    patient_key
        Column of ``obs`` that names the patient. None: `groups`, if this is a column.
    options
        Options of the method, such as ``{"k": 50}``.
    genes
        Genes to model. None: those of `tl.fit`, chosen once for each fold on all its training spots.
    counts_layer
        Layer of raw counts, as for `tl.evaluate`.
    out
        Folder that keeps each finished run, as for `tl.cross_validate`.
    **fit_arguments
        Arguments of `tl.fit`, except `method`, `seed`, `checkpoint` and `key_added`.

    Returns
    -------
    One row per size: by, size, n_spots and n_sections (means over runs), pcc_residual and pcc (means over genes,
    sections, repeats and folds), low and high (interval of pcc_residual at 95 % by Student's t over the folds; NaN for
    a single fold, wide for two), gain over the size before with gain_low and gain_high (paired by fold), n_runs, and
    fitted, the power law ``limit - scale * size ** -exponent``. Where that law holds (four sizes, scores that rise,
    90 % of their variance explained), a last row with ``extrapolated=True`` holds its value for twice the spots or
    depth, or one more section or patient; else fitted is NaN. Nothing is written.

    Raises
    ------
    ValueError
        There are fewer than two sizes, a size is out of range, or as for `tl.cross_validate`.
    KeyError
        An element, or a column, is missing.
    TypeError
        The method has no such option, or an argument is decided here.

    Notes
    -----
    Serial sections of one patient are nearly the same tissue: with ``groups="section"`` the curve says what they bring
    to each other, not to a new patient.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=3, n_patients=3)
    >>> table = sth.tl.learning_curve(sdata, method="color", by="spots", sizes=[0.25, 1], repeats=1)
    >>> table[["size", "n_sections", "extrapolated"]]
       size  n_sections  extrapolated
    0  0.25         2.0         False
    1  1.00         2.0         False
    """
    method = method_name(method)
    own = dict(options or {})
    if refused := [name for name in (*_OWN, *ELEMENT_KEYS) if name in own or (name in _OWN and name in fit_arguments)]:
        msg = f"`{refused[0]}` is no option here: pass genes and element keys as arguments, and leave out the others."
        raise TypeError(msg)
    check_fit(method, {**fit_arguments, **own})
    keys = ElementKeys(**{name: fit_arguments.get(name) for name in ELEMENT_KEYS})
    sections = read_sections(sdata, keys)
    width = seen_width(sections, {method: {**fit_arguments, **own}})
    folds = make_folds(sections, groups, n_folds, patient_key, width)
    units = _units(sections, by, groups, patient_key)
    fewest = min(len(trained_units(fold, units)) for fold in folds)
    of_curve = learning_sizes(by, sizes, fewest)
    encoder = load_shared_encoder([method], fit_arguments)
    context = FoldContext(as_cohort(sdata), sections, encoder, fit_arguments, counts_layer)
    kept = None if out is None else Path(out)
    of_targets = "target_sets" in fit_arguments or is_proportions(fit_arguments.get("target") or "")
    rows = []
    for fold in folds:
        modeled = {} if of_targets else {"genes": _genes_of(context, fold, genes)}
        for size in of_curve:
            for seed, part in parts_of(fold, by, size, units, repeats=repeats):
                scores = context.finished(FoldRun(part, method, seed, own | modeled), kept)
                rows.append({"fold": fold.name, "size": size, **_counted(part), **_means(scores)})
    return _table(pd.DataFrame(rows), by)


def _units(sections: Sequence[Section], by: By, groups: str, patient_key: str | None) -> list[str]:
    """Return what each section counts as: itself, or its patient."""
    if by != "patients":
        return [section.name for section in sections]
    column = patient_key or (None if groups in ("section", "block") else groups)
    if column is None:
        msg = f"by='patients' needs the column that names the patient: pass patient_key=… beside groups={groups!r}."
        raise ValueError(msg)
    return read_patients(sections, column)


def _genes_of(context: FoldContext, fold: Fold, genes: str | Sequence[str] | None) -> list[str]:
    """Return the genes to model, chosen on all training spots of a fold."""
    known, _ = context.sides(fold)
    arguments = context.arguments
    chosen, _ = genes_to_model(
        read_sections(known.sdata, context.keys(known)),
        genes,
        n_top_genes=arguments.get("n_top_genes", 1000),
        layer=arguments.get("layer"),
        gene_symbols=arguments.get("gene_symbols"),
        flavor=arguments.get("gene_flavor", "pearson_residuals"),
    )
    return chosen


def _counted(fold: Fold) -> dict[str, int]:
    return {
        "n_spots": int(sum(spots.sum() for spots in fold.train)),
        "n_sections": sum(bool(spots.any()) for spots in fold.train),
    }


def _means(scores: pd.DataFrame) -> dict[str, float]:
    """Return the mean of both scores over the modeled genes, then the held-out sections."""
    found = section_means(scores)
    of_all = found[found["genes"] == ALL_GENES]
    return {name: float(of_all[name].mean()) for name in ("pcc_residual", "pcc")}


def _table(runs: pd.DataFrame, by: By) -> pd.DataFrame:
    """Average runs over folds, with intervals, and add the power law where it holds."""
    by_fold = runs.groupby(["size", "fold"])["pcc_residual"].mean().reset_index()
    by_fold = by_fold.pivot_table(index="size", columns="fold", values="pcc_residual", dropna=False)
    table = runs.groupby("size", as_index=False)[["n_spots", "n_sections", "pcc_residual", "pcc"]].mean()
    table["n_runs"] = runs.groupby("size").size().to_numpy()
    table["pcc_residual"] = by_fold.mean(axis=1).to_numpy()
    table[["low", "high"]] = list(_intervals(by_fold))
    gains = by_fold.diff()
    table["gain"] = gains.mean(axis=1).to_numpy()
    table[["gain_low", "gain_high"]] = list(_intervals(gains))
    law = fit_power_law(table["size"].to_numpy(), table["pcc_residual"].to_numpy())
    table["fitted"] = np.nan if law is None else law(table["size"].to_numpy())
    table["extrapolated"] = False
    if law is None:
        logger.info("No power law fits these scores: more data than this cannot be extrapolated.")
    else:
        largest = table["size"].iloc[-1]
        beyond = largest + 1 if by in ("sections", "patients") else 2 * largest
        last = pd.DataFrame(
            {"size": [beyond], "fitted": law(np.array([beyond])), "n_runs": [0], "extrapolated": [True]}
        )
        table = pd.concat([table, last], ignore_index=True)
    return table.assign(by=by)[list(COLUMNS)]


def _intervals(by_fold: pd.DataFrame) -> Iterator[tuple[float, float]]:
    """Yield the interval of each row's mean over the folds, the columns."""
    for _, values in by_fold.iterrows():
        known = values.dropna().to_numpy(dtype=float)
        if len(known) < 2:
            yield np.nan, np.nan
            continue
        half = t.ppf(0.5 + _LEVEL / 2, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known))
        yield float(known.mean() - half), float(known.mean() + half)
