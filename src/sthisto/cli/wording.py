"""Errors and warnings in terms of the command line: options instead of arguments, commands instead of calls."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from sthisto._utils.logging import logger

_OPTIONS: Final = {
    "image_key": "--image",
    "shapes_key": "--shapes",
    "table_key": "--table",
    "new_table_key": "--new-table",
}
"""Argument -> option, where their names differ."""
_COMMANDS: Final = {"tissue_grid": "grid", "gene_compare": "plot"}
"""Function -> command, where their names differ."""
_CALL: Final = re.compile(r"\b(?:sth|sthisto)\.(?:tl|pp|pl)\.(?P<function>\w+)(?:\((?:[^()]|\([^()]*\))*\))?")
_ARGUMENT: Final = re.compile(
    r"(?P<quote>`?)\b(?P<name>[a-z]\w*)(?P=quote)(?:=(?P<value>…|'[^']*'|\[[^\]]*\]|[\w+-]+(?:\.\w+)*)?)?"
)


def in_options(text: str, command: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser]) -> str:
    """Return an error's text with options and commands instead of arguments and calls.

    Parameters
    ----------
    text
        The text of an error or a warning of the package.
    command
        The parser of the command that was run. An argument that it has no option for becomes the option of `fit` where
        `fit` alone has one, else it stays as it is.
    commands
        Parsers of all commands; a call of another function stays as it is.
    """
    flags = _flags(command)
    known = {name: action.option_strings[-1] for name, action in flags.items()}
    of_fit = _of_fit_alone(commands)
    known |= {name: option for name, option in _OPTIONS.items() if option in known.values()}

    def of_call(found: re.Match[str]) -> str:
        name = _COMMANDS.get(found["function"], found["function"])
        return f"sthisto {name}" if name in commands else found[0]

    def of_argument(found: re.Match[str]) -> str:
        name, value = found["name"], found["value"]
        is_argument = found["quote"] or value is not None
        if name not in known and value is not None and name in of_fit:
            return f"{of_fit[name]} {value.strip(chr(39))} of sthisto fit"
        if not is_argument or name not in known:
            return found[0]
        if value is None or (name in flags and flags[name].nargs == 0):
            return known[name]
        return f"{known[name]} {value.strip(chr(39))}"

    return _ARGUMENT.sub(of_argument, _CALL.sub(of_call, text))


def _flags(command: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {action.dest: action for action in command._actions if action.option_strings}


def _of_fit_alone(commands: Mapping[str, argparse.ArgumentParser]) -> dict[str, str]:
    """Return the options of `fit`, by argument, that no other command has: messages of others advise on them."""
    others = {argument for name, parser in commands.items() if name != "fit" for argument in _flags(parser)}
    return {name: flag.option_strings[-1] for name, flag in _flags(commands["fit"]).items() if name not in others}


@contextmanager
def warnings_in_options(
    command: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser]
) -> Iterator[None]:
    """Let the warnings that the package logs within the block name options and commands, as `in_options` does."""

    def translate(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            record.msg, record.args = in_options(record.getMessage(), command, commands), None
        return True

    logger.addFilter(translate)
    try:
        yield
    finally:
        logger.removeFilter(translate)
