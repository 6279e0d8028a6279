"""Errors in terms of the command line: options instead of arguments, commands instead of calls."""

from __future__ import annotations

import argparse
import re
from typing import Final

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


def in_options(text: str, command: argparse.ArgumentParser, commands: frozenset[str]) -> str:
    """Return an error's text with options and commands instead of arguments and calls.

    Parameters
    ----------
    text
        The text of an error that a function of the package raised.
    command
        The parser of the command that was run; an argument that it has no option for stays as it is.
    commands
        Names of all commands; a call of another function stays as it is.
    """
    flags = {action.dest: action for action in command._actions if action.option_strings}
    known = {name: action.option_strings[-1] for name, action in flags.items()}
    known |= {name: option for name, option in _OPTIONS.items() if option in known.values()}

    def of_call(found: re.Match[str]) -> str:
        name = _COMMANDS.get(found["function"], found["function"])
        return f"sthisto {name}" if name in commands else found[0]

    def of_argument(found: re.Match[str]) -> str:
        name, value = found["name"], found["value"]
        is_argument = found["quote"] or value is not None
        if not is_argument or name not in known:
            return found[0]
        if value is None or (name in flags and flags[name].nargs == 0):
            return known[name]
        return f"{known[name]} {value.strip(chr(39))}"

    return _ARGUMENT.sub(of_argument, _CALL.sub(of_call, text))
