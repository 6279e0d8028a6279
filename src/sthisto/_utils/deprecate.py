"""Names of version 0.1 that go on working for one release, with a FutureWarning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

if TYPE_CHECKING:
    import pandas as pd

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

METHOD_NAMES: Final = {"colour": "color"}
"""Names of methods in 0.1 -> names today."""
RECORD_KEYS: Final = {"normalisation": "normalization"}
"""Keys of ``uns["sthisto"]`` in 0.1 -> keys today."""
OPTION_NAMES: Final = {"colours": "colors"}
"""Names of methods' options in 0.1 -> names today."""
METHOD_HOOKS: Final = {"_fit": "fit_sections", "_predict": "predict_section"}
"""Methods that a subclass of `ExpressionModel` filled in under 0.1 -> their names today."""
GENE_SETS: Final = {"all modelled": "all modeled"}
"""Sets of genes in the tables of scores of 0.1 -> their names today."""

SCORE_COLUMNS: Final = {"ceiling": "reproducibility"}
"""Columns in the tables of scores of 0.1 -> their names today."""

_GOES = "0.1's name works until 0.3."


def warn_renamed(old: str, new: str, *, stacklevel: int = 2, remedy: str = "") -> None:
    """Warn that something is called `new` now.

    Parameters
    ----------
    old, new
        The names, as the user writes or sees them.
    stacklevel
        Calls between here and the user's line, as for `warnings.warn`.
    remedy
        What to do, where writing the new name is not it.
    """
    text = f"{old} is called {new} since sthisto 0.2; {_GOES} {remedy}".rstrip()
    warnings.warn(text, FutureWarning, stacklevel=stacklevel + 1)


def renamed_attribute(module: str, name: str, names: Mapping[str, str], found: Mapping[str, Any]) -> Any:
    """Return the attribute of a module that `name` was renamed to: the body of its ``__getattr__``.

    Parameters
    ----------
    module
        The module's name.
    name
        The attribute that was asked for.
    names
        Old name -> new name.
    found
        The module's ``globals()``.

    Raises
    ------
    AttributeError
        `name` is no old name.
    """
    if name not in names:
        msg = f"module {module!r} has no attribute {name!r}"
        raise AttributeError(msg)
    warn_renamed(f"{module}.{name}", f"{module}.{names[name]}", stacklevel=3)
    return found[names[name]]


def renamed_arguments(**names: str) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Return a decorator that lets a function take old names of its keyword arguments.

    Parameters
    ----------
    **names
        Old name -> new name.

    Raises
    ------
    TypeError
        On a call, both names of an argument are passed.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @wraps(function)
        def renaming(*args: Any, **kwargs: Any) -> Result:
            name = function.__qualname__.removesuffix(".__init__")
            for old in names.keys() & kwargs.keys():
                new = names[old]
                if new in kwargs:
                    msg = f"{name}() takes `{new}`, of which `{old}` is the old name: pass one of them."
                    raise TypeError(msg)
                warn_renamed(f"The argument `{old}` of {name}()", f"`{new}`", stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return renaming

    return decorate


def renamed_options(options: Mapping[str, Any], names: Mapping[str, str], *, method: str) -> dict[str, Any]:
    """Return options of a method by the names of today.

    Parameters
    ----------
    options
        What was passed.
    names
        Old name -> new name.
    method
        Name of the method, for messages.

    Raises
    ------
    TypeError
        Both names of an option are passed.
    """
    for old in names.keys() & options.keys():
        if names[old] in options:
            msg = f"Method {method!r} takes `{names[old]}`, of which `{old}` is the old name: pass one of them."
            raise TypeError(msg)
        warn_renamed(f"The option `{old}` of {method!r}", f"`{names[old]}`", stacklevel=3)
    return {names.get(name, name): value for name, value in options.items()}


def renamed_keys(values: Mapping[str, Any], names: Mapping[str, str], *, where: str, remedy: str) -> dict[str, Any]:
    """Return a mapping that was kept on disk, with the names of its keys today.

    Parameters
    ----------
    values
        What was read.
    names
        Old key -> new key.
    where
        What the warning calls the mapping.
    remedy
        How to write it anew.
    """
    old = [name for name in values if name in names and names[name] not in values]
    for name in old:
        warn_renamed(f"The key {name!r} of {where}", repr(names[name]), stacklevel=3, remedy=remedy)
    return {names[name] if name in old else name: value for name, value in values.items()}


def renamed_columns(table: pd.DataFrame, names: Mapping[str, str], *, remedy: str) -> pd.DataFrame:
    """Return a table that was kept on disk, with the names that its columns have today.

    Parameters
    ----------
    table
        What was read.
    names
        Old column -> new column.
    remedy
        How to write it anew.
    """
    old = [name for name in names if name in table]
    for name in old:
        warn_renamed(f"The column {name!r}", repr(names[name]), stacklevel=3, remedy=remedy)
    return table.rename(columns={name: names[name] for name in old})


def renamed_values(table: pd.DataFrame, names: Mapping[str, Mapping[str, str]], *, remedy: str) -> pd.DataFrame:
    """Return a table that was kept on disk, with the names that its columns hold today.

    Parameters
    ----------
    table
        What was read.
    names
        Column -> old value -> new value.
    remedy
        How to write it anew.
    """
    renamed = {}
    for column, values in names.items():
        if column in table:
            for old in [value for value in table[column].unique() if value in values]:
                warn_renamed(f"{old!r} in the column {column!r}", repr(values[old]), stacklevel=3, remedy=remedy)
            renamed[column] = [values.get(value, value) for value in table[column]]
    return table.assign(**renamed)
