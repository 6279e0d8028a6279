"""Shows the text below a constant, instead of what its type says of itself ("Built-in immutable sequence")."""

from __future__ import annotations

import importlib
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer


def _describe(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    if isinstance(value, tuple):
        folder, _, constant = name.rpartition(".")
        module = importlib.import_module(folder)._WHERE[constant]  # the module that has it, imported on first use
        found = ModuleAnalyzer.for_module(f"{folder}.{module}").find_attr_docs()
        lines[:] = found["", constant]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with sphinx."""
    app.connect("autodoc-process-docstring", _describe, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
