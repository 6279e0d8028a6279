"""Where a fit stands, kept on disk so that the same call goes on after the process has died.

`tl.fit` opens a `Checkpoint`; whatever runs the training loop inside finds it, so that every method that trains by
`training.loop`, and every member of an ensemble, goes on without code of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sthisto._utils.atomic import atomic_file, remove_if_left
from sthisto._utils.logging import logger
from sthisto._utils.validate import listed

ABOUT: Final = "checkpoint.json"
_RARELY_S: Final = 0.5
"""Seconds that a write may take before epochs are left out."""
_SHARE: Final = 20
"""Times the length of such a write that lie between two."""

_active: ContextVar[Checkpoint | None] = ContextVar("checkpoint", default=None)


@dataclass
class Checkpoint:
    """The folder of one fit.

    Attributes
    ----------
    folder
        Holds `checkpoint.json`, which says what is fitted, and one file for each network that is trained.
    """

    folder: Path
    _opened: int = field(default=0, repr=False)

    def next_training(self) -> TrainingFile:
        """Return the file of the next network that the fit trains; the order is the same in every call."""
        self._opened += 1
        return TrainingFile(self.folder / f"network-{self._opened}.safetensors")


@dataclass
class TrainingFile:
    """What is known of one network after its last epochs."""

    path: Path
    _written: float = field(default=0.0, repr=False)
    _took: float = field(default=0.0, repr=False)
    _failed: bool = field(default=False, repr=False)

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and plain values of the last write; None where there is no file, or a damaged one."""
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as stored:
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  it is no mapping
                return tensors, json.loads((stored.metadata() or {})["state"])
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            logger.warning("%s is damaged (%s): this network is trained from the start.", self.path, error)
            return None

    def write(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, last: bool) -> None:
        """Replace the file, in one step; long writes are left out for some epochs, but not the `last`.

        A write that fails is warned of once: the fit goes on without it.
        """
        start = time.monotonic()
        if not last and self._took > _RARELY_S and start - self._written < _SHARE * self._took:
            return
        try:
            _replace(self.path, save(dict(tensors), metadata={"state": json.dumps(state)}))
        except OSError as error:
            if not self._failed:
                logger.warning("The checkpoint %s could not be written (%s): the fit goes on.", self.path, error)
            self._failed = True
        self._written = time.monotonic()
        self._took = self._written - start


def open_checkpoint(folder: str | Path, about: Mapping[str, Any]) -> Checkpoint:
    """Return the checkpoint of a fit in a folder, new or begun, after trying to write there.

    Parameters
    ----------
    folder
        Made if need be.
    about
        What is fitted, as plain values: another fit has another description.

    Raises
    ------
    FileExistsError
        The folder holds something that is no checkpoint.
    ValueError
        It holds the checkpoint of another fit; the message names what differs.
    OSError
        It cannot be written.
    """
    folder = Path(folder)
    wanted = json.loads(json.dumps(about, default=str))
    _check_folder(folder)
    found = _read_about(folder / ABOUT)
    if found is not None and found != wanted:
        there, here = _flat(found), _flat(wanted)
        differing = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
        parts = [f"{name} ({_short(there.get(name))} there, {_short(here.get(name))} here)" for name in differing]
        msg = (
            f"checkpoint={str(folder)!r} holds another fit, which differs in {'; '.join(parts)}. Delete the folder to "
            "start anew, or pass another checkpoint=…"
        )
        raise ValueError(msg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / ABOUT, json.dumps(wanted, indent=1).encode())
    except OSError as error:
        msg = f"checkpoint={str(folder)!r} cannot be written: {error}. Pass a folder that can be."
        raise type(error)(error.errno, msg) from error
    return Checkpoint(folder)


def remove_checkpoint(folder: str | Path) -> None:
    """Remove a checkpoint: its files, and the folder if nothing else is in it."""
    folder = Path(folder)
    if not (folder / ABOUT).is_file():
        return
    for file in (*folder.glob("network-*.safetensors"), folder / ABOUT):
        file.unlink(missing_ok=True)
    for staged in folder.glob(".*.part.*"):
        remove_if_left(staged)
    if not any(folder.iterdir()):
        folder.rmdir()


@contextmanager
def checkpointing(checkpoint: Checkpoint | None) -> Iterator[None]:
    """Let the training loops inside the block, in this thread, use a checkpoint; None: they keep nothing."""
    token = _active.set(checkpoint)
    try:
        yield
    finally:
        _active.reset(token)


def next_training() -> TrainingFile | None:
    """Return the file of the next network, None outside `checkpointing`."""
    checkpoint = _active.get()
    return None if checkpoint is None else checkpoint.next_training()


def _check_folder(folder: Path) -> None:
    if not folder.exists() or (folder / ABOUT).is_file():
        return
    if not folder.is_dir():
        msg = f"checkpoint={str(folder)!r} is a file. Pass a folder."
        raise FileExistsError(msg)
    inside = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    if inside:
        msg = (
            f"checkpoint={str(folder)!r} exists and is no checkpoint: it holds {listed(sorted(inside), 4)}. Pass "
            "another folder; a fitted model is saved with model.save."
        )
        raise FileExistsError(msg)


def _read_about(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        msg = f"{path} is damaged ({error}). Delete the folder to start anew."
        raise ValueError(msg) from error
    return dict(found)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping in which those inside stand with their own keys."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inside = _flat(value) if isinstance(value, Mapping) else {"": value}
        flat |= {f"{name} {inner}".rstrip(): one for inner, one in inside.items()}
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _replace(path: Path, content: bytes) -> None:
    with atomic_file(path) as staged:
        staged.write_bytes(content)
