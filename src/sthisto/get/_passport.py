"""The passport of a model: which genes can be used."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

import pandas as pd

from sthisto._sdata.record import has_record, read_part
from sthisto._sdata.sections import read_tables
from sthisto._sdata.slots import KEY
from sthisto._utils.arguments import checked

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sthisto.models import ExpressionModel


@checked()
def passport(
    sdata: SpatialData | Sequence[SpatialData] | ExpressionModel | str | PathLike[str],
    *,
    key_added: str = KEY,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Return the passport of a model: scores on held-out groups and the verdict on every gene.

    Parameters
    ----------
    sdata
        A model, the path of a saved one, or the SpatialData (one, or a list) that a model with a passport predicted.
    key_added
        The key that `tl.predict` wrote under.
    table_key
        Table with the prediction. None: inferred if exactly one table annotates a region.

    Returns
    -------
    One row per gene; `tl.assess` describes the columns.

    Raises
    ------
    KeyError
        The model was not assessed, or there is no prediction under the key.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=3, n_patients=3)
    >>> model = sth.tl.fit(sdata, method="color", n_top_genes=10)
    >>> sth.tl.assess(sdata, model)
    >>> sth.get.passport(model)[["gene", "verdict"]].shape
    (10, 2)
    """
    from sthisto.models.base import ExpressionModel
    from sthisto.models.given import given_model

    call = "sth.tl.assess(sdata, model)"
    if isinstance(sdata, ExpressionModel | str | PathLike):
        found = given_model(sdata).passport
        if found is None:
            msg = f"The model has no passport. Call {call} first."
            raise KeyError(msg)
        return found.copy()
    tables = read_tables(sdata, table_key)
    predicted = [table for table in tables if has_record(table, key_added)] or tables[:1]
    call = f"{call}, then sth.tl.predict(…, key_added={key_added!r})"
    return read_part(predicted[0], key_added, "passport", call=call).copy()
