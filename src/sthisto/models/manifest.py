"""The files of a saved model and their digests: `manifest.json`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sthisto._utils.atomic import atomic_folder, recover

MANIFEST: Final = "manifest.json"
CONFIG: Final = "config.json"
_FORMAT: Final = 1
_LARGEST_JSON: Final = 64 * 2**20
_LARGEST: Final = 50 * 2**30
"""Bytes of the largest file that is fetched."""


class ModelFolder:
    """The folder of a saved model, of which only what the manifest lists is read.

    Parameters
    ----------
    path
        The folder. If a killed process was about to replace it, the former model is put back first.
    verify
        Whether the digests of files are compared with the manifest. All else is always checked.

    Attributes
    ----------
    listed
        Name of each file -> its SHA-256; None for models of 0.1, which have no manifest.

    Raises
    ------
    FileNotFoundError
        There is no model at `path`.
    ValueError
        The manifest is damaged.
    """

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        recover(path)
        if not (path / CONFIG).exists():
            what = "is a file" if path.is_file() else f"has no {CONFIG}" if path.is_dir() else "does not exist"
            msg = f"{path} is no saved model: it {what}. Pass the folder that model.save wrote."
            raise FileNotFoundError(msg)
        self.path, self.verify = path, verify
        self.listed = self._read_manifest() if os.path.lexists(path / MANIFEST) else None

    def __contains__(self, name: str) -> bool:
        return (self.path / name).exists() if self.listed is None else name in self.listed

    def file(self, name: str) -> Path:
        """Return the path of a file after checking where it lies and what it holds.

        Raises
        ------
        FileNotFoundError
            The file is missing.
        ValueError
            It leads out of the folder, the manifest does not list it, or it has changed since the model was saved.
        """
        file = self._confined(name)
        if self.listed is not None:
            if name not in self.listed:
                msg = f"{file} is not in {MANIFEST}, so it is no part of the saved model. Save the model again."
                raise ValueError(msg)
            if self.verify and sha256(file) != self.listed[name]:
                msg = (
                    f"{file} is damaged or was changed: its SHA-256 is not that in {MANIFEST}. Copy the model again; "
                    "verify=False loads it nevertheless."
                )
                raise ValueError(msg)
        return file

    def json(self, name: str) -> dict[str, Any]:
        """Return a JSON file's object; raise ValueError where it is damaged."""
        return read_json(self.file(name))

    def _confined(self, name: str) -> Path:
        file = self.path / name
        if not os.path.lexists(file):
            msg = f"{self.path} is no whole model: it has no {name}. Copy or save the model again."
            raise FileNotFoundError(msg)
        if file.resolve().parent != self.path.resolve():
            msg = f"{file} leads out of the model's folder, to {file.resolve()}. Put the file itself there."
            raise ValueError(msg)
        if not file.is_file():
            msg = f"{file} is no file. Copy or save the model again."
            raise ValueError(msg)
        return file

    def _read_manifest(self) -> dict[str, str]:
        content = read_json(self._confined(MANIFEST))
        files = content.get("files")
        if not isinstance(files, dict) or not all(_is_entry(name, value) for name, value in files.items()):
            msg = (
                f"{self.path / MANIFEST} is damaged: `files` must map names of files to SHA-256. Save the model again."
            )
            raise ValueError(msg)
        return files


def write_manifest(folder: Path) -> None:
    """List every file of a folder in its manifest."""
    files = {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.name != MANIFEST}
    (folder / MANIFEST).write_text(json.dumps({"format": _FORMAT, "files": files}, indent=1), encoding="utf-8")


def add_files(path: Path, contents: Mapping[str, bytes]) -> None:
    """Add files to a saved model, or replace them, and write its manifest anew: both at once or neither.

    Parameters
    ----------
    path
        The model's folder.
    contents
        Name of each file -> what it holds.

    Raises
    ------
    ValueError
        A name is no plain file name, or a file that is there has changed since the model was saved.
    """
    wrong = [name for name in contents if not _is_name(name)]
    if wrong:
        msg = f"{wrong[0]!r} is no name of a file in a saved model."
        raise ValueError(msg)
    former = ModelFolder(path)
    kept = [name for name in former.listed or _files(path) if name not in contents]
    sources = [former.file(name) for name in kept]
    with atomic_folder(path, overwrite=True) as folder:
        for source in sources:
            _link_or_copy(source, folder / source.name)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        write_manifest(folder)


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file; raise ValueError, with the file's path, for anything else."""
    if file.stat().st_size > _LARGEST_JSON:
        msg = f"{file} is damaged: it has {file.stat().st_size} bytes, more than {_LARGEST_JSON}. Save the model again."
        raise ValueError(msg)
    try:
        content = json.loads(
            file.read_text(encoding="utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_without_repeats
        )
    except (ValueError, RecursionError) as error:
        msg = f"{file} is damaged ({error}). Save the model again."
        raise ValueError(msg) from error
    if not isinstance(content, dict):
        msg = f"{file} is damaged: it holds a {type(content).__name__}, not an object. Save the model again."
        raise ValueError(msg)
    return content


def check_size(name: str, size: int | None, where: str) -> None:
    """Raise ValueError where a server states a size that no file of a saved model has."""
    limit = _LARGEST_JSON if name.endswith(".json") else _LARGEST
    if size is None or not 0 < size <= limit:
        msg = f"{where} states a size of {size} bytes for {name}; expected 1 to {limit:,}. It is not fetched."
        raise ValueError(msg)


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _refuse_constant(text: str) -> None:
    msg = f"{text} is no number of JSON"
    raise ValueError(msg)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        msg = "a key is there twice"
        raise ValueError(msg)
    return content


def _is_name(name: str) -> bool:
    return bool(name) and name not in (".", "..", MANIFEST) and not set(name) & set("/\\:\0")


def _is_entry(name: str, value: object) -> bool:
    return _is_name(name) and isinstance(value, str) and len(value) == 64


def _files(path: Path) -> list[str]:
    return [file.name for file in path.iterdir() if file.is_file() and not file.name.startswith(".")]


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
