"""Nuclei of synthetic sections, found by `pp.nuclei`: precision, recall and F1 against where they were drawn.

A nucleus is found if its center lies within 4 µm of a drawn one, one to one.
Run: python benchmarks/nuclei.py
"""

from __future__ import annotations

import time

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

import sthisto as sth

WITHIN_UM = 4.0


def pairs(true: np.ndarray, found: np.ndarray, within: float) -> int:
    """Return the number of pairs of the largest one-to-one matching."""
    near = cKDTree(true).sparse_distance_matrix(cKDTree(found), within, output_type="coo_matrix")
    matched = maximum_bipartite_matching(csr_array(near), perm_type="column")
    return int((matched >= 0).sum())


def main() -> None:
    """Print one line for each resolution and seed."""
    print(
        f"{'µm/px':>6s} {'seed':>5s} {'drawn':>6s} {'found':>6s} {'precision':>10s} {'recall':>7s} {'F1':>6s} {'s':>5s}"
    )
    for um_per_px in (0.25, 0.5, 0.8, 1.0, 2.0, 3.0):
        for seed in (101, 102):
            sdata = sth.datasets.synthetic(
                n_sections=1, n_patients=1, n_spots=40, um_per_px=um_per_px, nuclei=True, seed=seed
            )
            start = time.perf_counter()
            sth.pp.nuclei(sdata)
            seconds = time.perf_counter() - start
            true = sdata["S1_nuclei"].compute()[["x", "y"]].to_numpy()
            found = np.asarray(sdata["nuclei_table"].obsm["spatial"])
            n = pairs(true, found, WITHIN_UM / um_per_px)
            shares = n / len(found), n / len(true), 2 * n / (len(true) + len(found))
            print(
                f"{um_per_px:6.2f} {seed:5d} {len(true):6d} {len(found):6d} {{:10.3f}} {{:7.3f}} {{:6.3f}}".format(
                    *shares
                )
                + f" {seconds:5.1f}"
            )


if __name__ == "__main__":
    main()
