"""`sthisto predict` of a folder or a manifest of slides."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from sthisto._sdata.slots import KEY
from sthisto._sdata.stores import is_store
from sthisto._utils.validate import listed
from sthisto.cli.genes import predicted_genes

_OF_STORES: Final = ("image", "shapes", "table", "coordinate_system", "new_table", "allow_download")


def add_cohort_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a cohort to those of `sthisto predict`."""
    group = parser.add_argument_group("folder or manifest of slides, or a slide file")
    group.add_argument("--workers", type=int, default=1, help="processes on this machine")
    group.add_argument("--cluster", help="address of a dask scheduler that has the workers")
    group.add_argument("--pitch-um", type=float, default=100.0, help="distance between spots in µm")
    group.add_argument("--diameter-um", type=float, default=55.0, help="diameter of a spot in µm")
    group.add_argument("--write-image", action="store_true", help="write the images to the stores too")


def is_cohort(path: Path) -> bool:
    """Return whether a path holds slides rather than a SpatialData store."""
    return path.exists() and not is_store(path)


def _refuse_options_of_stores(options: argparse.Namespace) -> None:
    given = [name for name in _OF_STORES if getattr(options, name)]
    given += ["key_added"] if options.key_added != KEY else []
    if given:
        names = listed("--" + name.replace("_", "-") for name in given)
        msg = f"{options.data} holds slides, which take no {names}: these are options of a store."
        raise ValueError(msg)


def predict_cohort(options: argparse.Namespace) -> int:
    """Predict the slides, print what became of them, and return 1 where some failed.

    Raises
    ------
    ValueError
        An option belongs to a store, or `--out` names one.
    """
    import sthisto as sth

    _refuse_options_of_stores(options)
    if options.out.suffix == ".zarr":
        msg = (
            f"--out is {options.out}, but {options.data} holds slides, and each gets a store in the folder --out. "
            "Name a folder; or make a store of a run with sthisto read first, and predict that."
        )
        raise ValueError(msg)
    table = sth.cohort.predict(
        options.data,
        options.model,
        out=options.out,
        workers=options.workers,
        cluster=options.cluster,
        pitch_um=options.pitch_um,
        diameter_um=options.diameter_um,
        genes=predicted_genes(options.genes),
        min_score=options.min_score,
        um_per_px=options.um_per_px,
        interval=options.interval,
        write_image=options.write_image,
        overwrite=options.overwrite,
    )
    if options.json:
        print(table.to_json(orient="records"))
    elif not options.quiet:
        print(table.to_string(index=False, float_format=lambda value: f"{value:.1f}", max_colwidth=80))
        print(f"\nThe predictions, summary.csv and summary.html are in {options.out}.")
    return int((table["state"] != "done").any())
