"""A section whose spots are thrown away, gridded and predicted, against the nearest measurement.

A model of C3 and C4 predicts C2 twice: at its spots, and on `pp.tissue_grid` of its image alone. Prints the mean over
genes of Pearson's correlation with the measured Pearson residuals, of spots and of grid points within half a pitch of
one, and the same for the grid against the prediction at the nearest spot. Needs STHISTO_HER2ST.
Run: python benchmarks/grid_agreement.py
"""

from __future__ import annotations

import logging

import numpy as np
import spatialdata as sd
from scipy.spatial import cKDTree

import sthisto as sth
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import read_sections
from sthisto._sdata.tables import read_rows
from sthisto.metrics import pearson, pearson_residuals


def main() -> None:
    """Print the three correlations."""
    logging.getLogger("sthisto").setLevel(logging.ERROR)
    sth.settings.progress = False
    model = sth.tl.fit(sth.datasets.her2st(sections=["C3", "C4"]), method="kernel", image_encoder="texture")
    measured = sth.datasets.her2st(sections=["C2"])
    slide = sd.SpatialData(images=dict(measured.images), attrs=dict(measured.attrs))
    sth.tl.predict(measured, model, new_table_key="at_spots")
    sth.pp.tissue_grid(slide)
    sth.tl.predict(slide, model, table_key="tissue_grid_table", new_table_key="on_grid")
    (section,) = read_sections(measured, ElementKeys(table_key="counts"))
    counts = read_rows(section, None)
    columns = section.table.var_names.get_indexer(list(model.genes))
    totals = np.asarray(counts.sum(axis=1)).ravel()
    truth = pearson_residuals(counts[:, columns].toarray(), totals=totals)
    at_spots, on_grid = np.asarray(measured["at_spots"].X), np.asarray(slide["on_grid"].X)
    pitch = float(np.median(cKDTree(section.centers).query(section.centers, k=2)[0][:, 1]))
    away, nearest = cKDTree(np.asarray(slide["on_grid"].obsm["spatial"])).query(section.centers)
    near = away < pitch / 2
    gridded = on_grid[nearest[near]]
    print(f"{near.sum()} of {len(near)} spots have a grid point within half a pitch")
    print(f"prediction at the spots, measured there:        {np.nanmean(pearson(truth[near], at_spots[near])):.3f}")
    print(f"prediction on the grid, measured at the nearest: {np.nanmean(pearson(truth[near], gridded)):.3f}")
    print(f"prediction on the grid, prediction at the spots: {np.nanmean(pearson(at_spots[near], gridded)):.3f}")


if __name__ == "__main__":
    main()
