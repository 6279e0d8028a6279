"""Options that several commands share, and what they mean for the functions."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sthisto._sdata.slots import KEY
from sthisto._utils.arguments import read_value


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show defaults, but not those of switches, whose value is no text to pass, nor empty ones."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        is_switch = action.nargs == 0
        return action.help if is_switch or action.default in (None, "", []) else super()._get_help_string(action)


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], summary: str, example: str
) -> argparse.ArgumentParser:
    """Add a command with the options that all commands have.

    Parameters
    ----------
    commands
        Return value of `ArgumentParser.add_subparsers`.
    name
        Name of the command.
    run
        Function that runs the command and returns its exit code; None is 0.
    summary
        One sentence for the list of commands and the command's help.
    example
        Command line that the help shows.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"Example: {example}",
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show progress messages and tracebacks")
    parser.add_argument("-q", "--quiet", action="store_true", help="show errors only, and no progress bars")
    parser.add_argument("--log-file", type=Path, help="file that all messages are appended to")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)
    return parser


def add_data(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add the store, or several, the options that select their elements, and the prefix of the results."""
    add_elements(parser, several=several)
    parser.add_argument("--key-added", default=KEY, help="prefix of the results")


def add_elements(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add the store, or several, and the options that select their elements."""
    if several:
        parser.add_argument("data", type=Path, nargs="+", help="SpatialData store or stores (zarr)")
    else:
        parser.add_argument("data", type=Path, help="SpatialData store (zarr)")
    parser.add_argument(
        "--image",
        action="append",
        help="H&E image (image_key), if there are several; REGION=IMAGE for one region, may be repeated",
    )
    parser.add_argument("--shapes", action="append", help="region with the spots (shapes_key); may be repeated")
    parser.add_argument("--table", help="table of the spots (table_key), if there are several")
    parser.add_argument("--coordinate-system", help="coordinate system of image and spots, if they share several")


def add_store_out(parser: argparse.ArgumentParser, *, what: str, required: bool = False) -> None:
    """Add the store that is written."""
    text = f"{what}: a store, or a folder of stores if there are several"
    parser.add_argument("--out", type=Path, required=required, help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")


def element_keys(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of the functions that `add_data` or `add_elements` stands for."""
    return {
        "image_key": image_key(options.image),
        "shapes_key": options.shapes,
        "table_key": options.table,
        "coordinate_system": options.coordinate_system,
        **({"key_added": options.key_added} if "key_added" in options else {}),
    }


def image_key(names: Sequence[str] | None) -> str | dict[str, str] | None:
    """Return one image for all regions, or a mapping from region to image, from what follows `--image`."""
    if not names:
        return None
    by_region = [name.split("=", 1) for name in names if "=" in name]
    if not by_region and len(names) == 1:
        return names[0]
    if len(by_region) < len(names):
        msg = f"--image takes one name, or REGION=IMAGE for each region, found {' '.join(names)}."
        raise ValueError(msg)
    return dict(by_region)


def method_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Return the options of a method from NAME=VALUE pairs."""
    unequal = [pair for pair in pairs if "=" not in pair]
    if unequal:
        msg = f"--option takes NAME=VALUE, found {unequal[0]!r}."
        raise ValueError(msg)
    return {name: read_value(value) for name, value in (pair.split("=", 1) for pair in pairs)}


def read_names(path: Path) -> list[str]:
    """Return the names in a file, one per line, without a byte order mark, empty lines and comments after "#"."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
