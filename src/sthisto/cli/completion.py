"""Names that the shell completes beside commands, options and files. Nothing heavy is imported to know them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Any, Final

_METHODS: Final = (
    "recommended",
    "kernel",
    "mlp",
    "danet",
    "bleep",
    "stnet",
    "histogene",
    "ridge",
    "knn",
    "color",
    "mean",
    "hybrid",
)
_ENCODERS: Final = ("densenet121", "efficientnet_lite0", "texture")


def completed(action: argparse.Action, names: Callable[..., Iterable[str]]) -> None:
    """Let argcomplete offer the names for the value of an option; other values may still be typed."""
    action.completer = names  # type: ignore[attr-defined]


def method_names(**_: Any) -> list[str]:
    """Return the methods of sthisto and those that installed packages add, which are not imported."""
    return [*_METHODS, *(point.name for point in entry_points(group="sthisto.methods"))]


def encoder_names(**_: Any) -> list[str]:
    """Return the image encoders that the documentation names; timm has a thousand more."""
    return list(_ENCODERS)
