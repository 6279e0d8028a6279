"""Names that the shell completes beside commands, options and files. Nothing heavy is imported to know them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

_METHODS: Final = Path(__file__).parents[1] / "models" / "methods"
_ENCODERS: Final = ("densenet121", "efficientnet_lite0", "texture")


def completed(action: argparse.Action, names: Callable[..., Iterable[str]]) -> None:
    """Let argcomplete offer the names for the value of an option; other values may still be typed."""
    action.completer = names  # type: ignore[attr-defined]


def method_names(**_: Any) -> list[str]:
    """Return the methods of sthisto, one a file, and those that installed packages add; none is imported."""
    own = sorted({file.stem for file in _METHODS.glob("*.py")} - {"__init__", "ensemble"})  # an ensemble needs a method
    return [*own, *(point.name for point in entry_points(group="sthisto.methods"))]


def encoder_names(**_: Any) -> list[str]:
    """Return the image encoders that the documentation names; timm has a thousand more."""
    return list(_ENCODERS)
