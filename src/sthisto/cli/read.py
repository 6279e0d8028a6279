"""The command `sthisto read`: the files of a run become a SpatialData store, which the other commands take."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sthisto.cli.options import add_command, add_store_out
from sthisto.cli.stores import out_paths, write_stores


def add(commands: Any) -> None:
    """Add `read` to the commands."""
    parser = add_command(
        commands,
        "read",
        run,
        "Read a run of Space Ranger or Xenium, an h5ad or a slide, and write it as a SpatialData store.",
        "sthisto read liver_1/outs --image liver_1.tif --obs patient=P1 --out liver_1.zarr",
    )
    parser.add_argument(
        "data",
        type=Path,
        help="outs of Space Ranger (Visium, Visium HD), its segmented_outputs (cells), a Xenium run, an h5ad, a slide "
        "or picture",
    )
    add_store_out(parser, required=True, what="what was read is written to")
    parser.add_argument(
        "--image", type=Path, help="file of the full-resolution H&E; default: looked for beside the other files"
    )
    parser.add_argument("--bin-size", type=int, help="width of the bins of Visium HD in µm; default: 8")
    parser.add_argument("--um-per-px", type=float, help="µm per px of a slide; default: as the file states")
    parser.add_argument("--name", help="what the names of the elements begin with; default: that of the run or file")
    parser.add_argument(
        "--obs",
        metavar="COLUMN=VALUE",
        action="append",
        default=[],
        help="column of obs that is added with one value, for example patient=P1; may be repeated",
    )


def run(options: argparse.Namespace) -> None:
    """Read, write the store and print what it holds."""
    columns = _columns(options.obs)
    if not options.data.exists():
        msg = f"There is nothing at {options.data}."
        raise FileNotFoundError(msg)
    paths = out_paths([options.data], options.out, overwrite=options.overwrite)

    import sthisto as sth
    from sthisto._sdata.stated import Contents, state

    sdata = sth.io.read(
        options.data,
        image=options.image,
        bin_size=options.bin_size,
        um_per_px=options.um_per_px,
        name=options.name,
    )
    state(sdata, columns, argument="--obs")
    write_stores([sdata], paths, overwrite=options.overwrite)
    held = Contents.of(sdata)
    if options.json:
        print(json.dumps({"out": str(options.out), **asdict(held)}))
    elif not options.quiet:
        tables = (f"{n} spots in table {key!r}" for key, n in held.spots.items())
        print(f"{options.out} holds {', '.join([*map(repr, held.images), *tables])}.")


def _columns(pairs: Sequence[str]) -> dict[str, str]:
    """Return the columns of COLUMN=VALUE pairs."""
    unequal = [pair for pair in pairs if not pair.split("=", 1)[0] or "=" not in pair]
    if unequal:
        msg = f"--obs takes COLUMN=VALUE, found {unequal[0]!r}."
        raise ValueError(msg)
    return dict(pair.split("=", 1) for pair in pairs)
