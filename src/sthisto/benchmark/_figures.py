"""The figure of a benchmark: the primary score of each method with its interval, beside what sibling genes predict."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sthisto._sdata.slots import ALL_GENES
from sthisto.benchmark._rows import LOG1P, REPRODUCIBILITY, RESIDUALS, SIBLINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_METRICS = (("pcc_residual", RESIDUALS), ("pcc", LOG1P))


def figure(scores: pd.DataFrame, *, genes: str = ALL_GENES) -> Figure:
    """Draw residual and raw score of each method and test; a gray line is the score of sibling genes, points are seeds.

    Parameters
    ----------
    scores
        What `run` returned.
    genes
        Set of genes that is drawn.
    """
    from matplotlib.figure import Figure

    shown = scores[scores["genes"].str.startswith(f"{genes} (")]
    tests = list(dict.fromkeys(shown["test"]))
    drawn = Figure(figsize=(8, 1 + 2.2 * len(tests)), layout="constrained")
    for axes, test in zip(drawn.subplots(len(tests), 2, squeeze=False), tests, strict=True):
        for ax, (metric, scale) in zip(axes, _METRICS, strict=True):
            part = shown[(shown["test"] == test) & (shown["metric"] == metric) & (shown["normalization"] == scale)]
            _draw(ax, part)
            ax.set_title(f"{test}: {metric} ({scale})", fontsize=9)
    return drawn


def _draw(ax: Axes, part: pd.DataFrame) -> None:
    methods = [name for name in dict.fromkeys(part["method"]) if name not in (SIBLINGS, REPRODUCIBILITY)]
    for i, method in enumerate(methods):
        mine = part[part["method"] == method]
        low, high = mine["low"].mean(), mine["high"].mean()
        ax.plot([low, high], [i, i], color="0.6", lw=2)
        ax.plot(mine["value"], np.full(len(mine), i), "o", ms=4, color="tab:blue")
    for value in part.loc[part["method"] == SIBLINGS, "value"]:
        ax.axvline(value, color="0.4", ls="--", lw=1)
    ax.axvline(0, color="0.8", lw=1)
    ax.set_yticks(range(len(methods)), methods, fontsize=8)
    ax.invert_yaxis()
