"""Read and write SpatialData stores, and refuse to replace files unasked."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sthisto._sdata.stores import atomic_store, check_store_target, is_store
from sthisto._utils.atomic import recover

if TYPE_CHECKING:
    from spatialdata import SpatialData

REMEDY = "Choose another --out, or pass --overwrite."


def check_store(path: Path) -> None:
    """Raise FileNotFoundError or ValueError unless there is a store at a path; nothing heavy is imported."""
    if not path.exists():
        msg = f"There is no SpatialData store at {path}."
        raise FileNotFoundError(msg)
    if not is_store(path):
        msg = (
            f"{path} is no SpatialData store. Make one of the files of a run, an h5ad or a slide first: "
            f"sthisto read {shlex.quote(str(path))} --out section.zarr"
        )
        raise ValueError(msg)


def read_store(path: Path) -> SpatialData:
    """Read a SpatialData store.

    Raises
    ------
    FileNotFoundError, ValueError
        There is nothing at the path, or no store.
    """
    check_store(path)
    import spatialdata as sd

    return sd.read_zarr(path)


def read_stores(paths: Sequence[Path]) -> list[SpatialData]:
    """Read several stores, all of which are checked first."""
    for path in paths:
        check_store(path)
    return [read_store(path) for path in paths]


def out_paths(data: Sequence[Path], out: Path | None, *, overwrite: bool) -> list[Path]:
    """Return where the stores of `data` are written: `out`, or a store of the same name in `out` for each of several.

    Raises
    ------
    FileExistsError
        One exists and is not to be replaced.
    ValueError
        Two stores have the same name.
    """
    if out is None:
        return []
    paths = [out] if len(data) == 1 else [out / path.resolve().name for path in data]
    if len(set(paths)) < len(paths):
        for path in data:
            check_store(path)
        msg = "Two stores have the same name, so that --out cannot hold both. Rename one, or run them one by one."
        raise ValueError(msg)
    for path in paths:
        check_store_target(path, overwrite=overwrite, remedy=REMEDY)
    return paths


def write_stores(stores: Sequence[SpatialData], paths: Sequence[Path], *, overwrite: bool) -> None:
    """Write each store beside its place and move it there when it is complete."""
    for sdata, path in zip(stores, paths, strict=True):
        with atomic_store(path, overwrite=overwrite) as staged:
            sdata.write(staged)


def refuse_existing(path: Path, remedy: str) -> None:
    """Raise FileExistsError, with what to do, if a path is taken, or was when a process that replaced it was killed."""
    recover(path)
    if path.exists():
        msg = f"{path} exists. {remedy}"
        raise FileExistsError(msg)
