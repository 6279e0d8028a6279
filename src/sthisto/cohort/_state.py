"""What became of each slide: small files that are written atomically, and locks that end with their process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from sthisto._sdata.slots import COHORT_DONE, COHORT_STATES
from sthisto._utils.atomic import atomic_file

DONE: Final = COHORT_DONE
FAILED: Final = "failed"
RUNNING: Final = "running"
PENDING: Final = "pending"


@dataclass(frozen=True)
class SlideState:
    """The state of one slide.

    Attributes
    ----------
    state
        "done", "failed", "running" or "pending".
    message
        Why it failed, or the warnings of a slide that is done.
    spots
        Spots that were predicted.
    seconds
        Time that it took.
    source
        Size and time of change of the file that was read, to tell whether it was replaced.
    settings
        Digest of the model and of the arguments.
    um_per_px
        µm per px that were stated for the slide, None where they are those of its file.
    """

    state: str = PENDING
    message: str = ""
    spots: int = 0
    seconds: float = 0.0
    source: list[int] = field(default_factory=list)
    settings: str = ""
    um_per_px: float | None = None


def state_path(out: Path, name: str) -> Path:
    """Return the file with the state of a slide."""
    return out / COHORT_STATES / f"{name}.json"


def read_state(out: Path, name: str) -> SlideState:
    """Return the state of a slide; one that can't be read counts as pending."""
    try:
        stored: dict[str, Any] = json.loads(state_path(out, name).read_text(encoding="utf-8"))
        return SlideState(**stored)
    except (OSError, ValueError, TypeError):
        return SlideState()


def write_state(out: Path, name: str, state: SlideState) -> None:
    """Write the state of a slide."""
    with atomic_file(state_path(out, name)) as staged:
        staged.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")


def source_of(path: Path) -> list[int]:
    """Return the size and the time of the last change of a file or folder, empty where there is none."""
    try:
        about = path.stat()
    except OSError:
        return []
    return [about.st_size, about.st_mtime_ns]


@contextmanager
def locked(out: Path, name: str, *, wait: bool = False) -> Iterator[bool]:
    """Yield whether this process alone works on a slide; the lock ends with the process, however it ends.

    Parameters
    ----------
    out, name
        Folder of the results, and name of the slide.
    wait
        Whether to wait until no other process has the lock.
    """
    path = out / COHORT_STATES / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows: two runs in one folder are not kept apart
        yield True
        return
    handle = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)
