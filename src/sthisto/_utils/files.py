"""Finished parts of a long computation, kept as files that are written atomically."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays to an npz file; killed in between, the file is not there or as it was."""
    with _atomic_file(path) as staged, staged.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **dict(arrays))


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays that `save_arrays` wrote, None where there is no file.

    Raises
    ------
    ValueError
        The file is damaged.
    """
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error


def save_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table to a parquet file; killed in between, the file is not there or as it was."""
    with _atomic_file(path) as staged:
        table.to_parquet(staged, engine="pyarrow", index=False)


def load_table(path: Path) -> pd.DataFrame | None:
    """Return the table that `save_table` wrote, None where there is no file.

    Raises
    ------
    ValueError
        The file is damaged.
    """
    from pyarrow import ArrowException

    if not path.is_file():
        return None
    try:
        return pd.read_parquet(path, engine="pyarrow")
    except (ArrowException, OSError) as error:
        raise _damaged(path, error) from error


@contextmanager
def _atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to, which replaces it when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(handle)
    try:
        yield Path(temporary)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged ({error}). Delete it; it is computed again.")
