"""The table that a benchmark returns, whose columns are also found by their names in 0.1."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from sthisto._utils.deprecate import warn_renamed

COLUMNS_OF_0_1: Final = {"normalisation": "normalization"}
"""Columns in 0.1 -> columns today."""


class Results(pd.DataFrame):
    """Scores of a benchmark. A column asked for by its name in 0.1 is found, with a FutureWarning, until 0.3."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return super().__getitem__(_today(key, self.columns))
        if isinstance(key, list):
            return super().__getitem__([_today(name, self.columns) for name in key])
        return super().__getitem__(key)


def _today(name: Any, columns: pd.Index) -> Any:
    """Return the name of a column today, with a warning for an old one that the table does not have."""
    if name not in COLUMNS_OF_0_1 or name in columns:
        return name
    warn_renamed(f"The column {name!r} of a benchmark's results", repr(COLUMNS_OF_0_1[name]), stacklevel=3)
    return COLUMNS_OF_0_1[name]
