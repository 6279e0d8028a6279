"""All methods by name: those of sthisto, those that were registered, and those of installed packages."""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import is_dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, TypeVar

from sthisto._utils.deprecate import METHOD_NAMES, warn_renamed
from sthisto._utils.validate import check_choice, listed
from sthisto.models.base import ExpressionModel

GROUP: Final = "sthisto.methods"
"""Entry-point group by which an installed package adds methods."""

Method = TypeVar("Method", bound=type[ExpressionModel])


class Methods(MutableMapping[str, type[ExpressionModel]]):
    """Name -> class of every method.

    A method of an installed package is imported when it is asked for, or when all methods are listed. If that fails,
    or if the name is taken, a RuntimeWarning names the package, and its method is left out.
    """

    def __init__(self) -> None:
        self._classes: dict[str, type[ExpressionModel]] = {}
        self._refused: dict[EntryPoint, str] = {}

    def __getitem__(self, name: str) -> type[ExpressionModel]:
        if name in METHOD_NAMES:
            warn_renamed(f"The method {name!r}", repr(METHOD_NAMES[name]))
            name = METHOD_NAMES[name]
        packaged = self._packaged(name)
        return packaged if packaged is not None and name not in self._classes else self._classes[name]

    def __setitem__(self, name: str, cls: type[ExpressionModel]) -> None:
        self._classes[name] = cls

    def __delitem__(self, name: str) -> None:
        del self._classes[name]

    def __iter__(self) -> Iterator[str]:
        packaged = [name for name in dict.fromkeys(point.name for point in _points()) if self._packaged(name)]
        yield from dict.fromkeys([*self._classes, *packaged])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        """Return the names and classes."""
        return repr(dict(self))

    def add(self, cls: type[ExpressionModel]) -> None:
        """Add a method under its own name; raise ValueError if that is taken."""
        name = cls.method
        if name in METHOD_NAMES:
            msg = f"{name!r} is an old name of sthisto's method {METHOD_NAMES[name]!r}. Choose another `method`."
            raise ValueError(msg)
        before = self._classes.get(name)
        owners = [] if before is None or _is_same(before, cls) else [f"{before.__module__}.{before.__qualname__}"]
        owners += [_owner(point) for point in _points(name) if point.module != cls.__module__]
        if owners:
            msg = f"The name {name!r} of {cls.__name__} is taken by {' and '.join(owners)}. Choose another `method`."
            raise ValueError(msg)
        self._classes[name] = cls

    def why_refused(self, name: str) -> str:
        """Return why the method that an installed package offers under a name cannot be used; "" if there is none."""
        return " ".join(self._refused[point] for point in _points(name) if point in self._refused)

    def _packaged(self, name: str) -> type[ExpressionModel] | None:
        """Return the class that an installed package offers under a name, None if there is none that can be used."""
        points = [point for point in _points(name) if point not in self._refused]
        if len(points) > 1:
            self._refuse(points, f"{' and '.join(map(_owner, points))} each offer a method {name!r}; none is used.")
        if len(points) != 1:
            return None
        point, taken = points[0], self._classes.get(name)
        if taken is not None:
            if taken.__module__ == point.module:
                return taken
            self._refuse(points, f"{_owner(point)} offers a method {name!r}, a name that is taken; it is not used.")
            return None
        try:
            return _checked(point.load(), name)
        except Exception as error:  # noqa: BLE001  what another package does wrong must not break sthisto
            reason = f"{type(error).__name__}: {error}"
            self._refuse(points, f"The method {name!r} of {_owner(point)} cannot be used. {reason}")
            return None

    def _refuse(self, points: list[EntryPoint], reason: str) -> None:
        self._refused |= dict.fromkeys(points, reason)
        warnings.warn(f"{reason} Update or uninstall the package.", RuntimeWarning, stacklevel=3)


METHODS: Final = Methods()
"""Every method by its name. `register` adds one."""


def register(cls: Method) -> Method:
    """Add a method, so that `tl.fit` and everything else finds it by its name.

    Parameters
    ----------
    cls
        Subclass of `ExpressionModel` with a `method` that no other method has. A class of the same module and name
        takes the place of an earlier one, so that a notebook's cell can be run again.

    Returns
    -------
    `cls`: the function can be used as a decorator.

    Raises
    ------
    TypeError
        It is no complete method.
    ValueError
        The name is taken.

    Notes
    -----
    A package that is installed registers its methods by entry points of the group ``sthisto.methods`` instead.

    Examples
    --------
    >>> import sthisto as sth
    >>> class Zero(sth.models.Mean):
    ...     method = "zero"
    >>> sth.models.register(Zero).method
    'zero'
    >>> del sth.models.METHODS["zero"]
    """
    _checked(cls, getattr(cls, "method", None))
    METHODS.add(cls)
    return cls


def available() -> list[str]:
    """Return the names of all methods, including those of installed packages.

    Returns
    -------
    The names that `tl.fit` takes as ``method``.

    Examples
    --------
    >>> import sthisto as sth
    >>> "danet" in sth.models.available()
    True
    """
    return list(METHODS)


def method_name(method: str, *, name: str = "method") -> str:
    """Return a method's name today, with a FutureWarning for an old one.

    Parameters
    ----------
    method
        What the user wrote.
    name
        The argument, for messages.

    Raises
    ------
    ValueError
        There is no such method.
    """
    if method in METHOD_NAMES:
        warn_renamed(f"The method {method!r}", repr(METHOD_NAMES[method]), stacklevel=3)
        return METHOD_NAMES[method]
    if method not in METHODS and (reason := METHODS.why_refused(method)):
        msg = f"`{name}`: {reason} Methods: {listed(METHODS)}."
        raise ValueError(msg)
    check_choice(method, METHODS, name=name)
    return method


def options_by_name(method: str, options: Any, named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a method by name, of an instance of its `Options`; a mapping is that of an ensemble.

    Parameters
    ----------
    method
        The method.
    options
        An instance of its `Options`, for "ensemble" also a mapping; None is no option.
    named
        Options that are named beside it: none of those that `options` holds may be among them.

    Raises
    ------
    TypeError
        `options` are those of another method, or an option is given twice.
    """
    cls = METHODS[method_name(method)]
    if options is None:
        return {}
    if isinstance(options, Mapping):
        if "options" in cls.option_names():
            return {"options": dict(options)}
        msg = (
            f"`options` must be an instance of {cls.Options.__name__}, found a mapping. Pass options="
            f"sthisto.models.{cls.Options.__name__}(…), or the options by name: **options."
        )
        raise TypeError(msg)
    if type(options) is not cls.Options:
        msg = (
            f"`options` must be an instance of {cls.Options.__name__} for method={method!r}, found "
            f"{type(options).__name__}. Pass the method that they belong to, or other options."
        )
        raise TypeError(msg)
    values = vars(options)
    twice = [name for name in named if name in values]
    if twice:
        msg = f"{listed(twice)} stand in `options` and beside it. Put them in one place."
        raise TypeError(msg)
    return dict(values)


def _checked(cls: Any, name: str | None) -> type[ExpressionModel]:
    """Return the class if it is a complete method of that name; else raise TypeError."""
    if not (inspect.isclass(cls) and issubclass(cls, ExpressionModel)):
        msg = f"{cls!r} is no subclass of sthisto.models.ExpressionModel."
        raise TypeError(msg)
    if inspect.isabstract(cls):
        msg = f"{cls.__name__} lacks {listed(sorted(cls.__abstractmethods__))}, which every method has."
        raise TypeError(msg)
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name) or cls.method != name:
        msg = (
            f"`method` of {cls.__name__} must be its name, of letters, digits, '_', '.' and '-'"
            f"{f', here {name!r}' if isinstance(name, str) else ''}; found {getattr(cls, 'method', None)!r}."
        )
        raise TypeError(msg)
    if not is_dataclass(cls.Options):
        msg = f"`Options` of {cls.__name__} must be a dataclass, found {cls.Options!r}."
        raise TypeError(msg)
    return cls


def _points(name: str | None = None) -> list[EntryPoint]:
    return [point for point in _installed(tuple(sys.path)) if name is None or point.name == name]


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of the packages that are found on `path`, which is that of the interpreter."""
    return tuple(dict.fromkeys(entry_points(group=GROUP)))


def _owner(point: EntryPoint) -> str:
    package = f"the package {point.dist.name!r}" if point.dist is not None else "a package"
    return f"{package} ({point.value})"


def _is_same(one: type, other: type) -> bool:
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)
