"""Atomic writes of files and folders: written beside their place, flushed to disk, then moved there."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

_AGE_S: Final = 24 * 3600.0
_ATTEMPTS: Final = 50
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_RENAME_SWAP: Final = 2
_TAKEN: Final = (errno.ENOTEMPTY, errno.EEXIST)
_UNSUPPORTED: Final = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
_WRITER: Final = re.compile(r"\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.(part|aside)")
_mine: set[str] = set()


@contextmanager
def atomic_file(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """Yield a path to write a file to, which replaces `path` when the block ends without an error.

    The file is flushed to disk before it is moved. A killed process leaves `path` as it was; what it had written is
    removed when the same file is next written.

    Parameters
    ----------
    path
        The file; its folder is made if need be. The yielded path lies in that folder and has the same suffix.
    lasting
        False for one of very many files that can be computed again, in a folder that others may write: it is not
        flushed, what killed processes left is not looked for, and a link at `path` is replaced rather than followed.
    """
    path = _target(path) if lasting else path
    if path.is_dir():
        msg = f"{path} is a folder. Pass the path of a file."
        raise IsADirectoryError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    if lasting:
        remove_leftovers(path)
    with _staged(path, "part") as staged:
        yield staged
        if lasting:
            _sync(staged)
        staged.replace(path)
        if lasting:
            _sync(path.parent)


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder to fill, which takes the place of `path` when the block ends without an error.

    An existing folder is exchanged in one step where the file system can do that. Where it cannot, a process that is
    killed between two renames leaves the old folder beside its place, and `recover` puts it back. Of several
    processes that write one folder, the last one wins.

    Parameters
    ----------
    path
        The folder; its parent is made if need be.
    overwrite
        Whether a folder with content may be replaced.

    Raises
    ------
    FileExistsError
        `path` holds something when the new folder is moved there, and `overwrite` is False.
    """
    path = _target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    remove_leftovers(path)
    with _staged(path, "part") as staged:
        staged.mkdir()
        yield staged
        for entry in staged.rglob("*"):
            _sync(entry)
        _sync(staged)
        _move_folder(staged, path, overwrite=overwrite)
        _sync(path.parent)


def recover(path: Path) -> None:
    """Put back the last folder that a killed process had moved aside to replace it.

    What a running process of this machine has moved aside is its own to put back.
    """
    if path.exists() or not path.parent.is_dir():
        return
    left = [entry for entry in path.parent.glob(f".{_stem(path)}.*.aside*") if not _is_at_work(entry)]
    for entry in sorted(left, key=_changed, reverse=True):
        if _put_back(entry, path):
            return


def remove_leftovers(path: Path) -> int:
    """Remove what killed processes left beside `path`, and return how many files and folders that were."""
    removed = 0
    for kind in ("part", "aside") if path.exists() else ("part",):
        removed += sum(remove_if_left(entry) for entry in path.parent.glob(f".{_stem(path)}.*.{kind}*"))
    return removed


def remove_if_left(entry: Path) -> bool:
    """Remove a file or folder that `atomic_file` or `atomic_folder` staged, unless its process may be at work."""
    if not _is_left(entry):
        return False
    _remove(entry)
    return True


def is_staged(entry: Path) -> bool:
    """Return whether `atomic_file` or `atomic_folder` made an entry; its process may be at work."""
    return _WRITER.search(entry.name) is not None


def staging_name(path: Path, kind: str = "part") -> str:
    """Return a hidden name beside `path` that tells which process of which machine writes there."""
    return f".{_stem(path)}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.{kind}{path.suffix[:12]}"


@contextmanager
def _staged(path: Path, kind: str) -> Iterator[Path]:
    """Yield a path beside `path`; what is left there at the end is removed."""
    staged = path.parent / staging_name(path, kind)
    _mine.add(staged.name)
    try:
        yield staged
    finally:
        _remove(staged)
        _mine.discard(staged.name)


def _move_folder(new: Path, path: Path, *, overwrite: bool) -> None:
    """Move a folder to its place; other processes may do the same in between."""
    for _ in range(_ATTEMPTS):
        try:
            new.rename(path)  # onto nothing, or an empty folder
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        else:
            return
        if not overwrite:
            msg = f"{path} exists. Choose another path, or pass overwrite=True to replace it."
            raise FileExistsError(msg)
        try:
            if _exchange(new, path):
                return  # the old one lies where the new one was, and is removed there
            with _staged(path, "aside") as aside:
                path.rename(aside)
                try:
                    new.rename(path)
                except BaseException:
                    _put_back(aside, path)
                    raise
                return
        except OSError as error:
            if error.errno not in (*_TAKEN, errno.ENOENT):
                raise
    msg = f"{path} could not be replaced: other processes keep writing it. Save to another path."
    raise OSError(msg)


def _put_back(aside: Path, path: Path) -> bool:
    """Move a folder back to its place; return whether it was there and the place was free."""
    try:
        aside.rename(path)
    except OSError as error:
        if error.errno not in (*_TAKEN, errno.ENOENT):
            raise
        return False
    return True


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two paths in one step; return False where the system or the file system cannot."""
    call = _exchange_call()
    if call is None:
        return False
    if call(os.fsencode(first), os.fsencode(second)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(second))


@cache
def _exchange_call() -> Any:
    if sys.platform == "win32":
        return None
    library = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "renameat2"):
        return lambda a, b: library.renameat2(_AT_FDCWD, a, _AT_FDCWD, b, _RENAME_EXCHANGE)
    if hasattr(library, "renamex_np"):
        return lambda a, b: library.renamex_np(a, b, _RENAME_SWAP)
    return None


def _is_left(entry: Path) -> bool:
    if _is_at_work(entry):
        return False
    return _is_of_this_machine(entry) or time.time() - _changed(entry) > _AGE_S


def _is_at_work(entry: Path) -> bool:
    """Return whether this process, or another one that runs on this machine, staged an entry."""
    if entry.name in _mine:
        return True
    writer = _WRITER.search(entry.name)
    if writer is None or writer["host"] != _host():
        return False
    return int(writer["pid"]) != os.getpid() and _is_running(int(writer["pid"]))


def _is_of_this_machine(entry: Path) -> bool:
    writer = _WRITER.search(entry.name)
    return writer is not None and writer["host"] == _host()


def _changed(entry: Path) -> float:
    """Return when an entry was last changed, in seconds since the epoch; now, if it has gone meanwhile."""
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"  # killed, and not yet waited for
    except OSError:
        return True


@cache
def _host() -> str:
    return blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()


def _stem(path: Path) -> str:
    """Return a name's start for hidden names beside it, short enough for every file system, without glob's signs."""
    name = path.name
    if len(name.encode()) <= 100 and not set(name) & set("*?[]"):
        return name
    return blake2b(name.encode(), digest_size=12).hexdigest()


def _target(path: Path) -> Path:
    """Return where a link leads, so that what it leads to is replaced and not the link."""
    return path.resolve() if path.is_symlink() else path


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flush a file or a folder's list of names to disk, where the system can."""
    if path.is_symlink() or (path.is_dir() and sys.platform == "win32"):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)
