"""The one logger. It is configured by the user, never here."""

from __future__ import annotations

import logging
from typing import Final

logger = logging.getLogger("sthisto")

_warned: Final[set[str]] = set()


def warn_once(message: str, *arguments: object) -> None:
    """Warn of a state of the data that every further call would find again: once per process and text."""
    text = message % arguments
    if text not in _warned:
        _warned.add(text)
        logger.warning("%s", text)
