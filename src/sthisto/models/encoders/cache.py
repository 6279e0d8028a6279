"""Features on disk: found by what made them, checked when read, bounded, and shared by processes and users."""

from __future__ import annotations

import io
import math
import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np

from sthisto._images.content import stored_digest
from sthisto._images.patches import PatchSource
from sthisto._utils.atomic import atomic_file, is_staged, remove_if_left
from sthisto._utils.digest import digest_arrays
from sthisto._utils.logging import logger
from sthisto._utils.settings import settings

_FOLDER: Final = "features"
_SUFFIX: Final = ".features"
_DIGEST_BYTES: Final = 16
_SHARED: Final = 0o664
"""Rights of a file that its folder may pass on: nobody but user and group ever writes."""
_FULL: Final = 0.9
"""Share of `settings.cache_size` that is left when files were removed."""
_RECOUNT: Final = 1 / 16
"""Share of it that this process writes before it counts again what others have written."""
_OLD_S: Final = 24 * 3600.0
_OLD_PART: Final = ".tmp"
"""Suffix of what writers of 0.1 staged."""


@dataclass
class _Usage:
    """What a folder holds, in bytes: as counted, and written by this process since."""

    counted: int
    written: int = 0


_usage: dict[Path, _Usage] = {}
_warned: set[tuple[Path, str]] = set()


def batch_key(patches: np.ndarray, fingerprints: np.ndarray) -> str:
    """Return what a batch of uint8 patches (n, size, size, 3) is found by, from its patches' fingerprints, (n,).

    The fingerprint of a patch of one color is 0, hence the first pixel of each.
    """
    state = blake2b(str(patches.shape).encode(), digest_size=_DIGEST_BYTES)
    state.update(np.ascontiguousarray(fingerprints).data)
    state.update(np.ascontiguousarray(patches[:, 0, 0]).data)
    return state.hexdigest()


def read(identity: str, key: str) -> np.ndarray | None:
    """Return the array that `write` kept; None, with a warning, where it cannot be read or is damaged."""
    file = _file(identity, key)
    try:
        stored = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _warn_once("read", "Features in %s cannot be read and are computed again: %s", file.parent, error)
        return None
    features = _decoded(stored)
    if features is None:
        logger.warning("The features in %s are damaged: they are computed again.", file)
        return None
    with suppress(OSError):  # another process removed it meanwhile, or it belongs to another user
        os.utime(file)
    return features


def write(identity: str, key: str, features: np.ndarray) -> None:
    """Keep an array of any shape, atomically; where the disk refuses, warn once and go on."""
    content = io.BytesIO()
    np.save(content, features, allow_pickle=False)
    file = _file(identity, key)
    try:
        _make_folder(file.parent)
        with atomic_file(file, lasting=False) as staged:
            staged.write_bytes(_digest(content.getvalue()) + content.getvalue())
            with suppress(PermissionError):  # a file system without rights
                staged.chmod(0o600 | stat.S_IMODE(file.parent.stat().st_mode) & _SHARED)
        _count(_DIGEST_BYTES + content.tell())
    except OSError as error:
        _warn_once("write", "Features could not be kept in %s and will be computed again: %s", file.parent, error)


def kept(identity: str, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the array, of any shape, from the cache, or compute and keep it; without a cache, compute it."""
    if not settings.cache_features:
        return compute()
    found = read(identity, key)
    if found is None:
        found = compute()
        write(identity, key, found)
    return found


def of_sources(identity: str, sources: Sequence[PatchSource], compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the array kept of whole sources of patches, (n_patches, ...), or compute and keep it.

    Only images that are recognized without being read are kept so: no patch is cut to look anything up. Of others,
    `compute` looks up batches.
    """
    key = _sources_key(sources) if settings.cache_features else ""
    return kept(identity, key, compute) if key else compute()


def _sources_key(sources: Sequence[PatchSource]) -> str:
    """Return what recognizes the patches of all sources, "" where their images would have to be read."""
    images = [stored_digest(source.level) for source in sources]
    if not all(images):
        return ""
    windows = {str(i): source.centers for i, source in enumerate(sources)}
    return digest_arrays(windows, *images, *(f"{source.extent!r} to {source.size}" for source in sources))


def clear_cache() -> None:
    """Delete all features on disk; those that belong to others stay where they cannot be deleted, with a warning."""
    for file in (settings.cache_dir / _FOLDER).glob("*/*"):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            _warn_once("clear", "Features in %s cannot be deleted: %s", file.parent, error)
    _usage.pop(settings.cache_dir, None)


def _decoded(stored: bytes) -> np.ndarray | None:
    """Return the array in a file's content, of any shape; None where it is damaged."""
    digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
    if _digest(content) != digest:
        return None
    try:
        return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))
    except (ValueError, EOFError):
        return None


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _file(identity: str, key: str) -> Path:
    return settings.cache_dir / _FOLDER / identity / f"{key}{_SUFFIX}"


def _make_folder(folder: Path) -> None:
    """Make a folder below the cache, with the rights of the folder that it is in."""
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    for inner in (settings.cache_dir / _FOLDER, folder):
        with suppress(FileExistsError):
            inner.mkdir()
            inner.chmod(0o700 | stat.S_IMODE(inner.parent.stat().st_mode) & ~(stat.S_IWOTH | stat.S_ISVTX))


def _warn_once(what: str, message: str, folder: Path, error: OSError) -> None:
    """Warn of a cache that cannot be used, once for each of its folders in a process."""
    if (folder, what) not in _warned:
        _warned.add((folder, what))
        logger.warning(message, folder, error)


def _count(size: int) -> None:
    """Count bytes that were written, and look at the files when the cache may be full, or others may have written."""
    limit = settings.cache_size * 2**30
    usage = _usage.get(settings.cache_dir)
    if usage is not None:
        usage.written += size
        is_full = usage.counted <= limit < usage.counted + usage.written
        if not is_full and usage.written <= _RECOUNT * limit:
            return
    _usage[settings.cache_dir] = _Usage(_shrink(limit))


def _shrink(limit: float) -> int:
    """Remove what killed processes left and, where the files exceed a size, those that were not used for longest.

    Returns
    -------
    The bytes that are left.
    """
    files = _look()
    total = sum(size for _, size, _ in files)
    if total <= limit:
        return total
    for _, size, file in sorted(files):
        if total <= _FULL * limit:
            break
        with suppress(OSError):  # of another user
            file.unlink(missing_ok=True)
            total -= size
    return total


def _look() -> list[tuple[float, int, Path]]:
    """Return when each file was last used, its bytes and its path, after removing what killed writers left.

    What is being written was "last used" at the end of time: it is counted, and goes last.
    """
    found, n_left = [], 0
    for file in (settings.cache_dir / _FOLDER).glob("*/*"):
        with suppress(OSError):
            status = file.stat()
            if not stat.S_ISREG(status.st_mode):
                continue
            if _remove_if_left(file, status):
                n_left += 1
            else:
                found.append((math.inf if is_staged(file) else status.st_mtime, status.st_size, file))
    if n_left:
        logger.info("%d files that killed processes left in %s were removed.", n_left, settings.cache_dir / _FOLDER)
    return found


def _remove_if_left(file: Path, status: os.stat_result) -> bool:
    if file.suffix == _OLD_PART and time.time() - status.st_mtime > _OLD_S:
        file.unlink()
        return True
    return is_staged(file) and remove_if_left(file)
