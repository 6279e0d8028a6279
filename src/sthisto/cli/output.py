"""What commands print."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def print_table(table: pd.DataFrame, options: argparse.Namespace) -> None:
    """Print a table for people, as one line of JSON with `--json`, or not at all with `--quiet`."""
    if options.json:
        print(table.to_json(orient="records"))
    elif len(table) and not options.quiet:
        print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
