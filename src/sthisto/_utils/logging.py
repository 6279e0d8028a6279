"""The one logger. Nothing is configured until the user sets `settings.verbosity` or `settings.log_file`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final

logger = logging.getLogger("sthisto")

LEVELS: Final = ("error", "warning", "info", "debug")
"""What `settings.verbosity` may be."""

_IN_FILES: Final = "%(asctime)s %(levelname)s %(message)s"
_handlers: Final[list[logging.Handler]] = []

_warned: Final[set[str]] = set()
_subject: Final[ContextVar[str]] = ContextVar("subject", default="")


def configure(verbosity: str | None, log_file: Path | None) -> None:
    """Show and keep messages; with None for both, leave them to the caller's logging.

    Where the root logger has handlers, these show the messages, and none is shown twice.

    Parameters
    ----------
    verbosity
        One of `LEVELS`; None is "warning" where there is a file.
    log_file
        File that messages of at least "info" are appended to; its folder is made if need be.
    """
    for handler in _handlers:
        logger.removeHandler(handler)
        handler.close()
    _handlers.clear()
    if verbosity is None and log_file is None:
        logger.setLevel(logging.NOTSET)
        return
    shown = getattr(logging, (verbosity or "warning").upper())
    if not logging.getLogger().handlers:
        _add(logging.StreamHandler(), shown, "%(message)s")
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        _add(logging.FileHandler(log_file, encoding="utf-8"), min(shown, logging.INFO), _IN_FILES)
    logger.setLevel(shown if log_file is None else min(shown, logging.INFO))


def _add(handler: logging.Handler, level: int, form: str) -> None:
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter(form))
    logger.addHandler(handler)
    _handlers.append(handler)


def warn_once(message: str, *arguments: object) -> None:
    """Warn of a state of the data that every further call would find again: once per process and text."""
    text = message % arguments
    if text not in _warned:
        _warned.add(text)
        logger.warning("%s", text)


@contextmanager
def about(subject: str) -> Iterator[list[str]]:
    """Let messages of the block begin with what they are about, such as one of many slides.

    Yields
    ------
    A list to which the text of each warning is added, without the subject.
    """
    warnings: list[str] = []

    def name(record: logging.LogRecord) -> bool:
        if _subject.get() == subject:  # not of another thread
            text = record.getMessage()
            record.msg, record.args = f"{subject}: {text}", None
            if record.levelno >= logging.WARNING:
                warnings.append(text)
        return True

    token = _subject.set(subject)
    logger.addFilter(name)
    try:
        yield warnings
    finally:
        logger.removeFilter(name)
        _subject.reset(token)
