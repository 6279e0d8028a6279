"""Signals that end a process, as clusters send them, handled as Ctrl-C is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = ("SIGTERM", "SIGHUP")


@contextmanager
def ends_like_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt inside the block where SIGTERM or SIGHUP would end the process.

    A handler that the user has set, and a signal that is ignored (as ``nohup`` does), are left as they are. Only the
    main thread can set handlers; in another one the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    changed = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)
