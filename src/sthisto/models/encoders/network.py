"""Whether the hub of encoders can be reached, found out in seconds instead of after minutes of retries."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies

from sthisto._utils.logging import logger

_PATIENCE_S: Final = 3.0
_PORT: Final = {"http": 80, "https": 443}


@contextmanager
def offline_without_network() -> Iterator[None]:
    """Let Hugging Face's client use only what it has downloaded before, where its hub can't be reached."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    if not before and not can_reach(constants.ENDPOINT):
        logger.info("%s can't be reached: only weights that were downloaded before are used.", constants.ENDPOINT)
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def can_reach(url: str, patience: float = _PATIENCE_S) -> bool:
    """Return whether the host of a URL, or the proxy to it, takes a connection within `patience` seconds."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not _is_excepted(parts.hostname or ""):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    host, port = parts.hostname or "", parts.port or _PORT.get(parts.scheme, 443)
    answer: SimpleQueue[bool] = SimpleQueue()

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=patience).close()
        except OSError:
            answer.put(False)
        else:
            answer.put(True)

    Thread(target=connect, name="sthisto-reach", daemon=True).start()  # looking up a name can't be given a timeout
    try:
        return answer.get(timeout=patience)
    except Empty:
        return False


def _is_excepted(host: str) -> bool:
    names = os.environ.get("no_proxy", os.environ.get("NO_PROXY", "")).split(",")
    return any(name.strip() == "*" or (name.strip() and host.endswith(name.strip().lstrip("."))) for name in names)
