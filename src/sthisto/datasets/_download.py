"""Fetch public files: those of a git repository, each checked against git's object id, and those packed by gzip."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from sthisto._utils.settings import settings

_API = "https://api.github.com/repos"
_RAW = "https://raw.githubusercontent.com"


class Repository:
    """A public GitHub repository at the revision that was current when it was first asked for.

    The revision and its list of files are kept in `folder`, so that later downloads come from the same one. git names
    a file by the SHA-1 of its content: a file that arrives with another content is refused. The list itself is trusted
    at first use, since nobody published checksums. Files that are there already are not fetched again.

    Parameters
    ----------
    name
        Owner and repository, "almaan/her2st".
    folder
        Where the files go, at the same paths as in the repository.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder

    def files(self) -> dict[str, str]:
        """Path -> git object id of every file of the revision.

        Raises
        ------
        OSError
            The server can't be reached or refuses.
        """
        tree = self._json(f"{_API}/{self.name}/git/trees/{self._revision()}?recursive=1", "listing.json")
        if tree.get("truncated"):
            msg = f"GitHub lists only a part of {self.name}. Clone the repository and pass the folder as `path`."
            raise OSError(msg)
        return {entry["path"]: entry["sha"] for entry in tree["tree"] if entry["type"] == "blob"}

    def fetch(self, path: str, object_id: str) -> Path:
        """Return the local copy of a file, downloading it if need be.

        Raises
        ------
        ValueError
            What arrived is not what git lists.
        OSError
            The server can't be reached or refuses.
        """
        url = f"{_RAW}/{self.name}/{self._revision()}/{path}"
        return _retrieve(url, self.folder / path, _Checked(object_id))

    def _revision(self) -> str:
        return str(self._json(f"{_API}/{self.name}/commits/HEAD", "revision.json")["sha"])

    def _json(self, url: str, filename: str) -> dict[str, Any]:
        return dict(json.loads(_retrieve(url, self.folder / filename, _Checked(None)).read_text(encoding="utf-8")))


def fetch_unpacked(url: str, path: Path) -> None:
    """Download a file that ends in ``.gz`` and keep what is in it; one that is there already is not fetched again.

    Raises
    ------
    ValueError
        What arrived is not whole, by gzip's own check.
    OSError
        The server can't be reached or refuses.
    """
    _retrieve(url, path, _unpack)


class _Checked:
    """A downloader of pooch's that refuses content whose git object id is another one."""

    def __init__(self, object_id: str | None) -> None:
        self.object_id = object_id

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        from pooch import HTTPDownloader

        HTTPDownloader(progressbar=settings.progress and self.object_id is not None)(url, output_file, pooch)
        if self.object_id is not None and (found := git_object_id(Path(output_file))) != self.object_id:
            msg = f"{url} arrived damaged: its git object id is {found}, not {self.object_id}. Try again."
            raise ValueError(msg)


def _unpack(url: str, output_file: str, pooch: object) -> None:
    """Download for pooch, which moves `output_file` to its place once it is whole."""
    from pooch import HTTPDownloader

    packed = Path(f"{output_file}.gz")
    try:
        HTTPDownloader(progressbar=settings.progress)(url, str(packed), pooch)
        with gzip.open(packed) as source, Path(output_file).open("wb") as target:
            shutil.copyfileobj(source, target, 2**20)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        msg = f"{url} arrived damaged ({error}). Try again."
        raise ValueError(msg) from error
    finally:
        packed.unlink(missing_ok=True)


def git_object_id(path: Path) -> str:
    """SHA-1 by which git names the content of a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _retrieve(url: str, path: Path, downloader: Callable[..., None]) -> Path:
    if path.exists():
        return path
    import pooch
    from requests import RequestException

    try:
        pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent, downloader=downloader)
    except RequestException as error:
        _refuse(url, error)
    return path


def _refuse(url: str, error: Exception) -> NoReturn:
    msg = f"{url} could not be fetched ({type(error).__name__})."
    raise OSError(msg) from error
