"""The slides of a cohort: from a folder, a manifest, or paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from sthisto._utils.logging import logger
from sthisto._utils.validate import listed
from sthisto.io._libraries import element_name
from sthisto.io._read import is_known
from sthisto.io._reading import reading
from sthisto.io._slide import SLIDE_SUFFIXES, stem_of

_SUFFIXES: Final = (*SLIDE_SUFFIXES, ".zarr", ".h5ad")
_PATH_COLUMNS: Final = ("path", "slide", "file", "wsi")
_UM_COLUMNS: Final = ("um_per_px", "mpp")
_NAME_COLUMNS: Final = ("name",)


@dataclass(frozen=True)
class SlideJob:
    """One slide of a cohort.

    Attributes
    ----------
    name
        Under which its results are kept; unique in the cohort.
    path
        Path of the file or folder.
    um_per_px
        µm per px of the full resolution, None where the file states them.
    """

    name: str
    path: Path
    um_per_px: float | None = None


def find_slides(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[SlideJob]:
    """Return the slides of a folder, of a manifest in CSV, or of a list of paths.

    Raises
    ------
    FileNotFoundError
        There is nothing at the path.
    KeyError
        The manifest has no column of paths.
    ValueError
        There is no slide, two have one name, or the manifest can't be read.
    """
    if isinstance(paths, str | os.PathLike):
        source = Path(paths).expanduser()
        if not source.exists():
            msg = f"There is nothing at {source}. Pass a folder of slides, or a manifest in CSV with a column 'path'."
            raise FileNotFoundError(msg)
        jobs = _of_folder(source) if source.is_dir() and not is_known(source) else _of_file(source)
    else:
        jobs = [_job(Path(path)) for path in paths]
    if not jobs:
        msg = f"{paths} holds no slides. Expected are files such as {listed(_SUFFIXES, 6)}."
        raise ValueError(msg)
    _check_names(jobs)
    return jobs


def _of_file(path: Path) -> list[SlideJob]:
    return _of_manifest(path) if path.suffix.lower() in (".csv", ".tsv") else [_job(path)]


def _of_folder(folder: Path) -> list[SlideJob]:
    """Return what in a folder looks like a slide by its name or its content; a damaged one is not passed over."""
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    slides = [path for path in entries if path.suffix.lower() in _SUFFIXES or is_known(path)]
    data_of_slides = {path.with_suffix("") for path in slides if path.suffix.lower() == ".mrxs"}
    slides = [path for path in slides if path not in data_of_slides]
    if rest := [path.name for path in entries if path not in slides and path not in data_of_slides]:
        logger.info("%s also holds %s, which are no slides.", folder, listed(rest, 6))
    return [_job(path) for path in slides]


def _of_manifest(path: Path) -> list[SlideJob]:
    form: dict[str, Any] = {"sep": "\t" if path.suffix.lower() == ".tsv" else ",", "encoding": "utf-8-sig"}
    with reading(path):
        table = pd.read_csv(path, dtype=str, **form)
        if not isinstance(table.index, pd.RangeIndex) and table.iloc[:, -1].isna().all():  # lines end with a separator
            table = pd.read_csv(path, dtype=str, index_col=False, **form)
    table.columns = [str(name).strip().lower() for name in table.columns]
    column, um, name = (
        next((name for name in names if name in table), None) for names in (_PATH_COLUMNS, _UM_COLUMNS, _NAME_COLUMNS)
    )
    if column is None:
        msg = f"{path} has no column 'path'; it has {listed(table.columns)}. 'um_per_px' and 'name' are read too."
        raise KeyError(msg)
    if rest := [one for one in table.columns if one not in (column, um, name)]:
        logger.info("The columns %s of %s are not read.", listed(rest), path)
    table = table.dropna(subset=[column])
    return [_job(_beside(path, str(row[column])), row.get(um), row.get(name)) for _, row in table.iterrows()]


def _beside(manifest: Path, text: str) -> Path:
    """Return a path of a manifest, which may be relative to it."""
    path = Path(text.strip()).expanduser()
    return path if path.is_absolute() else manifest.parent / path


def _job(path: Path, um_per_px: Any = None, name: Any = None) -> SlideJob:
    path = path.expanduser()
    um = None
    if um_per_px is not None and not pd.isna(um_per_px):
        um = pd.to_numeric(um_per_px, errors="coerce")
        if not 0 < um < np.inf:
            msg = f"The µm per px of {path} must be a positive number, as 0.25, found {um_per_px!r}."
            raise ValueError(msg)
        um = float(um)
    named = str(name) if name is not None and not pd.isna(name) else stem_of(path)
    return SlideJob(element_name(named), path, um)


def _check_names(jobs: Sequence[SlideJob]) -> None:
    names = pd.Series([job.name.lower() for job in jobs])
    if names.duplicated().any():
        again = [job for job, repeats in zip(jobs, names.duplicated(keep=False), strict=True) if repeats]
        msg = (
            f"Several slides have one name: {listed(str(job.path) for job in again)}. Pass a manifest with a column "
            "'name' that tells them apart."
        )
        raise ValueError(msg)
