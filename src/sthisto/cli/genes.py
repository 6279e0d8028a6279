"""Genes on the command line: words, or a file of names."""

from __future__ import annotations

from pathlib import Path

from sthisto.cli.options import read_names

_WORDS = ("all", "use")


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
    return read_names(Path(given))
