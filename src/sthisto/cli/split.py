"""The command `sthisto split`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sthisto._sdata.slots import SPLIT
from sthisto.cli.options import add_command, add_elements, add_store_out, element_keys
from sthisto.cli.output import print_table
from sthisto.cli.stores import out_paths, read_stores, write_stores

if TYPE_CHECKING:
    import pandas as pd
    from spatialdata import SpatialData


def add(commands: Any) -> None:
    """Add `split` to the commands."""
    parser = add_command(
        commands,
        "split",
        run,
        "Divide the spots into training, validation and test spots.",
        "sthisto split sections.zarr --patient-key patient --test P3 --out split.zarr",
    )
    add_elements(parser, several=True)
    add_store_out(parser, what="what the split is written to", required=True)
    parser.add_argument("--by", choices=["patient", "section", "block"], default="patient", help="what is held out")
    parser.add_argument("--patient-key", help="column of obs with the patient; required for --by patient")
    parser.add_argument(
        "--test", default="0.25", help="share to test on, or comma-separated names of patients or sections"
    )
    parser.add_argument("--validation", type=float, default=0.1, help="share of training spots that choose the epoch")
    parser.add_argument(
        "--calibration",
        default="0",
        help="share of training spots, or comma-separated names of patients or sections, that intervals are taken from",
    )
    parser.add_argument("--margin", type=float, help="px that a model sees around a spot, for --by block; default: 224")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random draws")


def run(options: argparse.Namespace) -> None:
    """Split, write the stores and print the number of spots of each role."""
    paths = out_paths(options.data, options.out, overwrite=options.overwrite)
    stores = read_stores(options.data)

    import sthisto as sth

    keys = element_keys(options)
    sth.pp.split(
        stores,
        by=options.by,
        test=_share_or_names(options.test),
        validation=options.validation,
        calibration=_share_or_names(options.calibration),
        margin=options.margin,
        patient_key=options.patient_key,
        seed=options.seed,
        **keys,
    )
    write_stores(stores, paths, overwrite=options.overwrite)
    print_table(_counts(stores, keys["table_key"]), options)


def _counts(stores: Sequence[SpatialData], table_key: str | None) -> pd.DataFrame:
    """Return the number of spots of each role, one row per role."""
    import pandas as pd

    from sthisto._sdata.sections import read_tables

    roles = pd.concat([table.obs[SPLIT].astype(object) for table in read_tables(stores, table_key)])
    return roles.fillna("left out").value_counts().rename_axis("split").reset_index(name="spots")


def _share_or_names(written: str) -> float | list[str]:
    """Return a share, or names."""
    try:
        return float(written)
    except ValueError:
        return [name.strip() for name in written.split(",") if name.strip()]
