"""Features on disk: found by what made them, checked when read, bounded, and safe for several processes."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np

from sthisto._images.content import stored_digest
from sthisto._images.patches import PatchSource
from sthisto._utils.digest import digest_arrays
from sthisto._utils.logging import logger
from sthisto._utils.settings import settings

_FOLDER = "features"
_SUFFIX = ".features"
_DIGEST_BYTES = 16


def batch_key(patches: np.ndarray, fingerprints: np.ndarray) -> str:
    """Return what a batch of uint8 patches (n, size, size, 3) is found by, from its patches' fingerprints, (n,).

    The fingerprint of a patch of one color is 0, hence the first pixel of each.
    """
    state = blake2b(str(patches.shape).encode(), digest_size=_DIGEST_BYTES)
    state.update(np.ascontiguousarray(fingerprints).data)
    state.update(np.ascontiguousarray(patches[:, 0, 0]).data)
    return state.hexdigest()


def read(identity: str, key: str) -> np.ndarray | None:
    """Return the features that `write` kept; None where there are none, or where they are damaged, with a warning."""
    file = _file(identity, key)
    try:
        stored = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        logger.warning("The features in %s cannot be read and are computed again: %s", file, error)
        return None
    digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
    if _digest(content) != digest:
        logger.warning("The features in %s are damaged: they are computed again.", file)
        return None
    with suppress(FileNotFoundError):  # another process removed it meanwhile
        os.utime(file)
    return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))


def write(identity: str, key: str, features: np.ndarray) -> None:
    """Keep features; where the disk refuses, say so and go on. Another process sees the whole file or none."""
    content = io.BytesIO()
    np.save(content, features, allow_pickle=False)
    file = _file(identity, key)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(_digest(content.getvalue()))
                stream.write(content.getbuffer())
            Path(temporary).replace(file)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        logger.warning("Features could not be kept in %s and will be computed again: %s", file.parent, error)
        return
    _shrink()


def kept(identity: str, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Return what the cache keeps, or compute and keep it; without a cache (see the settings), compute it."""
    if not settings.cache_features:
        return compute()
    found = read(identity, key)
    if found is None:
        found = compute()
        write(identity, key, found)
    return found


def of_sources(identity: str, sources: Sequence[PatchSource], compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Return what is kept of whole sources of patches, or compute and keep it.

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
    """Delete all features on disk."""
    for file in (settings.cache_dir / _FOLDER).glob("*/*"):
        file.unlink(missing_ok=True)


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _file(identity: str, key: str) -> Path:
    return settings.cache_dir / _FOLDER / identity / f"{key}{_SUFFIX}"


def _shrink() -> None:
    """Remove the files that were not used for longest until the cache fits `settings.cache_size`."""
    files: list[tuple[float, int, Path]] = []
    for file in _files():
        with suppress(FileNotFoundError):
            status = file.stat()
            files.append((status.st_mtime, status.st_size, file))
    excess = sum(size for _, size, _ in files) - settings.cache_size * 2**30
    for _, size, file in sorted(files):
        if excess <= 0:
            return
        file.unlink(missing_ok=True)
        excess -= size


def _files() -> Iterator[Path]:
    yield from (settings.cache_dir / _FOLDER).glob(f"*/*{_SUFFIX}")
