"""A thread that makes what comes next while the caller uses what came last."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Queue
from threading import Event, Thread
from typing import Any

_END = object()


def read_ahead(items: Iterator[Any], depth: int = 2) -> Iterator[Any]:
    """Yield `items`, made by a thread that is at most `depth` items ahead; what it raises is raised here.

    A caller who stops early, by leaving the loop or by an exception, ends the thread.
    """
    queue: Queue[Any] = Queue(maxsize=depth)
    stopped = Event()

    def produce() -> None:
        try:
            for item in items:
                queue.put((item, None))
                if stopped.is_set():
                    return
        except BaseException as error:  # noqa: BLE001  it is raised again in the consumer's thread
            queue.put((_END, error))
        else:
            queue.put((_END, None))

    thread = Thread(target=produce, name="sthisto-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = queue.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        while thread.is_alive():
            while not queue.empty():
                queue.get_nowait()
            thread.join(timeout=0.01)
