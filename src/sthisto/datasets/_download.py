"""Fetch public files: those of a git repository, each checked against git's object id, and those packed by gzip.

A file takes its place only after its check, and is checked again whenever it is used.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, Final, NoReturn

from sthisto._utils.atomic import atomic_file
from sthisto._utils.logging import logger
from sthisto._utils.settings import settings

_API = "https://api.github.com/repos"
_RAW = "https://raw.githubusercontent.com"
_GIT_ID: Final = re.compile(r"[0-9a-f]{6,64}")
_PAGE: Final = (b"<!doctype html", b"<html")


class Repository:
    """A public GitHub repository at one revision.

    The revision and its list of files are kept in `folder`, so that later downloads come from the same one. git names
    a file by the SHA-1 of its content: a file with another content is refused when it arrives, and fetched again when
    it has changed on disk. The list itself is trusted at first use, since nobody published checksums.

    Parameters
    ----------
    name
        Owner and repository, "almaan/her2st".
    folder
        Where the files go, at the same paths as in the repository; one folder holds one revision.
    revision
        Id of a commit. None is the one that is current when it is first asked for.
    """

    def __init__(self, name: str, folder: Path, revision: str | None = None) -> None:
        self.name, self.folder, self.wanted = name, folder, revision

    def files(self) -> dict[str, str]:
        """Path -> git object id of every file of the revision.

        Raises
        ------
        OSError
            The server can't be reached or refuses.
        ValueError
            What arrived is no list of files, or one of files outside the folder.
        """
        url = f"{_API}/{self.name}/git/trees/{self.revision()}?recursive=1"
        listed: dict[str, str] = self._kept_json(url, "listing.json", self._read_listing)
        return listed

    def fetch(self, path: str, object_id: str) -> Path:
        """Return the local copy of a file, downloading it if it is not there or damaged.

        Raises
        ------
        ValueError
            What arrived is not what git lists, or the path leads out of the folder.
        OSError
            The server can't be reached or refuses.
        """
        target = self.folder / _confined(path)
        if target.is_file():
            if git_object_id(target) == object_id:
                return target
            _warn_of_damage(target)
        url = f"{_RAW}/{self.name}/{self.revision()}/{path}"
        with atomic_file(target) as staged:
            _download(url, staged)
            if (found := git_object_id(staged)) != object_id:
                _refuse(url, f"its git object id is {found}, not {object_id}", staged)
        return target

    def revision(self) -> str:
        """Return the id of the commit, asking for it where it is not known.

        Raises
        ------
        OSError
            The server can't be reached or refuses.
        """
        if self.wanted is not None:
            return self.wanted
        revision: str = self._kept_json(f"{_API}/{self.name}/commits/HEAD", "revision.json", _read_revision)
        return revision

    def _read_listing(self, answer: Any) -> dict[str, str]:
        if answer.get("truncated"):
            msg = f"GitHub lists only a part of {self.name}. Clone the repository and pass the folder as `path`."
            raise OSError(msg)
        listed = {entry["path"]: entry["sha"] for entry in answer["tree"] if entry["type"] == "blob"}
        for path, object_id in listed.items():
            _confined(path)
            _git_id(object_id)
        return listed

    def _kept_json(self, url: str, filename: str, read: Callable[[Any], Any]) -> Any:
        """Return what `read` makes of a JSON answer, which is kept only where `read` can."""
        target = self.folder / filename
        if target.is_file():
            try:
                return _read_json(target, read)
            except ValueError:
                _warn_of_damage(target)
        with atomic_file(target) as staged:
            _download(url, staged, quiet=True)
            try:
                return _read_json(staged, read)
            except ValueError as error:
                _refuse(url, str(error), staged)


def fetch_unpacked(url: str, path: Path) -> None:
    """Download a file that ends in ``.gz`` and keep what is in it, unless it is there already.

    Nobody published checksums, so that of the first download is kept beside the folder, in ``FOLDER.checksums.json``: a
    file that has changed since is fetched again.

    Raises
    ------
    ValueError
        What arrived is not whole, by gzip's own check.
    OSError
        The server can't be reached or refuses.
    """
    record = path.parent.with_name(f"{path.parent.name}.checksums.json")
    known = _known(record)
    if path.is_file():
        digest = _sha256(path)
        if known.get(path.name, digest) == digest:
            if path.name not in known:
                _keep(record, path.name, digest)
            return
        _warn_of_damage(path)
    with atomic_file(path) as staged:
        _unpack(url, staged)
        digest = _sha256(staged)
    _keep(record, path.name, digest)


def git_object_id(path: Path) -> str:
    """SHA-1 by which git names the content of a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _download(url: str, target: Path, *, quiet: bool = False) -> None:
    from pooch import HTTPDownloader
    from requests import RequestException

    try:
        HTTPDownloader(progressbar=settings.progress and not quiet)(url, str(target), None)
    except RequestException as error:
        msg = f"{url} could not be fetched ({type(error).__name__})."
        raise OSError(msg) from error


def _unpack(url: str, target: Path) -> None:
    packed = target.with_name(f"{target.name}.gz")
    try:
        _download(url, packed)
        with gzip.open(packed) as source, target.open("wb") as stream:
            shutil.copyfileobj(source, stream, 2**20)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        _refuse(url, str(error), packed)
    finally:
        packed.unlink(missing_ok=True)


def _refuse(url: str, reason: str, arrived: Path) -> NoReturn:
    with arrived.open("rb") as stream:
        start = stream.read(512).lstrip().lower()
    if start.startswith(_PAGE):
        reason = "it is a web page, perhaps the login page of a proxy"
    msg = f"{url} arrived damaged: {reason}. Try again."
    raise ValueError(msg)


def _warn_of_damage(path: Path) -> None:
    logger.warning("%s is damaged: it has changed since it was downloaded. It is downloaded again.", path)


def _read_json(path: Path, read: Callable[[Any], Any]) -> Any:
    """Return what `read` makes of a JSON file; raise ValueError where it is none, or of another form."""
    try:
        return read(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        msg = f"it is not of the form that is expected ({type(error).__name__}: {error})"
        raise ValueError(msg) from error


def _read_revision(answer: Any) -> str:
    return _git_id(answer["sha"])


def _git_id(text: str) -> str:
    if not _GIT_ID.fullmatch(text):
        msg = f"{text!r} is no id of git"
        raise ValueError(msg)
    return text


def _confined(path: str) -> Path:
    """Return a path of a list as one below a folder; raise ValueError for one that leads out of it."""
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or path.startswith("/") or set(path) & set("\\:\0"):
        msg = f"it names {path!r}, a file outside the folder of the download"
        raise ValueError(msg)
    return Path(*parts)


def _known(record: Path) -> dict[str, str]:
    try:
        return dict(json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none yet, or damaged: the files are trusted again
        return {}


def _keep(record: Path, name: str, digest: str) -> None:
    try:
        with atomic_file(record) as staged:
            staged.write_text(json.dumps(_known(record) | {name: digest}, indent=1), encoding="utf-8")
    except OSError as error:  # a folder that others share and this user only reads
        logger.info("The checksum of %s can't be kept in %s: %s", name, record, error)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
