"""The scores that `tl.evaluate` wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

import pandas as pd

from sthisto._sdata.record import as_keys, has_record, method_labels, read_part
from sthisto._sdata.sections import read_tables
from sthisto._sdata.slots import CEILING, KEY
from sthisto._utils.deprecate import GENE_SETS, METHOD_NAMES, SCORE_COLUMNS, renamed_columns, renamed_values
from sthisto._utils.validate import check_choice

if TYPE_CHECKING:
    from spatialdata import SpatialData

_PARTS: Final[Mapping[str, Literal["scores", "summary"]]] = {"gene": "scores", "section": "summary"}


def scores(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    key_added: str | Sequence[str] = KEY,
    by: Literal["gene", "section"] = "gene",
    table_key: str | None = None,
) -> pd.DataFrame:
    """Return the scores of one or several methods as one table.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    key_added
        Key or keys that `sthisto.tl.evaluate` or `sthisto.tl.cross_validate` wrote to. The table of the latter holds
        several methods, with columns seed and fold.
    by
        "gene": one row per section and gene. "section": one row per section and gene set; the section "all" is the mean
        over sections.
    table_key
        Table with the scores. None: inferred if exactly one table annotates a region.

    Returns
    -------
    Columns ``key``, ``method``, section, gene or genes ("all modeled", and "top 50", the most expressed), n_spots, and
    the scores. ``pcc``: Pearson correlation on the scale of the model. ``pcc_residual``: Pearson correlation with the
    measured Pearson residuals; by section with the interval ``pcc_residual_low`` to ``pcc_residual_high``.
    ``pcc_partial_depth``: partial correlation given the depth. ``depth_pcc`` and ``depth_pcc_residual``: scores of the
    depth alone. ``sibling``: what the other genes of the same spots predict of a gene (`metrics.sibling_score`).
    ``reliability``: correlation of two measurements of the same spots; ``reproducibility``: its square root, what a
    second sequencing of the same spots would reach (until 0.3 also as ``ceiling``, its old
    name). ``rmse``: root mean square error on the scale of the model.

    Raises
    ------
    KeyError
        There are no predictions or scores under a key.
    ValueError
        The table is ambiguous.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> sth.pp.split(sdata, by="patient", patient_key="patient")
    >>> sth.tl.predict(sdata, sth.tl.fit(sdata, method="color"))
    >>> sth.tl.evaluate(sdata)
    >>> sth.get.scores(sdata, by="section")[["section", "pcc_residual", "sibling"]]  # doctest: +SKIP
    """
    check_choice(by, _PARTS, name="by")
    tables = read_tables(sdata, table_key)
    keys = as_keys(key_added)
    methods = method_labels(tables, keys)
    parts = []
    for key in keys:
        call = f"sth.tl.evaluate(sdata, key_added={key!r})"
        scored = [table for table in tables if has_record(table, key)] or tables[:1]
        rows = pd.concat([read_part(table, key, _PARTS[by], call=call) for table in scored], ignore_index=True)
        rows = renamed_values(rows, {"genes": GENE_SETS, "method": METHOD_NAMES}, remedy=f"Call {call} again.")
        rows = renamed_columns(rows, SCORE_COLUMNS, remedy=f"Call {call} again.")
        rows = rows.drop_duplicates(ignore_index=True)
        if "reproducibility" in rows:
            rows[CEILING] = rows["reproducibility"]
        rows.insert(0, "key", key)
        if "method" not in rows:
            rows.insert(1, "method", methods[key])
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)
