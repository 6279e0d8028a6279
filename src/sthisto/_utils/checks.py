"""What an argument may be: small checks that are combined, each with its wording. `arguments` says which is whose."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Final

import numpy as np

from sthisto._utils.validate import check_new_name, listed

_LONGEST: Final = 80
_LARGEST: Final = sys.float_info.max
_MANY: Final = 10**9
LARGEST_SEED: Final = 2**32 - 1
"""What numpy's, torch's and scikit-learn's generators all take."""


def shown(value: Any) -> str:
    """Return a value for an error message, in one short line: what it is, or of which type and shape."""
    shape = getattr(value, "shape", None)
    if isinstance(value, np.generic):
        return f"{value.item()!r}"
    if isinstance(shape, tuple):
        return f"{type(value).__name__} of the shape {shape}"
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({type(value).__name__})"


@dataclass(frozen=True)
class Check:
    """A condition on a value.

    Attributes
    ----------
    expected
        What the value must be, as it follows "must be".
    is_type
        Whether the value is of a type that is taken; TypeError where it is not.
    is_value
        Whether a value of that type is taken; ValueError where it is not.
    """

    expected: str
    is_type: Callable[[Any], bool]
    is_value: Callable[[Any], bool] = lambda value: True

    def fault(self, value: Any, name: str) -> Exception | None:
        """Return the error for a value that is not taken, None for one that is."""
        wrong_type = not self.is_type(value)
        if not wrong_type and self.is_value(value):
            return None
        if is_list(value) and not len(value):
            return ValueError(f"`{name}` is empty; it must be {self.expected}.")
        msg = f"`{name}` must be {self.expected}, found {shown(value)}."
        return TypeError(msg) if wrong_type else ValueError(msg)

    def __or__(self, other: Check) -> Check:
        """Return a check that takes what either does."""
        return Check(
            f"{self.expected}, or {other.expected}",
            lambda value: self.is_type(value) or other.is_type(value),
            lambda value: (
                (self.is_type(value) and self.is_value(value)) or (other.is_type(value) and other.is_value(value))
            ),
        )

    def called(self, expected: str) -> Check:
        """Return the same check in other words."""
        return replace(self, expected=expected)


def is_number(value: Any) -> bool:
    """Return whether a value is one real number; truth values are none."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def is_whole(value: Any) -> bool:
    """Return whether a value is an integer; truth values are none."""
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool_)


def number(
    *, above: float = -math.inf, least: float = -math.inf, below: float = math.inf, most: float = math.inf
) -> Check:
    """Return the check for a finite number within bounds, which `above` and `below` leave out."""
    if above == 0 and below == most == math.inf:
        expected = "positive: a finite number"
    else:
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (("above", above), ("of at least", least), ("below", below), ("of at most", most))
            if math.isfinite(bound)
        ]
        expected = " ".join(["a finite number", " and ".join(bounds)]).rstrip()
    return Check(
        expected,
        is_number,
        lambda value: abs(value) <= _LARGEST and above < value < below and least <= value <= most,
    )


def whole(least: int = 1, most: int = _MANY) -> Check:
    """Return the check for a whole number within bounds."""
    expected = "positive: a whole number" if least == 1 else f"a whole number of at least {least}"
    expected += f" and at most {most}" if most != _MANY else ""
    # A fraction is of a type that is taken, so that it is a wrong value, as 0 is.
    return Check(expected, is_number, lambda value: is_whole(value) and least <= value <= most)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _fits(value: str) -> bool:
    """Return whether file systems can hold a path."""
    parts = os.fsencode(value).split(os.sep.encode())
    return sum(map(len, parts)) < 4000 and max(map(len, parts)) <= 255


flag = Check("True or False", lambda value: isinstance(value, bool | np.bool_))
text = Check("text (a name)", _is_text, lambda value: bool(value.strip()))
path = Check(
    "a path",
    lambda value: isinstance(value, str | os.PathLike),
    lambda value: bool(str(value).strip()) and "\0" not in str(value) and _fits(str(value)),
)
function = Check("a function", callable)
seed = whole(0, LARGEST_SEED)
share = number(least=0, most=1)


def is_list(value: Any) -> bool:
    """Return whether a value is a list of values, and neither text nor a mapping."""
    is_listed = isinstance(value, Collection) and getattr(value, "ndim", 1) == 1
    return is_listed and not isinstance(value, str | bytes | bytearray | Mapping)


def mapping(expected: str) -> Check:
    """Return the check for a mapping with anything in it."""
    return Check(expected, lambda value: isinstance(value, Mapping))


def list_of(one: Check, expected: str, *, least: int = 1, length: int | None = None) -> Check:
    """Return the check for a list whose members are all taken by another check."""
    return Check(
        expected,
        lambda value: is_list(value) and all(one.is_type(inner) for inner in value),
        lambda value: (
            all(one.is_value(inner) for inner in value)
            and (len(value) >= least if length is None else len(value) == length)
        ),
    )


def mapping_to(one: Check, expected: str) -> Check:
    """Return the check for a mapping from text to what another check takes."""
    return Check(
        expected,
        lambda value: (
            isinstance(value, Mapping)
            and all(isinstance(key, str) and one.is_type(inner) for key, inner in value.items())
        ),
        lambda value: all(one.is_value(inner) for inner in value.values()),
    )


texts = text | list_of(text, "a list of names")
label = Check("a name", lambda value: isinstance(value, str | bytes) or is_number(value))
labels = label | list_of(label, "a list of names")
numbers = list_of(number(above=0), "a list of positive numbers")


@dataclass(frozen=True)
class Choice(Check):
    """A condition that a value is one of several."""

    choices: tuple[Any, ...] = ()

    def fault(self, value: Any, name: str) -> Exception | None:
        """Return the error for a value that is none of the choices."""
        if self.is_value(value):
            return None
        msg = f"`{name}` is {shown(value)}; it must be one of {listed(self.choices)}."
        return ValueError(msg)


def choice(*choices: Any) -> Check:
    """Return the check for one of several values, of the same type."""

    def is_one(value: Any) -> bool:
        return any(type(value) is type(one) and value == one for one in choices)

    return Choice(f"one of {listed(choices)}", is_one, is_one, choices)


def choice_or(is_other: Callable[[str], bool], other: str, *choices: Any) -> Check:
    """Return the check for one of several values, or for text of another form, which `other` stands for."""

    def is_one(value: Any) -> bool:
        return isinstance(value, str) and (value in choices or is_other(value))

    return Choice(f"one of {listed([*choices, other])}", is_one, is_one, (*choices, other))


@dataclass(frozen=True)
class NewName(Check):
    """A condition that a name can be written to a table and to disk."""

    def fault(self, value: Any, name: str) -> Exception | None:
        """Return the error for a name that cannot be written."""
        if not isinstance(value, str):
            return super().fault(value, name)
        try:
            check_new_name(value, name=name)
        except ValueError as error:
            return error
        return None


new_name = NewName("text (a name)", _is_text)
