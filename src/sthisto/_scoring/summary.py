"""Means of the genes' scores: of each section and over the sections, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

N_HIGHEST = 50
_CORRELATIONS = ("pcc", "pcc_residual", "pcc_partial_depth")
INTERVAL = ("pcc_residual_low", "pcc_residual_high")


def summarize(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the mean scores of each section, and their mean over sections as section "all" (its n_spots is the sum).

    Parameters
    ----------
    scores
        One row a section and gene, as `tl.evaluate` makes them.

    Returns
    -------
    Columns section, genes ("all modeled", or "top 50": the most expressed in that section), n_genes, n_spots, pcc,
    pcc_residual, pcc_partial_depth (given a spline of the log total count, whose knots are those of the training
    spots), rmse, depth_pcc, depth_pcc_residual, ceiling (root of the mean reliability), share_of_ceiling (mean
    pcc_residual of the same genes and spots by it, NaN where it is 0).
    """
    by_section = section_means(scores)
    overall = overall_means(by_section, ["genes"]).assign(section="all")
    return with_ceilings(pd.concat([by_section, overall], ignore_index=True))


def section_means(scores: pd.DataFrame) -> pd.DataFrame:
    """Average over the genes of each section, with the reliability from which `with_ceilings` makes the ceiling."""
    rows = []
    for name, part in scores.groupby("section", sort=False):
        rows += [{"section": name, "genes": genes, **_means(chosen)} for genes, chosen in gene_sets(part).items()]
    return pd.DataFrame(rows)


def overall_means(by_section: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Average over sections, which weigh alike; spots are added up."""
    grouped = by_section.groupby(list(by), sort=False)
    overall = grouped.mean(numeric_only=True)
    overall["n_spots"] = grouped["n_spots"].sum()
    return overall.reset_index()


def with_ceilings(means: pd.DataFrame) -> pd.DataFrame:
    """Turn mean reliabilities into ceilings, the root last, so that noise around zero cancels, and add the share."""
    table = means.astype({"n_genes": int, "n_spots": int})
    table["ceiling"] = np.sqrt(table.pop("reliability").clip(lower=0))
    table["share_of_ceiling"] = table["pcc_residual"] / table["ceiling"].where(table["ceiling"] > 0)
    return table


def gene_sets(part: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of a section's scores by set of genes: all, and the most expressed there."""
    sets = {"all modeled": part}
    if len(part) > N_HIGHEST:
        sets[f"top {N_HIGHEST}"] = part.nlargest(N_HIGHEST, "mean_expression")
    return sets


def _mean_correlation(part: pd.DataFrame, metric: str) -> float:
    """Average a correlation over genes: 0 where the measurement varies and the prediction does not.

    A method that predicts a constant for all genes has no correlation at all.
    """
    scores = part[metric]
    if scores.isna().all():
        return float("nan")
    return float(scores.mask(scores.isna() & part["depth_pcc_residual"].notna(), 0.0).mean())


def _means(part: pd.DataFrame) -> dict[str, float]:
    metrics = ["rmse", "depth_pcc", "depth_pcc_residual"]
    correlations = {metric: _mean_correlation(part, metric) for metric in _CORRELATIONS}
    return {
        "n_genes": len(part),
        "n_spots": int(part["n_spots"].iloc[0]),
        **correlations,
        **{metric: float(part[metric].mean()) for metric in metrics},
        "reliability": float(part["reliability"].mean()),
    }


def with_intervals(summary: pd.DataFrame, intervals: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Add the intervals of the sections, and those of their means, to which sections contribute independently."""
    known = pd.DataFrame(intervals, columns=["section", "genes", *INTERVAL]).astype(dict.fromkeys(INTERVAL, float))
    table = summary.merge(known, on=["section", "genes"], how="left", validate="one_to_one")
    half = (table[INTERVAL[1]] - table[INTERVAL[0]]) / 2
    overall = table["section"] == "all"
    for i in table.index[overall]:
        of_sections = half[~overall & (table["genes"] == table.loc[i, "genes"])]
        half_of_mean = np.sqrt(np.square(of_sections.to_numpy()).sum()) / len(of_sections)
        table.loc[i, list(INTERVAL)] = table.loc[i, "pcc_residual"] + np.array([-1, 1]) * half_of_mean
    return table
