"""Scores of the most confident spots alone, which tell whether the confidence is informative."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

import numpy as np
import pandas as pd

from sthisto._scoring.measure import Measured
from sthisto._scoring.summary import mean_over_genes
from sthisto.metrics import pearson

SHARES: Final = tuple(round(1 - 0.1 * i, 1) for i in range(8))
"""Shares of the spots that are kept, the most confident ones: from all to 0.3."""
GAIN: Final = "confidence_gain"
"""Column of the scores: mean residual score over `SHARES` below 1, less that of all spots."""
RISK_COVERAGE: Final = "risk_coverage"
"""Entry of the record that holds the scores by share of the spots."""
FEWEST_SPOTS: Final = 20


def selective_scores(one: Measured, prediction: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Return the residual score of each gene over the most confident shares of the spots, (n_shares, n_genes).

    NaN where fewer than 20 spots are left. Spots without confidence count as the least confident; spots of one
    confidence are ordered by their position.

    Parameters
    ----------
    one
        What was measured.
    prediction
        (n_spots, n_genes).
    confidence
        (n_spots,).
    """
    order = np.argsort(-np.nan_to_num(confidence, nan=-1.0), kind="stable")
    scores = np.full((len(SHARES), len(one.genes)), np.nan)
    for i, share in enumerate(SHARES):
        kept = order[: round(share * len(order))]
        if len(kept) >= FEWEST_SPOTS:
            scores[i] = pearson(one.residuals[kept], prediction[kept])
    return scores


def confidence_gain(one: Measured, prediction: np.ndarray, confidence: np.ndarray | None) -> np.ndarray:
    """Return how much the residual score of each gene gains as the least confident spots are left out, (n_genes,).

    It is the area between the curve of `selective_scores` and the score of all spots, divided by its width; NaN without
    confidence, or with too few spots.
    """
    if confidence is None or not np.isfinite(confidence).any():
        return np.full(len(one.genes), np.nan)
    scores = selective_scores(one, prediction, confidence)
    known = np.isfinite(scores[1:]).any(axis=0)
    gain = np.full(len(one.genes), np.nan)
    gain[known] = np.nanmean(scores[1:, known], axis=0) - scores[0, known]
    return gain


def risk_coverage(one: Measured, key: Hashable) -> pd.DataFrame:
    """Return the mean residual score over the most confident shares of the spots; no rows without confidence.

    Parameters
    ----------
    one
        What was measured and predicted.
    key
        Name of the prediction in it.

    Returns
    -------
    One row a share: section, share, n_spots, least_confidence (of the spots that are kept), pcc_residual (mean over
    genes).
    """
    columns = ["section", "share", "n_spots", "least_confidence", "pcc_residual"]
    if one.confidence is None or not np.isfinite(one.confidence).any():
        return pd.DataFrame({name: np.empty(0, dtype=object if name == "section" else float) for name in columns})
    scores = selective_scores(one, one.predictions[key], one.confidence)
    ordered = -np.sort(-np.nan_to_num(one.confidence, nan=0.0))
    varying = pd.Series(np.ptp(one.residuals, axis=0) > 0)
    rows = []
    for share, values in zip(SHARES, scores, strict=True):
        n_kept = round(share * len(one))
        if n_kept >= FEWEST_SPOTS:
            mean = mean_over_genes(pd.Series(values), varying)
            rows.append((one.name, share, float(n_kept), float(ordered[n_kept - 1]), mean))
    return pd.DataFrame(rows, columns=columns)
