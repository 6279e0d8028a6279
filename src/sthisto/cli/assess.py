"""The command `sthisto assess`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sthisto._sdata.slots import PATIENT
from sthisto.cli.options import add_command, add_elements, element_keys
from sthisto.cli.output import print_table
from sthisto.cli.stores import read_store

_PRINTED = ["gene", "verdict", "pcc_residual", "pcc_residual_low", "pcc_residual_high", "gain", "color", "groups"]


def add(commands: Any) -> None:
    """Add `assess` to the commands."""
    parser = add_command(
        commands,
        "assess",
        run,
        "Fit a saved model again with groups held out, and keep a verdict on every gene with it.",
        "sthisto assess sections.zarr --model liver.sthisto --out folds",
    )
    add_elements(parser)
    parser.add_argument("--model", type=Path, required=True, help="folder of the saved model, which gets the passport")
    parser.add_argument("--groups", default=PATIENT, help="what is held out: a column of obs, section or block")
    parser.add_argument("--n-folds", type=int, help="folds that the groups are assigned to; default: one group each")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--counts-layer", help="layer of raw counts")
    parser.add_argument("--um-per-px", type=float, help="µm per px of the images' full resolution")
    parser.add_argument("--out", type=Path, help="folder that keeps each finished fit; the same command goes on")


def run(options: argparse.Namespace) -> None:
    """Assess the model, which keeps its passport, and print the passport."""
    sdata = read_store(options.data)

    import sthisto as sth

    model = sth.models.load(options.model)
    sth.tl.assess(
        sdata,
        model,
        groups=options.groups,
        n_folds=options.n_folds,
        seeds=options.seeds,
        counts_layer=options.counts_layer,
        out=options.out,
        um_per_px=options.um_per_px,
        **element_keys(options),
    )
    passport = sth.get.passport(model)
    print_table(passport if options.json else passport[_PRINTED], options)
