"""The command `sthisto grid`: spots over the tissue of a slide that has none."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sthisto._sdata.slots import TISSUE_GRID, table_of_shapes
from sthisto.cli.options import add_command, add_store_out
from sthisto.cli.stores import out_paths, write_stores


def add(commands: Any) -> None:
    """Add `grid` to the commands."""
    parser = add_command(
        commands,
        "grid",
        run,
        "Lay spots over the tissue of a slide, so that it can be predicted.",
        "sthisto grid slide.svs --out slide.zarr",
    )
    parser.add_argument("data", type=Path, help="slide or picture, or a SpatialData store (zarr)")
    add_store_out(parser, what="what image and spots are written to", required=True)
    parser.add_argument("--image", help="H&E image (image_key), if there are several")
    parser.add_argument("--pitch-um", type=float, default=100.0, help="distance between spots in µm")
    parser.add_argument("--diameter-um", type=float, default=55.0, help="diameter of a spot in µm")
    parser.add_argument("--um-per-px", type=float, help="µm per px of the image's full resolution")
    parser.add_argument("--least-tissue", type=float, default=0.5, help="share of a spot's area that must be tissue")
    parser.add_argument("--key-added", default=TISSUE_GRID, help="name of the spots")


def run(options: argparse.Namespace) -> None:
    """Read the slide, lay the grid, write the store and print the number of spots."""
    if not options.data.exists():
        msg = f"There is nothing at {options.data}."
        raise FileNotFoundError(msg)
    paths = out_paths([options.data], options.out, overwrite=options.overwrite)

    import sthisto as sth

    sdata = sth.io.read(options.data)
    sth.pp.tissue_grid(
        sdata,
        image_key=options.image,
        pitch_um=options.pitch_um,
        diameter_um=options.diameter_um,
        um_per_px=options.um_per_px,
        least_tissue=options.least_tissue,
        key_added=options.key_added,
    )
    n_spots, table = len(sdata[options.key_added]), table_of_shapes(options.key_added)
    write_stores([sdata], paths, overwrite=options.overwrite)
    if options.json:
        print(json.dumps({"out": str(options.out), "spots": n_spots, "table": table}))
    elif not options.quiet:
        print(f"{options.out} has {n_spots} spots. Predict them with --table {table} --new-table predicted.")
