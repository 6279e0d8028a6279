"""Genes on the command line: words, or a file of names."""

from __future__ import annotations

from pathlib import Path

_WORDS = ("all", "use")


def names_in(path: Path) -> list[str]:
    """Return the names in a file, one a line; a byte order mark, empty lines and comments after "#" are left out."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def predicted_genes(given: str) -> str | list[str]:
    """Return `genes` of `tl.predict`: "all", "use", or the names in a file.

    Raises
    ------
    FileNotFoundError
        It is neither of the words nor a file.
    """
    if given in _WORDS:
        return given
    if not Path(given).is_file():
        msg = f"--genes takes all, use, or a file with one gene a line; there is no file {given!r}."
        raise FileNotFoundError(msg)
    return names_in(Path(given))
