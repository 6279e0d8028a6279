"""What commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def print_table(table: pd.DataFrame, *, as_json: bool) -> None:
    """Print a table for people, or as one line of JSON."""
    if as_json:
        print(table.to_json(orient="records"))
    elif len(table):
        print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
