"""The command `sthisto assess`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthisto._sdata.slots import PATIENT
from sthisto._utils.atomic import atomic_file
from sthisto._utils.verdicts import VERDICTS
from sthisto.cli.options import add_command, add_elements, element_keys
from sthisto.cli.output import print_table
from sthisto.cli.stores import read_stores, refuse_existing

if TYPE_CHECKING:
    import pandas as pd

_N_BEST = 10
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
    add_elements(parser, several=True)
    parser.add_argument("--model", type=Path, required=True, help="folder of the saved model, which gets the passport")
    parser.add_argument("--groups", default=PATIENT, help="what is held out: a column of obs, section or block")
    parser.add_argument("--n-folds", type=int, help="folds that the groups are assigned to; default: one group each")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--counts-layer", help="layer of raw counts")
    parser.add_argument("--um-per-px", type=float, help="µm per px of the images' full resolution")
    parser.add_argument("--out", type=Path, help="folder that keeps each finished fit; the same command goes on")
    parser.add_argument("--csv", type=Path, help="file that the whole passport is written to, one row per gene")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --csv")


def run(options: argparse.Namespace) -> None:
    """Assess the model, which keeps its passport, and print a summary, or with `--json` the passport."""
    if options.csv is not None and not options.overwrite:
        refuse_existing(options.csv, "Choose another --csv, or pass --overwrite.")
    stores = read_stores(options.data)

    import sthisto as sth

    model = sth.models.load(options.model)
    sth.tl.assess(
        stores,
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
    if options.csv is not None:
        with atomic_file(options.csv) as path:
            passport.to_csv(path, index=False)
    if options.json:
        print_table(passport, options)
    elif not options.quiet:
        _print_summary(passport, options)


def _print_summary(passport: pd.DataFrame, options: argparse.Namespace) -> None:
    """Print the number of genes of each verdict, the best genes, and where the others are."""
    from sthisto.models.passport import FILE

    counts = passport["verdict"].value_counts()
    print("; ".join(f"{verdict}: {counts.get(verdict, 0)} of {len(passport)}" for verdict in VERDICTS))
    best = passport.sort_values("pcc_residual", ascending=False).head(_N_BEST)
    print(f"\nThe {len(best)} of the highest residual score:")
    print_table(best[_PRINTED], options)
    held = [str(options.model / FILE), *([] if options.csv is None else [str(options.csv)])]
    remedy = "" if options.csv is not None else "; --csv FILE writes it as CSV"
    print(f"\nThe whole table is in {' and '.join(held)}{remedy}.")
