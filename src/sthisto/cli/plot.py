"""The command `sthisto plot`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from sthisto._sdata.slots import KEY
from sthisto._utils.atomic import atomic_file
from sthisto.cli.options import add_command, add_elements, element_keys
from sthisto.cli.stores import read_stores, refuse_existing

_KINDS: Final = ("gene_compare", "gene_correlation", "mean_variance", "scores", "uncertainty")


def add(commands: Any) -> None:
    """Add `plot` to the commands."""
    parser = add_command(
        commands,
        "plot",
        run,
        "Draw predicted genes beside the measured ones and the H&E, or the scores of a prediction.",
        "sthisto plot predicted.zarr --genes EPCAM,COL1A1 --out genes.png",
    )
    add_elements(parser, several=True)
    parser.add_argument("--kind", choices=_KINDS, default="gene_compare", help="function of sthisto.pl")
    parser.add_argument("--genes", help="comma-separated genes, for all kinds but scores")
    parser.add_argument(
        "--no-measured",
        dest="show_measured",
        action="store_false",
        help="draw the prediction alone, as of a slide without spots (gene_compare)",
    )
    parser.add_argument("--key-added", action="append", help="key of a prediction; may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="picture: .png, .pdf or .svg")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing picture")
    parser.add_argument("--dpi", type=float, default=150.0, help="dots per inch")


def run(options: argparse.Namespace) -> None:
    """Draw and write the picture."""
    if not options.overwrite:
        refuse_existing(options.out, "Choose another --out, or pass --overwrite.")
    if options.kind == "gene_compare" and not options.genes:
        msg = "--kind gene_compare draws genes: pass --genes EPCAM,COL1A1."
        raise ValueError(msg)
    stores = read_stores(options.data)

    import matplotlib as mpl

    import sthisto as sth

    mpl.use("Agg")
    figure = getattr(sth.pl, options.kind)(stores, **_arguments(options))
    _save(figure, options)
    if not options.quiet:
        print(f"{options.out} is drawn.")


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of the function that draws."""
    keys = element_keys(options)
    arguments: dict[str, Any] = {"dpi": options.dpi, "key_added": options.key_added or KEY}
    if options.kind == "scores":
        return arguments | {"table_key": keys["table_key"]}
    genes = None if options.genes is None else [name.strip() for name in options.genes.split(",") if name.strip()]
    if options.kind == "gene_compare":
        arguments["show_measured"] = options.show_measured
    return keys | arguments | ({} if genes is None else {"genes": genes})


def _save(figure: Any, options: argparse.Namespace) -> None:
    with atomic_file(options.out) as path:
        figure.savefig(path, dpi=options.dpi, bbox_inches="tight")
