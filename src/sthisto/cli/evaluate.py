"""The command `sthisto evaluate`."""

from __future__ import annotations

import argparse
from typing import Any

from sthisto._utils.atomic import atomic_file
from sthisto.cli.options import add_command, add_data, add_store_out, element_keys
from sthisto.cli.output import print_table
from sthisto.cli.stores import REMEDY, out_paths, read_stores, refuse_existing, write_stores


def add(commands: Any) -> None:
    """Add `evaluate` to the commands."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        "Score the prediction in a SpatialData store against its measured expression.",
        "sthisto evaluate predicted.zarr --out scores.csv",
    )
    add_data(parser, several=True)
    parser.add_argument("--counts-layer", help="layer of raw counts")
    parser.add_argument("--by", choices=["section", "gene"], default="section", help="rows of the table of scores")
    add_store_out(parser, what="where the scores are stored; a file that ends in .csv takes the table alone")


def run(options: argparse.Namespace) -> None:
    """Evaluate, write the scores and print them."""
    as_table = options.out is not None and options.out.suffix.lower() == ".csv"
    if as_table and not options.overwrite:
        refuse_existing(options.out, REMEDY)
    paths = [] if as_table else out_paths(options.data, options.out, overwrite=options.overwrite)
    stores = read_stores(options.data)

    import sthisto as sth

    sth.tl.evaluate(stores, counts_layer=options.counts_layer, key_added=options.key_added, **element_keys(options))
    scores = sth.get.scores(stores, key_added=options.key_added, table_key=options.table, by=options.by)
    if as_table:
        with atomic_file(options.out) as path:
            scores.to_csv(path, index=False)
    elif paths:
        write_stores(stores, paths, overwrite=options.overwrite)
    print_table(scores, options)
