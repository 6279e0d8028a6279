"""From predictions of held-out groups to the passport of a model: scores, intervals and a verdict for each gene."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from sthisto._scoring.group_interval import group_interval
from sthisto._scoring.measure import Measured
from sthisto._scoring.score import ScoreOptions, score_genes
from sthisto._scoring.summary import gene_means
from sthisto._utils.verdicts import DO_NOT_USE, PATTERN_ONLY, USE
from sthisto.metrics._bootstrap import resample_genes
from sthisto.models.passport import COLUMNS

COLOR: Final = "color"
RIDGE: Final = "ridge"
DEPTH: Final = "depth"
"""Keys of the baselines' predictions."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What was measured and predicted on the spots of one section that a fold held out.

    Attributes
    ----------
    group
        The patient, section or band that they belong to.
    measured
        Its predictions are those of the model, by `keys`, of `COLOR` and, where the model has an encoder, of `RIDGE`.
    options
        What scores depend on beside it.
    keys
        Keys of the model's predictions, one for each seed.
    """

    group: str
    measured: Measured
    options: ScoreOptions
    keys: Sequence[Hashable]


@dataclass(frozen=True, eq=False)
class _Scores:
    """Residual scores of the genes of one section, (n_genes,) each, and their sampling variances."""

    model: np.ndarray
    color: np.ndarray
    ridge: np.ndarray
    depth: np.ndarray
    variance: np.ndarray
    less_color: np.ndarray
    less_depth: np.ndarray
    plus_depth: np.ndarray


def passport_table(parts: Sequence[HeldOut], *, groups: str, n_boot: int = 500, seed: int = 0) -> pd.DataFrame:
    """Return the passport of a model.

    Parameters
    ----------
    parts
        The held-out spots of every section.
    groups
        What was held out: "patient", "section", "block", or another column of ``obs``.
    n_boot
        Resamples of each section's blocks, for the sampling variance within groups.
    seed
        Of the resamples.

    Returns
    -------
    One row per gene with the columns of `sthisto.models.passport.COLUMNS`.
    """
    names = list(dict.fromkeys(part.group for part in parts))
    group = np.array([names.index(part.group) for part in parts])
    scores = [_score(part, n_boot=n_boot, seed=seed) for part in parts]

    def mean(values: Sequence[np.ndarray]) -> np.ndarray:
        return _over(_of_groups(np.stack(values), group))

    def variance(name: str) -> np.ndarray:
        return _variance_of_groups(np.stack([vars(one)[name] for one in scores]), group)

    model = _of_groups(np.stack([one.model for one in scores]), group)
    residual = group_interval(model, variance("variance"))
    depth, color = mean([one.depth for one in scores]), mean([one.color for one in scores])
    sign = np.where(depth < 0, -1.0, 1.0)
    by_depth = np.abs(depth) > np.nan_to_num(color)
    baseline = [np.where(by_depth, sign * one.depth, one.color) for one in scores]
    of_depth = np.where(sign < 0, variance("plus_depth"), variance("less_depth"))
    gain = group_interval(
        model - _of_groups(np.stack(baseline), group), np.where(by_depth, of_depth, variance("less_color"))
    )
    references, pcc = _references(parts)
    columns = {
        "gene": list(parts[0].measured.genes),
        "verdict": verdicts(residual.low, gain.mean_low),
        "pcc_residual": residual.mean,
        "pcc_residual_low": residual.low,
        "pcc_residual_high": residual.high,
        "gain": gain.mean,
        "gain_low": gain.mean_low,
        "pcc": mean(pcc),
        "depth": depth,
        "color": color,
        "ridge": mean([one.ridge for one in scores]),
        "sibling": references["sibling"].to_numpy(),
        "reproducibility": references["reproducibility"].to_numpy(),
        "n_groups": residual.n_groups,
        "groups": groups,
    }
    return pd.DataFrame(columns)[list(COLUMNS)]


def verdicts(low: np.ndarray, gain_low: np.ndarray) -> np.ndarray:
    """Return the verdict on each gene, (n_genes,).

    Parameters
    ----------
    low
        (n_genes,) lower bound of the residual score in a further group, NaN where it is unknown.
    gain_low
        (n_genes,) lower bound of the mean of what the score exceeds that of depth and color by.
    """
    is_predicted = np.nan_to_num(low, nan=-1.0) > 0
    is_more = np.nan_to_num(gain_low, nan=-1.0) > 0
    return np.where(is_predicted & is_more, USE, np.where(is_predicted, PATTERN_ONLY, DO_NOT_USE)).astype(object)


def _score(part: HeldOut, *, n_boot: int, seed: int) -> _Scores:
    """Score the model, its baselines and depth on the same resamples of the section's blocks."""
    one = part.measured.with_depth(DEPTH)
    keys = [*part.keys, COLOR, DEPTH, *([RIDGE] if RIDGE in one.predictions else [])]
    resampled = resample_genes(
        one.residuals, [one.predictions[key] for key in keys], one.blocks, n_boot=n_boot, seed=seed
    )
    by_key = dict(zip(keys, resampled, strict=True))
    model = np.mean([by_key[key] for key in part.keys], axis=0)  # (1 + n_boot, n_genes)
    color, depth = by_key[COLOR], by_key[DEPTH]
    independent = np.square(1 - np.square(model[0])) / max(len(one) - 1, 1)
    n_blocks = len(np.unique(one.blocks))
    return _Scores(
        model=model[0],
        color=color[0],
        ridge=by_key[RIDGE][0] if RIDGE in by_key else np.full(len(one.genes), np.nan),
        depth=depth[0],
        variance=np.maximum(_variance(model, n_blocks), independent),
        less_color=_variance(model - color, n_blocks),
        less_depth=_variance(model - depth, n_blocks),
        plus_depth=_variance(model + depth, n_blocks),
    )


def _variance(resampled: np.ndarray, n_blocks: int) -> np.ndarray:
    """Return the variance over resamples of blocks, (n_genes,), as of a sample; 0 without resamples or blocks."""
    if n_blocks < 2 or len(resampled) < 2:
        return np.zeros(resampled.shape[1])
    return np.nan_to_num(np.var(resampled[1:], axis=0)) * n_blocks / (n_blocks - 1)


def _of_groups(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Average (n_sections, n_genes) values over the sections of each group, (n_groups, n_genes)."""
    return np.stack([_over(values[group == i]) for i in range(group.max() + 1)])


def _variance_of_groups(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the variances of the groups' means, (n_groups, n_genes), of (n_sections, n_genes) variances."""
    counts = np.bincount(group)
    return _of_groups(values, group) / counts[:, None]


def _over(values: np.ndarray) -> np.ndarray:
    """Return the mean of each column without its NaN, (n_columns,); NaN for a column of NaN."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def _references(parts: Sequence[HeldOut]) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """Return each gene's references, and its raw score in each section, (n_genes,) each, as the mean over seeds."""
    tables, raw = [], []
    for part in parts:
        first, *others = part.keys
        table = score_genes(part.measured, first, part.options)
        rest = [score_genes(part.measured, key, part.options, references=[]) for key in others]
        varying = table["depth_pcc"].notna().to_numpy()
        of_seeds: list[Any] = [one["pcc"].to_numpy() for one in (table, *rest)]
        raw.append(np.mean([np.where(np.isnan(pcc) & varying, 0.0, pcc) for pcc in of_seeds], axis=0))
        tables.append(table)
    return gene_means(pd.concat(tables, ignore_index=True), ["sibling", "reproducibility"]), raw
