"""A section with predictions, drawn as arrays, for tests of the scoring engine."""

from __future__ import annotations

import numpy as np

from sthisto._scoring.measure import Measured, section_blocks
from sthisto.metrics import pearson_residuals


def make_measured(name: str = "A", n_spots: int = 80, n_genes: int = 60, seed: int = 0) -> Measured:
    """Return a section with a prediction that follows its genes ("good"), one of noise, and a constant one."""
    rng = np.random.default_rng(seed)
    centers = rng.uniform(0, 100, (n_spots, 2))
    state = rng.normal(size=(n_spots, 1))
    loading = rng.normal(scale=0.5, size=(1, n_genes))
    counts = rng.poisson(np.linspace(2, 40, n_genes) * np.exp(state * loading)).astype(float)
    totals = counts.sum(axis=1) + 10
    return Measured(
        name,
        [f"gene{i}" for i in range(n_genes)],
        truth=np.log1p(counts / totals[:, None] * 1e4),
        residuals=pearson_residuals(counts, totals=totals),
        counts=counts,
        totals=totals,
        blocks=section_blocks(centers),
        predictions={
            "good": state * loading + rng.normal(scale=0.3, size=counts.shape),
            "noise": rng.normal(size=counts.shape),
            "constant": np.ones(counts.shape),
        },
    )
