"""The command `sthisto predict`, of a store or of a cohort of slides."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sthisto._sdata.stores import atomic_store, check_store_target
from sthisto.cli.cohort import add_cohort_options, is_cohort, predict_cohort
from sthisto.cli.genes import predicted_genes
from sthisto.cli.options import add_command, add_data, element_keys
from sthisto.cli.stores import REMEDY, check_store, read_store


def add(commands: Any) -> None:
    """Add `predict` to the commands."""
    parser = add_command(
        commands,
        "predict",
        run,
        "Predict a SpatialData store, or a folder or manifest of slides, with a saved model and write the prediction.",
        "sthisto predict slides/ --model liver.sthisto --out predicted --workers 4",
    )
    add_data(parser)
    add_cohort_options(parser)
    parser.add_argument("--model", type=Path, required=True, help="folder of the saved model")
    parser.add_argument("--out", type=Path, required=True, help="output store, or folder for slides")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing output store; predict again slides that are done"
    )
    parser.add_argument(
        "--allow-download",
        action="store_true",
        help="download the image encoder that the model names from any hub page",
    )
    parser.add_argument(
        "--genes", default="all", help="all, use (by the model's passport), or a file with one gene per line"
    )
    parser.add_argument("--min-score", type=float, help="least residual score in the model's passport")
    parser.add_argument(
        "--interval", type=float, help="share of the measured values that intervals cover, such as 0.9; default: none"
    )
    parser.add_argument("--new-table", help="write a new table of the modeled genes under this name")
    parser.add_argument("--um-per-px", type=float, help="µm per px of the images' full resolution")


def run(options: argparse.Namespace) -> int | None:
    """Predict, write the store and print where it is; a cohort returns 1 if slides failed."""
    if is_cohort(options.data):
        return predict_cohort(options)
    check_store(options.data)
    check_store_target(options.out, overwrite=options.overwrite, remedy=REMEDY)
    with atomic_store(options.out, overwrite=options.overwrite) as staged:
        if not options.model.exists():
            msg = f"There is no model at {options.model}."
            raise FileNotFoundError(msg)
        sdata = read_store(options.data)

        import sthisto as sth
        from sthisto.models.conformal import HOLDS_FOR

        model = sth.models.load(options.model, allow_download=options.allow_download)
        sth.tl.predict(
            sdata,
            model,
            genes=predicted_genes(options.genes),
            min_score=options.min_score,
            interval=options.interval,
            new_table_key=options.new_table,
            um_per_px=options.um_per_px,
            **element_keys(options),
        )
        sdata.write(staged)
    held_for = ""
    if options.interval is not None and model.calibration is not None:
        held_for = HOLDS_FOR[model.calibration.groups_for(options.interval)]
    if options.json:
        found = {"out": str(options.out), "genes": len(model.genes)}
        print(json.dumps(found | ({"interval_holds_for": held_for} if held_for else {})))
    elif not options.quiet:
        bounds = f", with intervals at {options.interval:g} that hold for {held_for}" if held_for else ""
        print(f"{options.out} holds the prediction of {len(model.genes)} genes{bounds}.")
    return None
