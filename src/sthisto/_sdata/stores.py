"""SpatialData stores on disk, written beside their place and moved there when they are complete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sthisto._utils.atomic import atomic_folder, recover

_ROOT_FILES: Final = ("zarr.json", ".zgroup")
"""Files in the root of a store, in zarr's formats 3 and 2."""


def is_store(path: Path) -> bool:
    """Return whether a path is a zarr store."""
    return any((path / name).exists() for name in _ROOT_FILES)


def check_store_target(path: Path, *, overwrite: bool, remedy: str) -> None:
    """Raise FileExistsError unless a store may be written to `path`: only another store is ever replaced.

    Parameters
    ----------
    path
        If a killed process was about to replace it, the former store is put back first.
    overwrite
        Whether an existing store may be replaced.
    remedy
        What to do where it may not.
    """
    recover(path)
    if not path.exists():
        return
    if not overwrite:
        msg = f"{path} exists. {remedy}"
        raise FileExistsError(msg)
    if not is_store(path) and not (path.is_dir() and not any(path.iterdir())):
        msg = f"{path} exists and is no SpatialData store, so it is not replaced. Choose another path."
        raise FileExistsError(msg)


@contextmanager
def atomic_store(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a path to write a store to, which takes the place of `path` when the block ends without an error.

    What a killed process had written is removed when the same store is next written.

    Parameters
    ----------
    path
        The store; its parent is made if need be, and must be writable when the block is entered.
    overwrite
        Whether an existing store may be replaced.

    Raises
    ------
    FileExistsError
        `path` holds something when the new store is moved there, and `overwrite` is False.
    """
    with atomic_folder(path, overwrite=overwrite) as folder:
        staged = folder / "store"  # SpatialData writes to no folder that exists
        yield staged
        for entry in staged.iterdir():
            entry.rename(folder / entry.name)
        staged.rmdir()
