"""Data for the tests of the metrics: stored references, real sections, and counts whose signal is known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from references import read_reference

from sthisto import metrics

ROOT = Path(__file__).parents[2]


class Section(NamedTuple):
    counts: np.ndarray  # (n_spots, n_panel)
    totals: np.ndarray  # (n_spots,) over all genes
    coordinates: np.ndarray  # (n_spots, 2) array rows and columns


@pytest.fixture(scope="session")
def evaluation():
    return read_reference("evaluation.npz")


def read_section(name: str) -> Section:
    """Return the panel's counts of a real section; skip where the sections are not there."""
    folder = Path(os.environ.get("STHISTO_HER2ST", ROOT / "../shared/data/her2st"))
    if not (folder / f"data/ST-cnts/{name}.tsv.gz").is_file():
        pytest.skip(f"no section {name} in {folder}; set STHISTO_HER2ST")
    counts = pd.read_csv(folder / f"data/ST-cnts/{name}.tsv.gz", sep="\t", index_col=0)
    counts = counts[counts.sum(axis=1) > 0]
    panel = (folder / "genes_785.txt").read_text().split()
    coordinates = np.array([spot.split("x") for spot in counts.index], dtype=float)
    return Section(counts.reindex(columns=panel, fill_value=0).to_numpy(), counts.sum(axis=1).to_numpy(), coordinates)


@pytest.fixture(scope="session")
def c2():
    return read_section("C2")


@pytest.fixture(scope="session")
def her2st_residuals():
    """Return a function that reads the residuals of a real section over the panel, (n_spots, n_panel)."""
    return lambda name: metrics.pearson_residuals((one := read_section(name)).counts, totals=one.totals)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def noise_counts(rng):
    """Counts that nothing but depth and each gene's share explains, (300 spots, 200 genes)."""
    depth = rng.lognormal(8, 0.6, 300)
    share = 0.9 * rng.dirichlet(np.full(200, 0.5)) + 0.1 / 200
    return rng.poisson(np.outer(depth, share))
