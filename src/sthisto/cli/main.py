"""The command line: `sthisto COMMAND`. Each command is one file of this folder."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence

from safetensors import SafetensorError

from sthisto.benchmark._command import add_command as add_benchmark
from sthisto.cli import assess, demo, evaluate, fit, leaderboard, predict, report
from sthisto.cli.options import add_command

_ERRORS = (
    KeyError,
    ValueError,
    TypeError,
    OSError,
    RuntimeError,
    ImportError,
    ArithmeticError,
    MemoryError,
    AssertionError,
)
"""Errors that are printed as one line; others are bugs and show their traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Returns
    -------
    0 for success; 1 for an error of the input, or a cohort in which slides failed; 2 for an error of the command line;
    130 if interrupted.
    """
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if options.verbose:
        logging.getLogger("sthisto").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", message="zarr v3 autosharding")
    try:
        code = options.run(options)
    except KeyboardInterrupt:
        print("sthisto: interrupted", file=sys.stderr)
        return 130
    except (*_ERRORS, SafetensorError) as error:
        if options.verbose:
            raise
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"sthisto: {' '.join(str(text).split())}", file=sys.stderr)
        return 1
    return code or 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    from sthisto import __version__

    parser = argparse.ArgumentParser(
        prog="sthisto",
        description="Predict spatial gene expression from H&E images.",
        epilog="Example: sthisto demo --out sthisto-demo",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (demo, fit, assess, predict, evaluate, report, leaderboard):
        command.add(commands)
    add_benchmark(commands, add_command)
    return parser
