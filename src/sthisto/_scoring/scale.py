"""Which scale a prediction of unknown origin is on, told from its values and from what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import spearmanr

LIBRARY: Final = 1e4
"""Library size that measured counts are scaled to before log(1 + x)."""
_HIGHEST: Final = float(np.log1p(LIBRARY))
_HIGHEST_LOG: Final = float(np.log2(1 + 1e6))
"""Largest value of log1p, and of any usual logarithm."""
_SIZES: Final = (1e2, 1e7)
_SAME_SIZE: Final = 1.4
_NEGATIVE: Final = 0.15
_SHARE_SCALED: Final = 0.8
_LEVELS: Final = (0.2, 4.0)
_UNFIT: Final = 0.6
"""Share of negative mass, share of genes from 0 to 1, mean level by the measured one, and error of the gene means,
beyond which a prediction is not log1p. On sections of two HER2+ patients, tenfold depth apart, levels were 0.35 to 2.4.
"""
_CLOSE: Final = 0.1
_ALIKE: Final = 0.97
"""Error of the gene means below which a prediction is log1p; cosine above which two profiles are not told apart."""

_FEWEST_MEANS: Final = 20
"""Fewest genes whose means tell a scale: of one, 90 % of the predictions for another patient fitted another one better,
of five a quarter, of twenty one in sixty.
"""
_FEWEST_GENES: Final = 50
_LEAST_ORDER: Final = 0.2
_USUAL: Final = (0.6, 1.6)
"""Fewest genes whose means are compared, and the rank correlation and the levels that give rise to a doubt. Between the
same two patients, 50 to 785 genes drawn at random had rank correlations of 0.28 and more.
"""

COUNTS: Final = "raw counts"
LINEAR: Final = "normalized counts without the logarithm"
ROOT: Final = "the square root of normalized counts"
CENTERED: Final = "centered values, as z-scores or Pearson residuals are"
UNIT: Final = "values scaled from 0 to 1 gene by gene"
NO_LOGARITHM: Final = "counts or normalized counts, without the logarithm"
LARGER: Final = "the logarithm of another library size or to another base"
UNKNOWN: Final = "an unknown scale"

_AGAIN: Final = "scanpy.pp.normalize_total(adata, target_sum=1e4) over all genes, then scanpy.pp.log1p(adata)"
_REMEDIES: Final = {
    COUNTS: f"Normalize it as the measurement is: {_AGAIN}.",
    LINEAR: "Scale its library size, over all genes, to 10,000 and take scanpy.pp.log1p(adata).",
    CENTERED: "Undo the centering and scaling with the means and standard deviations of the training spots.",
    UNIT: "Undo the scaling with the smallest and largest values of the training spots.",
}
_ANYHOW: Final = f"Ask for it before that transformation, and apply {_AGAIN}."


@dataclass(frozen=True)
class _Candidate:
    """A scale that a prediction may be on.

    Attributes
    ----------
    name
        What errors call it.
    means
        (n_genes,) measured means on that scale.
    most, ratio
        Error of the predicted means, relative to the measured ones, up to which they fit, and by how many times it is
        smaller than on the log1p scale. Scales that are near to it need means that all but coincide, since two patients
        differ by as much; correlations hardly depend on these.
    """

    name: str
    means: np.ndarray
    most: float
    ratio: float

    def error(self, predicted: np.ndarray) -> float:
        size = float(np.linalg.norm(self.means))
        return float(np.linalg.norm(predicted - self.means)) / size if size else float("inf")


def other_scale(prediction: np.ndarray, counts: np.ndarray, totals: np.ndarray) -> str | None:
    """Return the scale of a prediction that is not log1p of counts scaled to 10,000, None where it may be.

    The prediction is taken to be log1p unless its values contradict that: many are negative, all are whole numbers,
    they exceed what the scale can hold, or the means of its genes, where there are 20 or more, fit another scale much
    better.

    Parameters
    ----------
    prediction
        (n_spots, n_genes) finite values.
    counts
        (n_spots, n_genes) measured counts of the same spots and genes.
    totals
        (n_spots,) measured counts over all genes.
    """
    values = np.asarray(prediction, dtype=np.float64)
    if np.abs(values[values < 0]).sum() > _NEGATIVE * np.abs(values).sum():
        return CENTERED
    if values.max() >= 2 and (values == np.rint(values)).all():
        return COUNTS
    if _is_unit(values):
        return UNIT
    return _by_means(values, np.asarray(counts, dtype=np.float64), np.asarray(totals, dtype=np.float64))


def doubt(prediction: np.ndarray, counts: np.ndarray, totals: np.ndarray) -> str:
    """Return what is odd about a prediction that is taken to be log1p; "" where nothing is.

    Its genes may be in another order than their names, or each scaled by itself, where their means do not rise with the
    measured ones. Its level may be that of another logarithm.

    Parameters
    ----------
    prediction, counts, totals
        As for `other_scale`.
    """
    predicted = np.asarray(prediction, dtype=np.float64).mean(axis=0)
    share = np.asarray(counts, dtype=np.float64) / np.asarray(totals, dtype=np.float64)[:, None]
    means = np.log1p(LIBRARY * share).mean(axis=0)
    if len(means) >= _FEWEST_GENES and np.ptp(predicted) > 0 and np.ptp(means) > 0:
        order = float(spearmanr(predicted, means).statistic)
        if order < _LEAST_ORDER:
            return (
                f"The predicted means of the genes do not rise with the measured ones (rank correlation {order:.2f}): "
                "its genes may be in another order than their names, or each may be scaled by itself."
            )
    level = float(predicted @ means / (means @ means)) if means.any() else 1.0
    if not _USUAL[0] < level < _USUAL[1]:
        return (
            f"The predicted means are {level:.2g} times the measured ones: look whether it is the natural logarithm of "
            "counts scaled to 10,000 over all genes. Correlations hardly depend on that, RMSE does."
        )
    return ""


def refusal(scale: str) -> str:
    """Return the error's text for a prediction on another scale."""
    remedy = _REMEDIES.get(scale, _ANYHOW)
    return (
        f"The prediction is on another scale than the measurement it would be compared with: {scale}, not log1p of "
        f"counts scaled to 10,000. {remedy} If you know that it is on that scale, pass target='log1p'."
    )


def _is_unit(values: np.ndarray) -> bool:
    low, high = values.min(axis=0), values.max(axis=0)
    varying = high > low
    return bool(varying.any()) and bool(((low == 0) & (high == 1))[varying].mean() >= _SHARE_SCALED)


def _by_means(values: np.ndarray, counts: np.ndarray, totals: np.ndarray) -> str | None:
    predicted, share = values.mean(axis=0), counts / totals[:, None]
    wanted = _Candidate("log1p", np.log1p(LIBRARY * share).mean(axis=0), 1.0, 1.0)
    if (expected := wanted.error(predicted)) < _CLOSE:
        return None
    others = list(_candidates(predicted, counts, share))
    errors = [one.error(predicted) for one in others]
    best, least = others[int(np.argmin(errors))], min(errors)
    if np.quantile(values, 0.999) > _HIGHEST:
        if least < _UNFIT:
            return best.name
        likely = NO_LOGARITHM if values.max() > _HIGHEST_LOG else LARGER
        return f"{likely}, with values up to {values.max():.3g}"
    if len(predicted) < _FEWEST_MEANS:
        return None
    for error, one in sorted(zip(errors, others, strict=True), key=lambda pair: pair[0]):
        if error < one.most and expected > one.ratio * error:
            return one.name
    level = float(predicted @ wanted.means / (wanted.means @ wanted.means)) if wanted.means.any() else 1.0
    if not _LEVELS[0] < level < _LEVELS[1]:
        return f"{UNKNOWN}, with means {level:.2g} times those of the measurement"
    return None


def _candidates(predicted: np.ndarray, counts: np.ndarray, share: np.ndarray) -> Iterator[_Candidate]:
    """Yield the scales that are told apart; those of other library sizes and bases are near to log1p.

    `predicted` are the means of the genes, (n_genes,), `counts` and `share`, the counts over the totals, are
    (n_spots, n_genes).
    """
    far, near = (0.5, 2.5), (0.05, 3.0)
    yield _Candidate(COUNTS, counts.mean(axis=0), *far)
    linear, usual = share.mean(axis=0), np.log1p(LIBRARY * share).mean(axis=0)
    if _cosine(linear, usual) < _ALIKE:  # of genes that are all alike, any level fits some library size
        size = max(float(predicted @ linear / (linear @ linear)), 0.0)
        yield _Candidate(f"{LINEAR} (library size {size:,.3g})", size * linear, *far)
    per_million = np.log1p(1e6 * share).mean(axis=0)
    yield _Candidate("log1p of another library size (counts per million)", per_million, *far)
    yield _Candidate("log2(1 + x) of another library size (counts per million)", per_million / np.log(2), *far)
    root = np.sqrt(share).mean(axis=0)
    if _cosine(root, linear) < _ALIKE:
        size = max(float(predicted @ root / (root @ root)), 0.0)
        yield _Candidate(f"{ROOT} (library size {size**2:,.3g})", size * root, *near)
    size = _library_size(predicted, share)
    if not any(1 / _SAME_SIZE < size / known < _SAME_SIZE for known in (LIBRARY, 1e6)):
        means = np.log1p(size * share).mean(axis=0)
        yield _Candidate(f"log1p of another library size (about {size:,.0f})", means, *near)
    yield _Candidate("log1p of raw counts, without a library size", np.log1p(counts).mean(axis=0), *near)
    yield _Candidate("log2(1 + x) instead of the natural logarithm", usual / np.log(2), *near)
    yield _Candidate("log10(1 + x) instead of the natural logarithm", usual / np.log(10), *near)


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Return the cosine of two profiles, (n_genes,) each, 1 where one is zero."""
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / size if size else 1.0


def _library_size(predicted: np.ndarray, share: np.ndarray) -> float:
    """Return the library size at which means of log1p of `share`, (n_spots, n_genes), come nearest to `predicted`."""

    def error(log_size: float) -> float:
        return float(np.square(predicted - np.log1p(np.exp(log_size) * share).mean(axis=0)).sum())

    found = minimize_scalar(error, bounds=np.log(_SIZES), method="bounded", options={"xatol": 0.02})
    return float(np.exp(found.x))
