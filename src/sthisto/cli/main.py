# PYTHON_ARGCOMPLETE_OK
"""The command line: `sthisto COMMAND`. Each command is one file of this folder."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

from safetensors import SafetensorError

from sthisto._utils.settings import settings
from sthisto.benchmark._command import add_command as add_benchmark
from sthisto.cli import assess, demo, evaluate, fit, grid, leaderboard, plot, predict, read, report, split
from sthisto.cli.options import add_command
from sthisto.cli.wording import in_options, warnings_in_options

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
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:  # set by the shell while it completes a command line
        import argcomplete

        argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return 0
    _configure(options)
    warnings.filterwarnings("ignore", message="zarr v3 autosharding")
    try:
        with warnings_in_options(options.command, options.commands):
            code = options.run(options)
    except KeyboardInterrupt:
        print("sthisto: interrupted", file=sys.stderr)
        return 130
    except (*_ERRORS, SafetensorError) as error:
        if options.verbose:
            raise
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        text = in_options(" ".join(str(text).split()), options.command, options.commands)
        print(f"sthisto: {text}", file=sys.stderr)
        return 1
    return code or 0


def _configure(options: argparse.Namespace) -> None:
    """Set what is logged and whether there are progress bars."""
    settings.verbosity = "info" if options.verbose else "error" if options.quiet else "warning"
    settings.log_file = options.log_file
    settings.progress = not options.quiet


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    from sthisto import __version__

    parser = argparse.ArgumentParser(
        prog="sthisto",
        description="Predict spatial gene expression from H&E images.",
        epilog="Example: sthisto demo --out sthisto-demo",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in (demo, read, split, fit, assess, grid, predict, evaluate, plot, report, leaderboard):
        command.add(commands)
    add_benchmark(commands, add_command)
    for command_parser in commands.choices.values():
        command_parser.set_defaults(command=command_parser, commands=commands.choices)
    return parser
