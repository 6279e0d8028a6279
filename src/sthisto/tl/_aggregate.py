"""Predictions of cells, averaged into the spots that they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

from sthisto._sdata.expression import looks_like_counts
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.record import predicted_scale
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.slots import CELLS, n_cells, prediction
from sthisto._sdata.tables import gene_names, layer_names, read_matrix, read_rows
from sthisto._sdata.write import apply, layer_updates, obs_updates, uns_updates
from sthisto._utils.arguments import checked
from sthisto._utils.logging import logger
from sthisto.metrics import pearson

if TYPE_CHECKING:
    from spatialdata import SpatialData


@checked()
def aggregate(
    sdata: SpatialData,
    *,
    cells_key: str = CELLS,
    reference: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    key_added: str = "aggregated",
) -> None:
    """Average the predictions of cells into the spots that the cells lie in.

    With it, a model of cells predicts spots, and a model of spots that predicted cells is checked: the mean of the
    cells of a spot should be what the model predicts for the spot itself.

    Parameters
    ----------
    sdata
        SpatialData with a table of predicted cells and one of spots, on the same image.
    cells_key
        Table of the cells, as ``sth.tl.predict(…, new_table_key="cells")`` writes it; X is what is averaged.
        Predictions on the scale "log1p" are averaged as the normalized counts that they are the logarithm of, as the
        counts of cells add up in a spot.
    reference
        `key_added` of a prediction of the spots to compare with. None: nothing is compared.
    image_key
        H&E image, or a mapping from region to image. None: inferred if there is exactly one candidate.
    table_key
        Table of the spots. None: inferred if there is exactly one that annotates a region.
    coordinate_system
        Coordinate system in which images, cells and spots are aligned. None: inferred from those that they share.
    key_added
        Key of the slots.

    Returns
    -------
    None. Writes to the table of the spots ``layers["{key_added}_pred"]``, the mean of the cells whose centers lie in
    the spot, on the scale that their X has, NaN for spots without cells and genes that the cells lack, and
    ``obs["{key_added}_cells"]``, the number of cells. ``uns[key_added]`` has "consistency" where there is a
    `reference`: the mean over genes of Pearson's correlation, over the spots with cells, of both predictions. It is
    logged too.

    Raises
    ------
    KeyError
        A table or the reference is missing, or both tables have no gene in common.
    ValueError
        No cell lies in a spot, or an element is ambiguous.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=1, n_patients=1)
    >>> model = sth.tl.fit(sdata, method="color", patch_um=40, patch_size=16)
    >>> sth.pp.nuclei(sdata)
    >>> sth.tl.predict(sdata, model, table_key="nuclei_table", new_table_key="cells")
    >>> sth.tl.aggregate(sdata, table_key="expression")
    >>> "aggregated_pred" in sdata["expression"].layers
    True
    """
    spots = read_sections(sdata, ElementKeys(image_key, None, table_key, coordinate_system))
    cells = read_sections(sdata, ElementKeys(image_key, None, cells_key, coordinate_system))
    table = spots[0].table
    genes = [gene for gene in gene_names(cells[0].table) if gene in set(gene_names(table))]
    if not genes:
        msg = f"Tables {cells_key!r} and {spots[0].table_key!r} have no gene in common: there is nothing to aggregate."
        raise KeyError(msg)
    is_log = predicted_scale(cells[0].table) == "log1p" and not looks_like_counts(read_rows(cells[0], None))
    found = [_means(section, cells, genes, is_log=is_log) for section in spots]
    numbers = [number for _, number in found]
    if not any(number.any() for number in numbers):
        msg = f"No cell of table {cells_key!r} lies in a spot. Do both lie on the same image?"
        raise ValueError(msg)
    values = [mean for mean, _ in found]
    record: dict[str, str | float] = {"method": "aggregate", "cells": cells_key}
    if reference is not None:
        record["consistency"] = _consistency(spots, values, genes, reference)
        logger.info("Cells averaged into spots agree with key_added=%r: %.3f.", reference, record["consistency"])
    apply(
        [
            *layer_updates(spots, prediction(key_added), values, genes=genes),
            *obs_updates(spots, n_cells(key_added), [number.astype(np.float32) for number in numbers]),
            *uns_updates(spots, key_added, record),
        ]
    )


def _means(spots: Section, cells: list[Section], genes: list[str], *, is_log: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the cells in each spot, (n_spots, n_genes), and their number, (n_spots,).

    Where `is_log`, the mean is that of what the cells' values are the logarithm of, plus 1.
    """
    total, number = np.zeros((len(spots), len(genes))), np.zeros(len(spots))
    for section in cells:
        if section.image_key != spots.image_key:
            continue
        tree = cKDTree(section.centers)
        near = tree.query_ball_point(spots.centers, spots.diameter / 2)
        rows = np.repeat(np.arange(len(spots)), [len(one) for one in near])
        columns = np.concatenate([np.asarray(one, dtype=int) for one in near])
        member = sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(spots), len(section)))
        own = gene_names(section.table).get_indexer(genes)
        values = read_rows(section, None)[:, own].toarray()
        total += member @ (np.expm1(values) if is_log else values)
        number += np.asarray(member.sum(axis=1)).ravel()
    with np.errstate(invalid="ignore"):
        mean = np.where(number[:, None] > 0, total / np.maximum(number, 1)[:, None], np.nan)
    return np.log1p(mean) if is_log else mean, number


def _consistency(spots: list[Section], values: list[np.ndarray], genes: list[str], reference: str) -> float:
    """Return the genes' mean correlation of both predictions, (n_spots, n_genes) each, over spots that have both."""
    table, layer = spots[0].table, prediction(reference)
    if layer not in layer_names(table):
        msg = f"`reference`={reference!r} has no prediction in the table of spots. Call sth.tl.predict first."
        raise KeyError(msg)
    own = gene_names(table).get_indexer(genes)
    rows = np.concatenate([section.rows for section in spots])
    direct, mean = np.asarray(read_matrix(table, layer))[np.ix_(rows, own)], np.concatenate(values)
    shared = np.isfinite(direct).any(axis=0)
    kept = np.isfinite(direct[:, shared]).all(axis=1) & np.isfinite(mean).all(axis=1)
    return float(np.nanmean(pearson(direct[kept][:, shared], mean[kept][:, shared])))
