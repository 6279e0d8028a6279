"""Errors of files that can't be read, by the name of the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of libraries about a damaged file into one that names it.

    Raises
    ------
    ValueError
        The file is damaged, or not of its format.
    """
    try:
        yield
    except (OSError, EOFError, ValueError, KeyError) as error:  # ArrowInvalid and JSONDecodeError are ValueError
        msg = f"{path} can't be read: {' '.join(str(error).split())}. Check that the file is complete."
        raise ValueError(msg) from error
