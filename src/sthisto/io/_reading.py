"""Errors of files that can't be read, by the name of the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData


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


def read_anndata(path: Path) -> AnnData:
    """Read an AnnData from an h5ad, or from a folder in zarr.

    Raises
    ------
    ValueError
        It is damaged, holds something else, or was written by an anndata that the installed one does not know.
    """
    from anndata import read_h5ad, read_zarr

    try:
        return read_zarr(path) if path.is_dir() else read_h5ad(path)
    except MemoryError:
        raise
    except Exception as error:  # anndata has private classes for what it can't read, and passes on those of h5py
        msg = (
            f"{path} can't be read as an AnnData: {' '.join(str(error).split())} Check that the file is complete and "
            "was written by AnnData.write, or upgrade anndata."
        )
        raise ValueError(msg) from error
