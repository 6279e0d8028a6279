"""The command line: `sthisto demo | fit | predict | evaluate | benchmark`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from sthisto._sdata.slots import KEY
from sthisto._utils.arguments import read_value
from sthisto._utils.defaults import PATCH_SIZE
from sthisto.cli.cohort import add_cohort_options

if TYPE_CHECKING:
    import pandas as pd


_OTHER_ERRORS = (ArithmeticError, ImportError, MemoryError, SafetensorError)
_ZARR_FILES = ("zarr.json", ".zgroup")
"""Files in the root of a store, in zarr's formats 3 and 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 for an error of the input, 2 for one of the command line.

    1 is also that of a cohort in which slides failed.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if options.verbose:
        logging.getLogger("sthisto").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", message="zarr v3 autosharding")
    try:
        code = options.run(options)
    except KeyboardInterrupt:
        print("sthisto: interrupted", file=sys.stderr)
        return 130
    except (KeyError, ValueError, TypeError, OSError, RuntimeError, ImportError, *_OTHER_ERRORS) as error:
        if options.verbose:
            raise
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"sthisto: {' '.join(str(text).split())}", file=sys.stderr)
        return 1
    return code or 0


def _parser() -> argparse.ArgumentParser:
    from sthisto import __version__
    from sthisto.benchmark._command import add_command

    parser = argparse.ArgumentParser(
        prog="sthisto",
        description="Predict spatial gene expression from H&E images.",
        epilog="Example: sthisto demo --out sthisto-demo",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_fit(commands)
    _add_predict(commands)
    _add_evaluate(commands)
    add_command(commands, _add)
    return parser


def _add(commands: Any, name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"Example: {example}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show progress messages and tracebacks")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)
    return parser


def _add_demo(commands: Any) -> None:
    parser = _add(
        commands,
        "demo",
        _demo,
        "Fit on synthetic sections of two patients, predict a third, and compare with baselines.",
        "sthisto demo --out sthisto-demo",
    )
    parser.add_argument("--out", type=Path, default=Path("sthisto-demo"), help="output folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sections and of the model")


def _add_fit(commands: Any) -> None:
    parser = _add(
        commands,
        "fit",
        _fit,
        "Fit a method on a SpatialData store and save the model; interrupted, the same command goes on.",
        "sthisto fit sections.zarr --model liver.sthisto --method danet --option k=50",
    )
    _add_data(parser)
    parser.add_argument("--model", type=Path, required=True, help="folder that the model is saved to")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model")
    parser.add_argument("--method", default="danet", help="name of the method")
    parser.add_argument(
        "--image-encoder", help="timm name, hf-hub: id, texture, or efficientnet_lite0; default: the method's"
    )
    parser.add_argument("--genes", type=Path, help="file with one gene per line; default: highly variable genes")
    parser.add_argument("--target-sets", type=Path, help="GMT file of gene sets to model in place of genes")
    parser.add_argument("--target", help="log1p, pearson_residuals, as_is, or obsm:KEY for proportions of cell types")
    parser.add_argument("--layer", help="layer with the expression; default: X")
    parser.add_argument("--patch-size", type=int, default=PATCH_SIZE, help="width of a patch in px")
    parser.add_argument("--patch-um", type=float, help="width of tissue in µm that a patch covers")
    parser.add_argument("--um-per-px", type=float, help="µm per px of the images' full resolution")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches")
    parser.add_argument("--devices", type=read_value, help="number of devices, or 'auto'")
    parser.add_argument("--num-nodes", type=int, help="number of machines")
    parser.add_argument("--strategy", help="strategy of Lightning Fabric, for example 'ddp'")
    parser.add_argument("--precision", help="'32-true', 'bf16', …")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the method, for example max_epochs=10; may be repeated",
    )


def _add_predict(commands: Any) -> None:
    parser = _add(
        commands,
        "predict",
        _predict,
        "Predict a SpatialData store, or a folder or manifest of slides, with a saved model and write the prediction.",
        "sthisto predict slides/ --model liver.sthisto --out predicted --workers 4",
    )
    _add_data(parser)
    add_cohort_options(parser)
    parser.add_argument("--model", type=Path, required=True, help="folder of the saved model")
    parser.add_argument("--out", type=Path, required=True, help="output store")
    parser.add_argument(
        "--allow-download",
        action="store_true",
        help="download the image encoder that the model names from any hub page",
    )
    parser.add_argument("--new-table", help="write a new table of the modeled genes under this name")
    parser.add_argument("--um-per-px", type=float, help="µm per px of the images' full resolution")


def _add_evaluate(commands: Any) -> None:
    parser = _add(
        commands,
        "evaluate",
        _evaluate,
        "Score the prediction in a SpatialData store against its measured expression.",
        "sthisto evaluate predicted.zarr --json",
    )
    _add_data(parser)
    parser.add_argument("--counts-layer", help="layer of raw counts")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="SpatialData store (zarr)")
    parser.add_argument(
        "--image",
        action="append",
        help="H&E image (image_key), if there are several; REGION=IMAGE for one region, may be repeated",
    )
    parser.add_argument("--shapes", action="append", help="region with the spots (shapes_key); may be repeated")
    parser.add_argument("--table", help="table of the spots (table_key), if there are several")
    parser.add_argument("--coordinate-system", help="coordinate system of image and spots, if they share several")
    parser.add_argument("--key-added", default=KEY, help="prefix of the results")


def _names(path: Path) -> list[str]:
    """Return the names in a file, one a line; a byte order mark, empty lines and comments after "#" are left out."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _demo(options: argparse.Namespace) -> None:
    from sthisto.cli.demo import run_demo

    table = run_demo(options.out, seed=options.seed)
    _print_table(table, as_json=options.json)
    if not options.json:
        print("\nNaN: a constant, as the mean is, has no correlation, and depth predicts no expression.")
        print(f"Figures, the SpatialData and the model are in {options.out}.")


def _fit(options: argparse.Namespace) -> None:
    import sthisto as sth
    from sthisto.models.bundle import check_target
    from sthisto.models.training.checkpoint import remove_checkpoint
    from sthisto.models.training.devices import is_first_process

    _refuse(options.model, options.overwrite, "Choose another --model, or pass --overwrite.")
    check_target(options.model, overwrite=True)
    checkpoint = options.model.with_name(f"{options.model.name}.checkpoint")
    parallel = {name: getattr(options, name) for name in ("devices", "num_nodes", "strategy", "precision")}
    model = sth.tl.fit(
        _read(options.data),
        method=options.method,
        image_encoder=options.image_encoder,
        genes=None if options.genes is None else _names(options.genes),
        target_sets=options.target_sets,
        target=options.target,
        layer=options.layer,
        patch_size=options.patch_size,
        patch_um=options.patch_um,
        um_per_px=options.um_per_px,
        seed=options.seed,
        checkpoint=checkpoint,
        **_keys(options),
        **{name: value for name, value in parallel.items() if value is not None},
        **_method_options(options.option),
    )
    if is_first_process():
        model.save(options.model, overwrite=True)
        remove_checkpoint(checkpoint)
    _print_table(model.history, as_json=options.json)


def _predict(options: argparse.Namespace) -> int | None:
    import sthisto as sth
    from sthisto.cli.cohort import is_cohort, predict_cohort

    if is_cohort(options.data):
        return predict_cohort(options)
    _refuse(options.out, False, "Choose another --out.")
    sdata = _read(options.data)
    model = sth.models.load(options.model, allow_download=options.allow_download)
    sth.tl.predict(sdata, model, new_table_key=options.new_table, um_per_px=options.um_per_px, **_keys(options))
    sdata.write(options.out)
    if options.json:
        print(json.dumps({"out": str(options.out), "genes": len(model.genes)}))
    else:
        print(f"{options.out} holds the prediction of {len(model.genes)} genes.")
    return None


def _evaluate(options: argparse.Namespace) -> None:
    import sthisto as sth

    sdata = _read(options.data)
    sth.tl.evaluate(sdata, counts_layer=options.counts_layer, **_keys(options))
    scores = sth.get.scores(sdata, key_added=options.key_added, table_key=options.table, by="section")
    _print_table(scores, as_json=options.json)


def _read(path: Path) -> Any:
    import spatialdata as sd

    if not path.exists():
        msg = f"There is no SpatialData store at {path}."
        raise FileNotFoundError(msg)
    if not any((path / name).exists() for name in _ZARR_FILES):
        msg = (
            f"{path} is no SpatialData store. Read your data and write them first, for example "
            f"spatialdata_io.visium({str(path)!r}).write('sections.zarr')."
        )
        raise ValueError(msg)
    return sd.read_zarr(path)


def _keys(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "image_key": _image(options.image),
        "shapes_key": options.shapes,
        "table_key": options.table,
        "coordinate_system": options.coordinate_system,
        "key_added": options.key_added,
    }


def _image(names: Sequence[str] | None) -> str | dict[str, str] | None:
    """Return one image for all regions, or those of each."""
    if not names:
        return None
    by_region = [name.split("=", 1) for name in names if "=" in name]
    if not by_region and len(names) == 1:
        return names[0]
    if len(by_region) < len(names):
        msg = f"--image takes one name, or REGION=IMAGE for each region, found {' '.join(names)}."
        raise ValueError(msg)
    return dict(by_region)


def _refuse(path: Path, overwrite: bool, remedy: str) -> None:
    if path.exists() and not overwrite:
        msg = f"{path} exists. {remedy}"
        raise FileExistsError(msg)


def _method_options(pairs: Sequence[str]) -> dict[str, Any]:
    unequal = [pair for pair in pairs if "=" not in pair]
    if unequal:
        msg = f"--option takes NAME=VALUE, found {unequal[0]!r}."
        raise ValueError(msg)
    return {name: read_value(value) for name, value in (pair.split("=", 1) for pair in pairs)}


def _print_table(table: pd.DataFrame, *, as_json: bool) -> None:
    if as_json:
        print(table.to_json(orient="records"))
    elif len(table):
        print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


if __name__ == "__main__":
    sys.exit(main())
