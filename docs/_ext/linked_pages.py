"""Lets pages link to the tutorials, which lie outside docs/ and are found through the symbolic link docs/tutorials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def _know_real_paths(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Myst follows the symbolic link before it looks up a page by its path."""
    for docname in env.found_docs:
        env.project._path_to_docname.setdefault(Path(env.doc2path(docname)).resolve(), docname)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with sphinx."""
    app.connect("env-before-read-docs", _know_real_paths)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
