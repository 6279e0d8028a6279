"""`sthisto predict` of a folder or a manifest of slides."""

from __future__ import annotations

import argparse
from pathlib import Path

from sthisto._sdata.stores import is_store
from sthisto.cli.genes import predicted_genes


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


def predict_cohort(options: argparse.Namespace) -> int:
    """Predict the slides, print what became of them, and return 1 where some failed."""
    import sthisto as sth

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
        write_image=options.write_image,
        overwrite=options.overwrite,
    )
    if options.json:
        print(table.to_json(orient="records"))
    elif not options.quiet:
        print(table.to_string(index=False, float_format=lambda value: f"{value:.1f}", max_colwidth=80))
        print(f"\nThe predictions, summary.csv and summary.html are in {options.out}.")
    return int((table["state"] != "done").any())
