"""Sections spread over devices: one thread and one copy of the model for each, every section once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TypeVar

import torch

from sthisto.models.base import ExpressionModel
from sthisto.models.training.devices import on_device, torch_devices

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_over_devices(
    model: ExpressionModel,
    items: Sequence[Item],
    task: Callable[[ExpressionModel, Item], Result],
    *,
    devices: Sequence[torch.device] | None = None,
) -> list[Result]:
    """Return what `task` makes of the model and each item, in the order of the items.

    Parameters
    ----------
    model
        Its networks are copied for each device; its bank is shared, and only read.
    items
        Such as sections. A device takes the next one as soon as it has done its last.
    task
        Called once an item, in a thread where `torch_device` is the thread's own.
    devices
        None is every device that the settings allow. With one, no thread is started.
    """
    devices = (torch_devices() if devices is None else devices)[: max(len(items), 1)]
    if len(devices) == 1:
        return [task(model, item) for item in items]
    waiting: SimpleQueue[int] = SimpleQueue()
    for number in range(len(items)):
        waiting.put(number)
    results: dict[int, Result] = {}

    def work(device: torch.device, own: ExpressionModel) -> None:
        with on_device(device):
            while (number := _next(waiting)) is not None:
                try:
                    results[number] = task(own, items[number])
                except BaseException:
                    while _next(waiting) is not None:
                        pass
                    raise

    with ThreadPoolExecutor(len(devices), thread_name_prefix="sthisto-device") as pool:
        done = [pool.submit(work, device, model.replica()) for device in devices]
    for future in done:
        future.result()
    return [results[number] for number in range(len(items))]


def _next(waiting: SimpleQueue[int]) -> int | None:
    try:
        return waiting.get_nowait()
    except Empty:
        return None
