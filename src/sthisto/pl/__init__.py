"""Plots of the slots that `tl` wrote; each returns a figure or axes and writes nothing."""

from __future__ import annotations

from typing import Any

from sthisto._utils.deprecate import renamed_attribute
from sthisto.pl._clusters import clusters
from sthisto.pl._gene_compare import gene_compare
from sthisto.pl._gene_correlation import gene_correlation
from sthisto.pl._history import history
from sthisto.pl._intervals import intervals
from sthisto.pl._learning_curve import learning_curve
from sthisto.pl._mean_variance import mean_variance
from sthisto.pl._neighbors import neighbors
from sthisto.pl._passport import passport
from sthisto.pl._risk_coverage import risk_coverage
from sthisto.pl._scores import scores
from sthisto.pl._uncertainty import uncertainty

__all__ = [
    "clusters",
    "gene_compare",
    "gene_correlation",
    "history",
    "intervals",
    "learning_curve",
    "mean_variance",
    "neighbors",
    "passport",
    "risk_coverage",
    "scores",
    "uncertainty",
]


def __getattr__(name: str) -> Any:
    return renamed_attribute(__name__, name, {"neighbours": "neighbors"}, globals())


def __dir__() -> list[str]:
    return __all__
