"""Scores of predicted expression: arrays in, numbers out.

Nothing here chooses genes, spots, clusters or knots on its own: what a score depends on is an argument. Matrices are
(n_spots, n_genes), dense or sparse; NaN stands for what was not predicted and is left out.

A further metric is one function in a file of this folder and its name in ``__all__``; `by_gene` does the rest. To make
it a column of the tables that `tl.evaluate` writes, add a line to `SCORES` or `REFERENCES` in ``_scoring/score.py``.
"""

from __future__ import annotations

from sthisto.metrics._bootstrap import Interval, bootstrap_pearson, paired_difference
from sthisto.metrics._columns import by_gene
from sthisto.metrics._depth import DepthSpline, depth_pearson, partial_pearson
from sthisto.metrics._grouping import per_section
from sthisto.metrics._information import mutual_information
from sthisto.metrics._pearson import pearson
from sthisto.metrics._reproducibility import Reproducibility, noise_ceiling, reproducibility
from sthisto.metrics._residuals import pearson_residuals, residual_pearson
from sthisto.metrics._siblings import SiblingReference, sibling_score
from sthisto.metrics._structure import gene_correlation_agreement
from sthisto.metrics.clustering import cluster, cluster_ari, cluster_homogeneity, cluster_nmi
from sthisto.metrics.expression import (
    auc,
    mae,
    mean_proportions,
    r2,
    rmse,
    sd_proportions,
    spearman,
    spot_pearson,
    variance_ratio,
)
from sthisto.metrics.spatial import morans_i, spatial_blocks, spatial_graph, ssim

__all__ = [
    "DepthSpline",
    "Interval",
    "Reproducibility",
    "SiblingReference",
    "auc",
    "bootstrap_pearson",
    "by_gene",
    "cluster",
    "cluster_ari",
    "cluster_homogeneity",
    "cluster_nmi",
    "depth_pearson",
    "gene_correlation_agreement",
    "mae",
    "mean_proportions",
    "morans_i",
    "mutual_information",
    "noise_ceiling",
    "paired_difference",
    "partial_pearson",
    "pearson",
    "pearson_residuals",
    "per_section",
    "r2",
    "reproducibility",
    "residual_pearson",
    "rmse",
    "sd_proportions",
    "sibling_score",
    "spatial_blocks",
    "spatial_graph",
    "spearman",
    "spot_pearson",
    "ssim",
    "variance_ratio",
]


def __dir__() -> list[str]:
    return __all__
