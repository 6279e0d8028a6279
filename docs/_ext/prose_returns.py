"""Lets "Returns" sections be prose: sthisto's say which slots are written, or what the value holds."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import NumpyDocstring


def _parse_returns_section(self: NumpyDocstring, section: str) -> list[str]:
    lines = self._format_block(":returns: ", self._dedent(self._consume_to_next_section()))
    return [*lines, ""] if lines and lines[-1] else lines


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with sphinx."""
    NumpyDocstring._parse_returns_section = _parse_returns_section
    return {"parallel_read_safe": True, "parallel_write_safe": True}
