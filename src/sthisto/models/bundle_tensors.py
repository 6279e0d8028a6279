"""Whether the tensors of a saved model are those that its method, with these options, has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sthisto._utils.digest import digest_names

FINGERPRINT: Final = "training.fingerprint"
SECTION: Final = "training.section"
_LARGEST_BOTTLENECK: Final = 4096
Axes = Mapping[str, tuple[int | str, ...]]


def read_tensors(file: Path, genes: list[str]) -> dict[str, Tensor]:
    """Return the tensors of a file that was saved with these genes, in this order.

    Raises
    ------
    ValueError
        The file is damaged, belongs to other genes, or holds a value that is not finite.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            if (stored.metadata() or {}).get("genes") != digest_names(genes):
                msg = (
                    f"{file} belongs to another list of genes, or to another order of them, than config.json beside it."
                )
                raise ValueError(msg)
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  it is no mapping
    except SafetensorError as error:
        msg = f"{file} is damaged: {error}. Save the model again."
        raise ValueError(msg) from error
    for name, values in tensors.items():
        if values.is_floating_point() and not torch.isfinite(values).all():
            msg = f"{file} is damaged: {name!r} has values that are not finite. Save the model again."
            raise ValueError(msg)
    return tensors


def check_axes(tensors: Mapping[str, Tensor], axes: Axes, sizes: dict[str, int], file: Path) -> None:
    """Raise ValueError unless tensors have the axes that a method says.

    Parameters
    ----------
    tensors
        What was read.
    axes
        Name of a tensor -> the length of each axis, as a number or by a name.
    sizes
        Name of an axis -> its length. A name that is not there yet gets the length of its first tensor.
    file
        For the message.
    """
    for name, expected in axes.items():
        if name not in tensors:
            msg = f"{file} is damaged: it has no tensor {name!r}. Save the model again."
            raise ValueError(msg)
        shape = tuple(tensors[name].shape)
        if len(shape) == len(expected):
            for axis, length in zip(expected, shape, strict=True):
                if isinstance(axis, str):
                    sizes.setdefault(axis, length)
        wanted = tuple(sizes.get(axis, -1) if isinstance(axis, str) else axis for axis in expected)
        if shape != wanted:
            said = ", ".join(str(axis) for axis in expected)
            msg = f"{file} is damaged: {name!r} has the shape {shape}, expected {wanted} ({said}). Save the model again."
            raise ValueError(msg)


def check_training(tensors: Mapping[str, Tensor], n_sections: int, n_known: int | None, file: Path) -> int:
    """Check what training spots are recognized by, and return their number.

    Parameters
    ----------
    tensors
        What was read.
    n_sections
        Length of the list of training sections.
    n_known
        Training spots with a fingerprint; None for models of 0.1, which don't say.
    file
        For the message.
    """
    sizes: dict[str, int] = {}
    check_axes(tensors, {FINGERPRINT: ("spots",), SECTION: ("spots",)}, sizes, file)
    fingerprint, section = tensors[FINGERPRINT], tensors[SECTION]
    if fingerprint.dtype != torch.int64 or section.dtype != torch.int64 or not len(section):
        msg = f"{file} is damaged: the training spots are not told by whole numbers. Save the model again."
        raise ValueError(msg)
    if int(section.min()) < 0 or int(section.max()) != n_sections - 1:
        msg = (
            f"{file} has training spots of {int(section.max()) + 1} sections, but config.json lists {n_sections}. Save "
            "the model again."
        )
        raise ValueError(msg)
    if n_known is not None and int((fingerprint != 0).sum()) != n_known:
        msg = f"{file} does not recognize the {n_known} training spots that it was saved with. Save the model again."
        raise ValueError(msg)
    return sizes["spots"]


def check_sizes(options: Mapping[str, Any], tensors: Mapping[str, Tensor], file: Path) -> None:
    """Raise ValueError for options that would build more than the tensors hold, before it takes all memory."""
    largest = max((length for values in tensors.values() for length in values.shape), default=0)
    limits = {
        "n_models": len(tensors),
        "n_blocks": len(tensors),
        "bottleneck": max(largest, _LARGEST_BOTTLENECK),
    }
    for name, value in options.items():
        if isinstance(value, dict):
            check_sizes(value, tensors, file)
        elif name in limits and isinstance(value, int) and value > limits[name]:
            msg = f"{file} is damaged: the option {name!r} is {value}, but the tensors allow {limits[name]} at most."
            raise ValueError(msg)


def check_same(stored: Mapping[str, Tensor], loaded: Mapping[str, Tensor], file: Path) -> None:
    """Raise ValueError unless a loaded model has just the tensors that were stored."""
    for name in sorted(stored.keys() | loaded.keys()):
        forms = [(tuple(v[name].shape), v[name].dtype) if name in v else None for v in (stored, loaded)]
        if forms[0] != forms[1]:
            found = "is there" if forms[1] is None else "is missing" if forms[0] is None else f"is {forms[0]}"
            wanted = "" if forms[1] is None else f"; expected {forms[1]}"
            msg = f"{file} is damaged: the tensor {name!r} {found}{wanted}. Save the model again."
            raise ValueError(msg)
