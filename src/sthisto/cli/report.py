"""The command `sthisto report`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthisto.cli.options import add_command, add_data, element_keys
from sthisto.cli.stores import read_store

if TYPE_CHECKING:
    import pandas as pd
    from spatialdata import SpatialData


def add(commands: Any) -> None:
    """Add `report` to the commands."""
    parser = add_command(
        commands,
        "report",
        run,
        "Write one HTML page about a prediction in a SpatialData store: training, scores, maps and doubts.",
        "sthisto report evaluated.zarr --out report.html",
    )
    add_data(parser)
    parser.add_argument("--out", type=Path, required=True, help="HTML file; one that exists is replaced")
    parser.add_argument("--check-alignment", action="store_true", help="check whether the spots fit the image")
    parser.add_argument("--genes", help="comma-separated genes to draw; default: those of high, middle and low score")


def run(options: argparse.Namespace) -> None:
    """Write the page."""
    sdata = read_store(options.data)
    genes = None if options.genes is None else [gene.strip() for gene in options.genes.split(",") if gene.strip()]
    command = f"sthisto report {shlex.quote(str(options.data))} --out {shlex.quote(str(options.out))}"
    alignment = None
    if options.check_alignment:
        import sthisto as sth

        keys = {name: value for name, value in element_keys(options).items() if name != "key_added"}
        alignment = sth.tl.check_alignment(sdata, **keys)
        command += " --check-alignment"
    write(sdata, options, options.out, command=command, genes=genes, alignment=alignment)


def write(
    sdata: SpatialData | Sequence[SpatialData],
    options: argparse.Namespace,
    out: Path,
    *,
    command: str,
    genes: list[str] | None = None,
    alignment: pd.DataFrame | None = None,
) -> None:
    """Write a page about the prediction under the key of the options, and print where it is."""
    from sthisto._sdata.keys import ElementKeys
    from sthisto.report.contents import write_report

    keys = element_keys(options)
    key = keys.pop("key_added")
    write_report(sdata, out, keys=ElementKeys(**keys), key=key, command=command, genes=genes, alignment=alignment)
    if not (options.json or options.quiet):
        print(f"{out} holds the report.")
