"""Data for the tests of the metrics: stored references, real sections, and counts whose signal is known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from references import read_reference

ROOT = Path(__file__).parents[2]


class Section(NamedTuple):
    counts: np.ndarray  # (n_spots, n_panel)
    totals: np.ndarray  # (n_spots,) over all genes
    coordinates: np.ndarray  # (n_spots, 2) array rows and columns


@pytest.fixture(scope="session")
def evaluation():
    return read_reference("evaluation.npz")


@pytest.fixture(scope="session")
def c2():
    folder = Path(os.environ.get("STHISTO_HER2ST", ROOT / "../shared/data/her2st"))
    if not (folder / "data/ST-cnts/C2.tsv.gz").is_file():
        pytest.skip(f"no section C2 in {folder}; set STHISTO_HER2ST")
    counts = pd.read_csv(folder / "data/ST-cnts/C2.tsv.gz", sep="\t", index_col=0)
    counts = counts[counts.sum(axis=1) > 0]
    panel = (folder / "genes_785.txt").read_text().split()
    coordinates = np.array([name.split("x") for name in counts.index], dtype=float)
    return Section(counts[panel].to_numpy(), counts.sum(axis=1).to_numpy(), coordinates)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def noise_counts(rng):
    """Counts that nothing but depth and each gene's share explains, (300 spots, 200 genes)."""
    depth = rng.lognormal(8, 0.6, 300)
    share = 0.9 * rng.dirichlet(np.full(200, 0.5)) + 0.1 / 200
    return rng.poisson(np.outer(depth, share))
