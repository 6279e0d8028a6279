"""Normalization of raw counts into a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp

from sthisto._sdata.expression import Normalization, log1p_of, looks_like_counts
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import as_cohort, read_sections, read_tables
from sthisto._sdata.tables import read_matrix, read_rows
from sthisto._sdata.write import Update, apply
from sthisto._utils.validate import check_choice, check_positive

if TYPE_CHECKING:
    from spatialdata import SpatialData


def normalize(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    target: Literal["log1p", "pearson_residuals"] = "log1p",
    target_sum: float = 1e4,
    layer: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    key_added: str | None = None,
) -> None:
    """Normalize raw counts into a layer; the counts stay as they are.

    `tl.fit` normalizes counts itself; call this to inspect or reuse the normalized values.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    target
        "log1p": each spot's counts are scaled to `target_sum` over all genes, then log(1 + x). "pearson_residuals":
        analytic Pearson residuals (theta 100, clipped at the square root of the number of spots) of each section.
    target_sum
        Library size that spots are scaled to, for "log1p".
    layer
        Layer with raw counts. None: X.
    image_key
        H&E image, or a mapping from region to image; for "pearson_residuals", which use only spots inside their image.
        None: inferred if there is exactly one candidate; of several RGB images of one place, the finest.
    table_key
        Table that annotates the regions. None: inferred if there is exactly one.
    coordinate_system
        Coordinate system in which images and regions are aligned. None: inferred from those that both share.
    key_added
        Layer that is written. None: the value of `target`.

    Returns
    -------
    None. Writes ``layers[key_added]``, (n_obs, n_vars): sparse float32 for "log1p", dense float32 for
    "pearson_residuals" (NaN for spots without counts, off tissue or outside the image).

    Raises
    ------
    KeyError
        A layer, table or image is missing.
    ValueError
        The values are not raw counts, or `key_added` is the layer that holds them.

    Notes
    -----
    Residuals: Lause, Berens and Kobak, Genome Biology 22:258 (2021), doi:10.1186/s13059-021-02451-7.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=1, n_patients=1)
    >>> sth.pp.normalize(sdata)
    """
    check_choice(target, ("log1p", "pearson_residuals"), name="target")
    check_positive(target_sum, name="target_sum")
    key = key_added or target
    if key == layer:
        msg = f"`key_added` and `layer` are both {layer!r}: the counts would be lost. Pass another key_added=…"
        raise ValueError(msg)
    normalization = Normalization(target, layer, target_sum)
    updates = []
    for one, table in zip(as_cohort(sdata), read_tables(sdata, table_key), strict=True):
        matrix = read_matrix(table, layer)
        if not looks_like_counts(matrix):
            msg = (
                f"{'X' if layer is None else f'Layer {layer!r}'} holds no raw counts (whole numbers of at least "
                "zero), so that it cannot be normalized. Pass layer=… to name the one that does."
            )
            raise ValueError(msg)
        if target == "log1p":
            values = _log1p(matrix, target_sum)
        else:
            values = np.full(table.shape, np.nan, dtype=np.float32)
            keys = ElementKeys(image_key, None, table_key, coordinate_system)
            for section in read_sections(one, keys):
                values[section.rows] = normalization(read_rows(section, layer))
        updates.append(Update(table, "layers", key, values))
    apply(updates)


def _log1p(matrix: Any, target_sum: float) -> sp.csr_matrix:
    counts = sp.csr_array(matrix)
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    return sp.csr_matrix(log1p_of(counts, totals, target_sum))
