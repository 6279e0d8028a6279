"""The command `sthisto evaluate`."""

from __future__ import annotations

import argparse
from typing import Any

from sthisto.cli.options import add_command, add_data, element_keys
from sthisto.cli.output import print_table
from sthisto.cli.stores import read_store


def add(commands: Any) -> None:
    """Add `evaluate` to the commands."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        "Score the prediction in a SpatialData store against its measured expression.",
        "sthisto evaluate predicted.zarr --json",
    )
    add_data(parser)
    parser.add_argument("--counts-layer", help="layer of raw counts")


def run(options: argparse.Namespace) -> None:
    """Evaluate and print the scores of each section."""
    sdata = read_store(options.data)

    import sthisto as sth

    sth.tl.evaluate(sdata, counts_layer=options.counts_layer, **element_keys(options))
    scores = sth.get.scores(sdata, key_added=options.key_added, table_key=options.table, by="section")
    print_table(scores, as_json=options.json)
