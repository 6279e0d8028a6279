"""Tools: check the data, fit and assess a method, embed, predict, evaluate, cross-validate, report, cluster."""

from __future__ import annotations

from sthisto.tl._aggregate import aggregate
from sthisto.tl._assess import assess
from sthisto.tl._check_alignment import check_alignment
from sthisto.tl._cluster import cluster
from sthisto.tl._cross_validate import cross_validate
from sthisto.tl._embed import embed
from sthisto.tl._evaluate import evaluate
from sthisto.tl._fit import fit
from sthisto.tl._learning_curve import learning_curve
from sthisto.tl._predict import predict
from sthisto.tl._predict_between import predict_between
from sthisto.tl._report import report

__all__ = [
    "aggregate",
    "assess",
    "check_alignment",
    "cluster",
    "cross_validate",
    "embed",
    "evaluate",
    "fit",
    "learning_curve",
    "predict",
    "predict_between",
    "report",
]


def __dir__() -> list[str]:
    return __all__
