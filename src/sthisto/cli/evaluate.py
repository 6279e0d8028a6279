"""The command `sthisto evaluate`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from sthisto._sdata.slots import CEILING
from sthisto.cli import report
from sthisto.cli.options import add_command, add_data, element_keys
from sthisto.cli.output import print_table
from sthisto.cli.stores import read_store


def add(commands: Any) -> None:
    """Add `evaluate` to the commands."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        "Score the prediction in a SpatialData store, or in a file of another tool, against measured expression.",
        "sthisto evaluate predicted.zarr --json",
    )
    add_data(parser)
    parser.add_argument("--counts-layer", help="layer of raw counts")
    parser.add_argument(
        "--prediction", help="file of another tool (h5ad, csv, parquet), or layer:NAME or table:NAME of the store"
    )
    parser.add_argument("--report", type=Path, help="write one HTML page about the prediction to this file")


def run(options: argparse.Namespace) -> None:
    """Evaluate and print the scores of each section."""
    sdata = read_store(options.data)

    import sthisto as sth

    prediction = options.prediction
    if prediction is not None and not prediction.startswith(("layer:", "table:")):
        prediction = sth.io.read_prediction(prediction)
    sth.tl.evaluate(sdata, prediction=prediction, counts_layer=options.counts_layer, **element_keys(options))
    scores = sth.get.scores(sdata, key_added=options.key_added, table_key=options.table, by="section")
    print_table(scores.drop(columns=CEILING), as_json=options.json)
    if options.report is not None:
        report.write(sdata, options, options.report, command=_command(options))


def _command(options: argparse.Namespace) -> str:
    """Return what repeats the evaluation and its report."""
    given = {"--prediction": options.prediction, "--counts-layer": options.counts_layer, "--report": options.report}
    words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    return shlex.join(["sthisto", "evaluate", str(options.data), *words])
