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
SIBLINGS: Final = "training.siblings"
FAMILIARITY: Final = "familiarity."
"""What the names of the tensors begin with from which the confidence follows."""
CALIBRATION: Final = "calibration."
"""What the names of the tensors begin with from which intervals follow."""
NO_LONGER_READ: Final = "usual_cosine"
"""Tensor of a bank of 0.1, from which the confidence followed."""
PROJECTION: Final = "training.projection"
PROJECTION_MEAN: Final = "training.projection_mean"
_LARGEST_BOTTLENECK: Final = 4096
_DTYPES: Final = (torch.float32, torch.float64)
Axes = Mapping[str, tuple[int | str, ...]]


def read_tensors(file: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a file that was saved with a configuration.

    Raises
    ------
    ValueError
        The file is damaged, belongs to other genes or to another fit, or holds a value that is not finite.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            if metadata.get("genes") != digest_names(config["genes"]):
                msg = (
                    f"{file} belongs to another list of genes, or to another order of them, than config.json beside it."
                )
                raise ValueError(msg)
            if metadata.get("fit") != config.get("fit"):
                msg = f"{file} belongs to another fit than config.json beside it. Copy or save the model again."
                raise ValueError(msg)
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  it is no mapping
    except SafetensorError as error:
        msg = f"{file} is damaged: {error}. Save the model again."
        raise ValueError(msg) from error
    check_finite(tensors, f"{file} is damaged", "Save the model again.")
    return tensors


def check_finite(tensors: Mapping[str, Tensor], what: str, remedy: str) -> None:
    """Raise ValueError for a tensor with a value that is not finite."""
    for name, values in tensors.items():
        if (values.is_floating_point() or values.is_complex()) and not torch.isfinite(values).all():
            msg = f"{what}: {name!r} has values that are not finite. {remedy}"
            raise ValueError(msg)


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
            axes_text = ", ".join(str(axis) for axis in expected)
            msg = (
                f"{file} is damaged: {name!r} has the shape {shape}, expected {wanted} ({axes_text}). Save the model "
                "again."
            )
            raise ValueError(msg)
        if tensors[name].dtype not in _DTYPES:
            msg = f"{file} is damaged: {name!r} is {tensors[name].dtype}, expected float32. Save the model again."
            raise ValueError(msg)


def check_training(tensors: Mapping[str, Tensor], config: Mapping[str, Any], file: Path) -> None:
    """Raise ValueError unless training spots are recognized as when the model was saved.

    Parameters
    ----------
    tensors
        What was read.
    config
        The configuration. Those of 0.1 tell neither the spots of each section nor how many have a fingerprint.
    file
        For the message.
    """
    fingerprint, section = (tensors.get(name, torch.empty(0)) for name in (FINGERPRINT, SECTION))
    if not _is_column(fingerprint) or not _is_column(section) or len(fingerprint) != len(section):
        msg = f"{file} is damaged: {FINGERPRINT!r} and {SECTION!r} must hold a whole number for each training spot."
        raise ValueError(msg)
    n_sections, found = len(config["training_sections"]), section.unique().tolist()
    wanted = config.get("training_spots")
    is_same = found == list(range(n_sections)) if wanted is None else _counts(section, n_sections) == wanted
    if not is_same:
        msg = (
            f"{file} has training spots of {len(found)} sections, which are not those of the {n_sections} that "
            "config.json lists. Save the model again."
        )
        raise ValueError(msg)
    n_known, n_wanted = int((fingerprint != 0).sum()), config.get("n_recognized")
    if n_known != n_wanted and (n_wanted is not None or not n_known):
        msg = f"{file} is damaged: {n_known} training spots would be recognized of {n_wanted or len(section)}."
        raise ValueError(msg)


def _counts(section: Tensor, n_sections: int) -> list[int]:
    """Return the number of training spots of each section, from `section`, (n_spots,); [] if it has other numbers."""
    if int(section.min()) < 0 or int(section.max()) >= n_sections:
        return []
    return [int(n) for n in torch.bincount(section, minlength=n_sections)]


def _is_column(values: Tensor) -> bool:
    return values.ndim == 1 and values.dtype == torch.int64 and len(values) > 0


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
    """Raise ValueError unless a loaded model has the tensors that were stored: names, shapes and dtypes."""
    for name in sorted(stored.keys() | loaded.keys()):
        forms = [(tuple(v[name].shape), v[name].dtype) if name in v else None for v in (stored, loaded)]
        if forms[0] != forms[1]:
            found = "is there" if forms[1] is None else "is missing" if forms[0] is None else f"is {forms[0]}"
            wanted = "" if forms[1] is None else f"; expected {forms[1]}"
            msg = f"{file} is damaged: the tensor {name!r} {found}{wanted}. Save the model again."
            raise ValueError(msg)
