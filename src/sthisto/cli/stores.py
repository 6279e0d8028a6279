"""Read SpatialData stores, and refuse to replace files unasked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sthisto._sdata.stores import is_store
from sthisto._utils.atomic import recover

if TYPE_CHECKING:
    from spatialdata import SpatialData


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
    """Raise FileExistsError, with what to do, if a path is taken, or was when a process that replaced it was killed."""
    recover(path)
    if path.exists():
        msg = f"{path} exists. {remedy}"
        raise FileExistsError(msg)
