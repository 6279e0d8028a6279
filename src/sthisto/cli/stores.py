"""Read SpatialData stores, and refuse to replace files unasked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spatialdata import SpatialData

_ZARR_FILES = ("zarr.json", ".zgroup")
"""Files in the root of a store, in zarr's formats 3 and 2."""


def is_store(path: Path) -> bool:
    """Return whether a folder is a zarr store."""
    return any((path / name).exists() for name in _ZARR_FILES)


def read_store(path: Path) -> SpatialData:
    """Read a SpatialData store; its path is checked before anything is imported.

    Raises
    ------
    FileNotFoundError, ValueError
        There is nothing at the path, or no store.
    """
    if not path.exists():
        msg = f"There is no SpatialData store at {path}."
        raise FileNotFoundError(msg)
    if not is_store(path):
        msg = (
            f"{path} is no SpatialData store. Read your data and write them first, for example "
            f"spatialdata_io.visium({str(path)!r}).write('sections.zarr')."
        )
        raise ValueError(msg)
    import spatialdata as sd

    return sd.read_zarr(path)


def refuse_existing(path: Path, remedy: str) -> None:
    """Raise FileExistsError, with what to do, if a path is taken."""
    if path.exists():
        msg = f"{path} exists. {remedy}"
        raise FileExistsError(msg)
