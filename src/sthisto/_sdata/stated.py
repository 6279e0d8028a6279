"""What a user states of a whole run, such as its patient, as columns of all its tables; and what a run holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from sthisto._sdata.write import Update, apply, check_slot

if TYPE_CHECKING:
    from spatialdata import SpatialData


@dataclass(frozen=True)
class Contents:
    """What a SpatialData holds.

    Attributes
    ----------
    images
        Names of the images.
    spots
        Name of each table -> its number of rows.
    """

    images: list[str]
    spots: dict[str, int]

    @classmethod
    def of(cls, sdata: SpatialData) -> Contents:
        """Return the contents of a SpatialData."""
        return cls(list(sdata.images), {key: table.n_obs for key, table in sdata.tables.items()})


def state(sdata: SpatialData, columns: Mapping[str, str], *, argument: str) -> None:
    """Fill columns of ``obs`` of every table with one text each, as categorical columns.

    Parameters
    ----------
    sdata
        Changed only if every column can be written.
    columns
        Name of each column -> its text.
    argument
        What the caller calls `columns`, for errors.

    Raises
    ------
    ValueError
        There is no table, or a column links spots to their places or can't be stored.
    """
    if columns and not sdata.tables:
        msg = f"There are no spots, to which {argument} could be added."
        raise ValueError(msg)
    tables = list(sdata.tables.values())
    for table in tables:
        for column in columns:
            check_slot(table, "obs", column, argument=argument)
    apply(
        Update(table, "obs", column, pd.Categorical([text] * table.n_obs))
        for table in tables
        for column, text in columns.items()
    )
