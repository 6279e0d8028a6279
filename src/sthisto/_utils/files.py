"""Finished parts of a long computation, kept as files: whole or not at all."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays to an npz file; killed in between, the file is not there or as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, allow_pickle=False, **dict(arrays))
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
        msg = f"{path} is damaged ({error}). Delete it; it is computed again."
        raise ValueError(msg) from error


def as_arrays(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the columns of a table of numbers and text as arrays that `save_arrays` takes, in their order."""
    return {
        str(name): column.to_numpy(dtype=str) if column.dtype.kind not in "biuf" else column.to_numpy()
        for name, column in table.items()
    }


def as_table(arrays: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return the table that `as_arrays` was given; text becomes objects."""
    return pd.DataFrame({name: a.astype(object) if a.dtype.kind == "U" else a for name, a in arrays.items()})
