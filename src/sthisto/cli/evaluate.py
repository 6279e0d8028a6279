"""The command `sthisto evaluate`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from sthisto._sdata.slots import CEILING
from sthisto._utils.atomic import atomic_file
from sthisto.cli import report
from sthisto.cli.options import add_command, add_data, add_store_out, element_keys
from sthisto.cli.output import print_table
from sthisto.cli.stores import REMEDY, out_paths, read_stores, refuse_existing, write_stores


def add(commands: Any) -> None:
    """Add `evaluate` to the commands."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        "Score the prediction in a SpatialData store, or in a file of another tool, against measured expression.",
        "sthisto evaluate predicted.zarr --out scores.csv",
    )
    add_data(parser, several=True)
    parser.add_argument("--counts-layer", help="layer of raw counts")
    parser.add_argument("--by", choices=["section", "gene"], default="section", help="rows of the table of scores")
    add_store_out(parser, what="where the scores are stored; a file that ends in .csv takes the table alone")
    parser.add_argument(
        "--prediction", help="file of another tool (h5ad, csv, parquet), or layer:NAME or table:NAME of the store"
    )
    parser.add_argument("--report", type=Path, help="write one HTML page about the prediction to this file")


def run(options: argparse.Namespace) -> None:
    """Evaluate, write the scores and print them."""
    as_table = options.out is not None and options.out.suffix.lower() == ".csv"
    if as_table and not options.overwrite:
        refuse_existing(options.out, REMEDY)
    paths = [] if as_table else out_paths(options.data, options.out, overwrite=options.overwrite)
    stores = read_stores(options.data)

    import sthisto as sth
    from sthisto._scoring.only_section import without_only_section

    prediction = options.prediction
    if prediction is not None and not prediction.startswith(("layer:", "table:")):
        prediction = sth.io.read_prediction(prediction)
    sth.tl.evaluate(stores, prediction=prediction, counts_layer=options.counts_layer, **element_keys(options))
    scores = sth.get.scores(stores, key_added=options.key_added, table_key=options.table, by=options.by)
    if as_table:
        with atomic_file(options.out) as path:
            scores.to_csv(path, index=False)
    elif paths:
        write_stores(stores, paths, overwrite=options.overwrite)
    scores = scores.drop(columns=CEILING)
    print_table(scores if options.json else without_only_section(scores), options)
    if options.report is not None:
        report.write(stores, options, options.report, command=_command(options))


def _command(options: argparse.Namespace) -> str:
    """Return what repeats the evaluation and its report."""
    given = {"--prediction": options.prediction, "--counts-layer": options.counts_layer, "--report": options.report}
    words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    return shlex.join(["sthisto", "evaluate", *map(str, options.data), *words])
