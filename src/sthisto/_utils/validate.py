"""Checks of arguments: the wording of errors, once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from numbers import Real
from typing import Any, Final

import numpy as np

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_LONGEST_NAME: Final = 200
"""Bytes; file systems take 255, of which slots need some for their ends."""
_RESERVED: Final = frozenset({"spatialdata_attrs", "_index", ".", ".."})


def listed(values: Iterable[Any], limit: int = 12) -> str:
    """Return the values for an error message, cut after `limit`."""
    names = [repr(v.item() if isinstance(v, np.generic) else v) for v in values]
    more = f", … ({len(names)} in all)" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + more


def check_choice(value: Any, choices: Iterable[Any], *, name: str) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    choices = list(choices)
    if value not in choices:
        msg = f"`{name}` is {value!r}; it must be one of {listed(choices)}."
        raise ValueError(msg)


def check_positive(value: float, *, name: str) -> None:
    """Raise TypeError unless `value` is a number, ValueError unless it is finite and above zero."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        msg = f"`{name}` must be a positive number, found {value!r}."
        raise TypeError(msg)
    if not 0 < value < np.inf:
        msg = f"`{name}` must be positive, found {value!r}."
        raise ValueError(msg)


def check_new_name(value: str, *, name: str) -> None:
    """Raise ValueError for a name that SpatialData would not write to disk, or that it keeps for itself."""
    if len(value.encode()) > _LONGEST_NAME:
        msg = f"`{name}` is {len(value)} letters long, more than a file name holds: {value[:20]!r}…"
        raise ValueError(msg)
    if not _NAME.fullmatch(value) or value.startswith("__") or value in _RESERVED:
        msg = f"`{name}` must be of letters, digits, '_', '-' and '.', and not SpatialData's own, found {value!r}."
        raise ValueError(msg)


def check_key(key: Any, available: Iterable[Any], *, name: str, where: str, remedy: str = "") -> None:
    """Raise KeyError unless `key` is among `available`, listing what is and what to do next."""
    available = list(available)
    if key not in available:
        msg = f"`{name}`={key!r} is not in {where}. Available: {listed(available)}. {remedy}".rstrip()
        raise KeyError(msg)


def resolve_only(key: Any | None, candidates: Iterable[Any], *, name: str, where: str) -> Any:
    """Return `key` after checking it, or the only candidate; raise and list the candidates otherwise."""
    candidates = list(candidates)
    if key is not None:
        check_key(key, candidates, name=name, where=where)
        return key
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        msg = f"There is no candidate for `{name}`: {where} are none."
        raise KeyError(msg)
    msg = f"`{name}` is ambiguous, {where} are {listed(candidates)}. Pass {name}=…"
    raise ValueError(msg)
