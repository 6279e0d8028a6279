"""Finished parts of a long computation, kept as files that are written atomically."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from sthisto._utils.atomic import atomic_file


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays of any shape to an npz file; killed in between, the file is not there or as it was."""
    with atomic_file(path) as staged, staged.open("wb") as stream:
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
    with atomic_file(path) as staged:
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


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged ({error}). Delete it; it is computed again.")
