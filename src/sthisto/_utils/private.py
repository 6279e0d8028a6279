"""Folders among temporary files that belong to this user alone."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from sthisto._utils.logging import logger


def user_id() -> int:
    """Return the number of the user, 0 where the system has none."""
    return os.getuid() if hasattr(os, "getuid") else 0


def private_folder(path: Path) -> Path:
    """Return a folder that only this user can write, made if need be.

    Parameters
    ----------
    path
        Where it should be, in a folder that everybody can write. If somebody else has made something there, or can
        write it, another name beside it is taken, so that nobody can plant files.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not _is_private(path):
            own = Path(tempfile.mkdtemp(prefix=f"{path.name}-", dir=path.parent))
            logger.warning("%s can be written by somebody else: %s is used instead.", path, own)
            return own
    except OSError:  # nothing can be kept there; whoever writes to it is told so
        return path
    return path


def _is_private(path: Path) -> bool:
    if not hasattr(os, "getuid"):
        return path.is_dir()
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):  # a link too, which may lead anywhere
        return False
    return found.st_uid == user_id() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
