"""Means of the genes' scores: over sets of genes and over sections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sthisto._scoring.score import SCORES
from sthisto._sdata.slots import ALL_GENES, MARKERS, MOST_EXPRESSED, MOST_VARIABLE, N_TOP

_NOT_AVERAGED = ("mean_expression", "reproducibility")


def gene_sets(
    mean: np.ndarray, *, variance: np.ndarray | None = None, is_marker: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return the sets of genes that means are taken over, as positions, (n,) each.

    Parameters
    ----------
    mean
        (n_genes,) mean expression in the section: of more than 50 genes, the 50 most expressed are a set.
    variance
        (n_genes,) variance there: the 50 most variable are another.
    is_marker
        (n_genes,) bool, a set where any gene is one.
    """
    sets = {ALL_GENES: np.arange(len(mean))}
    if len(mean) > N_TOP:
        sets[MOST_EXPRESSED] = _largest(mean)
        if variance is not None:
            sets[MOST_VARIABLE] = _largest(variance)
    if is_marker is not None and is_marker.any():
        sets[MARKERS] = np.flatnonzero(is_marker)
    return sets


def _largest(values: np.ndarray) -> np.ndarray:
    return np.argsort(-np.asarray(values), kind="stable")[:N_TOP]


def mean_over_genes(scores: pd.Series, varying: pd.Series) -> float:
    """Average a correlation over genes; NaN counts as 0 for a gene that varies and whose prediction does not.

    A method that predicts a constant for all genes has no correlation at all.

    Parameters
    ----------
    scores
        (n_genes,) correlations.
    varying
        (n_genes,) bool: the measurement varies.
    """
    if scores.isna().all():
        return float("nan")
    return float(scores.mask(scores.isna() & varying, 0.0).mean())


def summarize(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the mean scores of each section, and their mean over sections as section "all" (its n_spots is the sum).

    Parameters
    ----------
    scores
        One row per section and gene, as `score_genes` makes them.

    Returns
    -------
    Columns section, genes (see `gene_sets`), n_genes, n_spots, the mean of each score and reference, and
    reproducibility (root of the mean reliability).
    """
    by_section = section_means(scores)
    overall = overall_means(by_section, ["genes"]).assign(section="all")
    return with_reproducibility(pd.concat([by_section, overall], ignore_index=True))


def section_means(scores: pd.DataFrame) -> pd.DataFrame:
    """Average over the genes of each section, with the reliability from which `with_reproducibility` makes its root."""
    rows = []
    for name, part in scores.groupby("section", sort=False):
        for genes, at in gene_sets(part["mean_expression"].to_numpy()).items():
            rows.append({"section": name, "genes": genes, **_means(part.iloc[at])})
    return pd.DataFrame(rows)


def overall_means(by_section: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Average over sections, unweighted; n_spots is summed."""
    grouped = by_section.groupby(list(by), sort=False)
    overall = grouped.mean(numeric_only=True)
    overall["n_spots"] = grouped["n_spots"].sum()
    return overall.reset_index()


def with_reproducibility(means: pd.DataFrame) -> pd.DataFrame:
    """Turn mean reliabilities into reproducibilities, the root last, so that noise around zero cancels."""
    table = means.astype({"n_genes": int, "n_spots": int})
    table["reproducibility"] = np.sqrt(table.pop("reliability").clip(lower=0))
    return table


def _means(part: pd.DataFrame) -> dict[str, float]:
    """Return the mean of every column of scores and references over some genes of a section."""
    varying = part["depth_pcc_residual"].notna()
    means: dict[str, float] = {"n_genes": len(part), "n_spots": int(part["n_spots"].iloc[0])}
    numbers = [str(name) for name in part if part[name].dtype.kind == "f" and name not in _NOT_AVERAGED]
    for name in [*(one for one in SCORES if one in numbers), *(one for one in numbers if one not in SCORES)]:
        zero = name in SCORES and SCORES[name].is_correlation
        means[name] = mean_over_genes(part[name], varying) if zero else float(part[name].mean())
    return means


def gene_means(scores: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the mean of each gene's scores over sections; its reproducibility is the root of the mean reliability.

    The reproducibility is NaN for a gene that no section has one for: its intervals include zero.
    """
    means = scores.groupby("gene", sort=False)[[*columns, "reliability"]].mean()
    root = np.sqrt(means.pop("reliability").clip(lower=0))
    return means.assign(reproducibility=root.where(means["reproducibility"].notna()))
