"""Columns of `obs` as people have them: flags, numbers and names, whatever type they are stored in."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pandas as pd

from sthisto._utils.validate import listed

_TRUE: Final = frozenset({"1", "true", "t", "yes", "y", "in", "in tissue", "on tissue", "inside", "tissue", "on"})
_FALSE: Final = frozenset(
    {"0", "false", "f", "no", "n", "out", "off", "off tissue", "out of tissue", "not in tissue", "outside"}
    | {"background", "bg"}
)
_MISSING: Final = frozenset({"", "na", "n/a", "nan", "none", "null", "<na>", "nat", "?", "-"})
_WHOLE: Final = re.compile(r"[-+]?\d+\.0+")


def as_text(value: Any) -> str:
    """Return a name as text, so that 2, 2.0, "2.0" and "2" are one name."""
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    text = str(value)
    return text.split(".")[0] if _WHOLE.fullmatch(text) else text


def read_names(values: Any) -> np.ndarray:
    """Return (n,) names as text, None where one is missing."""
    return _mapped(values, as_text, missing=None).astype(object)


def read_known_names(values: Any) -> np.ndarray:
    """Return (n,) names as text without spaces around; None where one is missing, or text such as "nan" says so."""

    def known(value: Any) -> str | None:
        text = as_text(value).strip()
        return None if text.lower() in _MISSING else text

    return _mapped(values, known, missing=None).astype(object)


def read_flags(values: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) bool: the flag, and whether it is missing; a missing flag is False.

    Booleans, numbers (0 is False), and text such as "1", "true", "yes" or "in tissue" are read, categorical or not.

    Raises
    ------
    ValueError
        A value is none of these; the message names it and the column `name`.
    """
    unknown: list[Any] = []

    def flag(value: Any) -> bool | None:
        text = _plain(value)
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        number = _number(value)
        if np.isnan(number) and text not in _MISSING:
            unknown.append(value)
        return None if np.isnan(number) else number != 0

    flags = _mapped(values, flag, missing=None)
    if unknown:
        msg = f"obs[{name!r}] holds {listed(unknown, 5)}; expected a flag: 0 and 1, True and False, 'yes' and 'no'."
        raise ValueError(msg)
    return np.array([bool(one) for one in flags], dtype=bool), np.array([one is None for one in flags], dtype=bool)


def read_numbers(values: Any) -> np.ndarray:
    """Return (n,) float64; NaN where a value is missing, infinite or no number."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        numbers = values.astype(float)
    else:
        numbers = _mapped(values, _number, missing=np.nan).astype(float)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _mapped(values: Any, convert: Callable[[Any], Any], *, missing: Any) -> np.ndarray:
    """Convert each distinct value once; (n,) object."""
    codes, distinct = pd.factorize(pd.Series(values), use_na_sentinel=True)
    converted = np.empty(len(distinct) + 1, dtype=object)
    converted[:-1] = [convert(value) for value in distinct]
    converted[-1] = missing  # which the code -1 refers to
    result: np.ndarray = converted[codes]
    return result


def _plain(value: Any) -> str:
    return " ".join(as_text(value).lower().replace("_", " ").split())


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
