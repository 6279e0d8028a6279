"""Spatial gene expression from H&E images, in the scverse.

Nothing heavy is imported before it is used: the submodules below are loaded on first access.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sthisto import benchmark, datasets, get, io, metrics, models, nn, pl, pp, tl
    from sthisto._settings import settings

__all__ = ["__version__", "benchmark", "datasets", "get", "io", "metrics", "models", "nn", "pl", "pp", "settings", "tl"]

__version__ = metadata.version("sthisto")

_SUBMODULES = frozenset({"benchmark", "datasets", "get", "io", "metrics", "models", "nn", "pl", "pp", "tl"})


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"sthisto.{name}")
    if name == "settings":
        return import_module("sthisto._settings").settings
    msg = f"module 'sthisto' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return __all__
