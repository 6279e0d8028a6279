"""Where torch computes: the device of the settings, or the one that a thread was given."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sthisto._utils.cpus import available_cpus
from sthisto._utils.settings import settings
from sthisto._utils.validate import check_choice, listed

_given = threading.local()


def resolve_device(device: str) -> tuple[str, list[int] | None]:
    """Return Fabric's accelerator and devices for a device of the settings.

    Raises
    ------
    RuntimeError
        The device is not there.
    """
    if device == "auto":
        return ("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"), None
    kind, _, index = device.partition(":")
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    check_choice(kind, present, name="settings.device")
    if index and not index.isdigit():
        msg = f"settings.device is {device!r}; after the colon it must have a number, as in 'cuda:1'."
        raise ValueError(msg)
    if not present[kind] or (index and kind == "cuda" and int(index) >= torch.cuda.device_count()):
        available = [name for name, there in present.items() if there and name != "cuda"]
        available += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        msg = f"settings.device is {device!r}, which this machine does not have. Available: {', '.join(available)}."
        raise RuntimeError(msg)
    return kind, [int(index)] if index and kind != "cpu" else None


def check_devices(options: Any) -> None:
    """Raise ValueError where a method's options ask for more devices than there are, or for an unknown strategy.

    Parameters
    ----------
    options
        Options of the method. Only those of methods that are trained in epochs are checked.
    """
    from sthisto.models.options import TrainingOptions

    if not isinstance(options, TrainingOptions):
        return
    devices, strategy = options.devices, options.strategy
    if devices not in (1, "1", "auto", "-1"):
        accelerator, _ = resolve_device(settings.device)
        present = {"cuda": torch.cuda.device_count(), "cpu": available_cpus()}.get(accelerator, 1)
        _check_number(devices, present, accelerator)
    if strategy == "auto":
        return
    from lightning_fabric.strategies import STRATEGY_REGISTRY

    if strategy not in (known := STRATEGY_REGISTRY.available_strategies()):
        msg = f"`strategy` is {strategy!r}; it must be one of {listed(['auto', *sorted(known)], 40)}."
        raise ValueError(msg)


def _check_number(devices: int | str, present: int, accelerator: str) -> None:
    wanted = str(devices).removesuffix(",").split(",")
    if not all(one.strip().isdigit() for one in wanted):
        msg = f"`devices` is {devices!r}; it must be a number of devices or 'auto'."
        raise ValueError(msg)
    number = int(wanted[0]) if len(wanted) == 1 else len(wanted)
    if number > present:
        what = "processors" if accelerator == "cpu" else "devices"
        msg = (
            f"`devices` is {devices!r}, but {accelerator!r} has {present} {what} here: every device is a process of "
            f"its own. Pass devices={present} or fewer."
        )
        raise ValueError(msg)


def torch_device() -> torch.device:
    """Return where this thread computes what is not training: what `on_device` gave it, or that of the settings."""
    device = getattr(_given, "device", None)
    if device is not None:
        return torch.device(device)
    accelerator, devices = resolve_device(settings.device)
    if accelerator == "cuda" and devices is None and "LOCAL_RANK" in os.environ:
        devices = [int(os.environ["LOCAL_RANK"])]  # torchrun and Fabric number a node's processes by their GPU
    return torch.device(accelerator, devices[0]) if devices else torch.device(accelerator)


def torch_devices() -> list[torch.device]:
    """Return all devices that sections may be spread over: every GPU, unless the settings name one."""
    if settings.device in ("auto", "cuda") and torch.cuda.is_available():
        return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    return [torch_device()]


def is_first_process() -> bool:
    """Return whether this process writes files: one that trained alone, or the first of those that train together."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not together or torch.distributed.get_rank() == 0


@contextmanager
def on_device(device: torch.device) -> Iterator[None]:
    """Make `torch_device` return `device` for this thread."""
    before = getattr(_given, "device", None)
    _given.device = device
    try:
        yield
    finally:
        _given.device = before
