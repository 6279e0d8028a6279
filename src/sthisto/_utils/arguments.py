"""Arguments of public functions and options of methods, checked in one place before anything is computed.

`ARGUMENTS` says what an argument of a name may be, wherever it occurs; a function states what differs in `checked`.
"""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import cache, wraps
from typing import Any, Final, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from sthisto._utils.checks import (
    Check,
    choice,
    flag,
    is_list,
    is_number,
    labels,
    list_of,
    mapping,
    mapping_to,
    new_name,
    number,
    numbers,
    path,
    seed,
    share,
    shown,
    text,
    texts,
    whole,
)

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_POSITIVE: Final = number(above=0)
_POSITIVE_OR_INFINITE: Final = _POSITIVE | Check("infinite", lambda value: is_number(value) and value == float("inf"))
_COUNT: Final = whole()
_SCALE: Final = number(least=1e-3, most=1e5).called("positive: a finite number of µm per px, from 0.001 to 100000")
_LENGTH: Final = number(least=1e-2, most=1e7).called("positive: a finite number of µm, from 0.01 to 10000000")
_LAYER: Final = text | whole(-(10**6)).called("a number")
LAYERS: Final = (_LAYER | list_of(_LAYER, "")).called("the name or number of a layer, or a list of these")
_FLAVOR: Final = choice("pearson_residuals", "seurat")
_REGION_TEXT: Final = mapping_to(text, "a mapping from region to name")
_REGION_NUMBER: Final = mapping_to(_SCALE, "a mapping from region to a positive number")
_PAIR: Final = list_of(_POSITIVE, "width and height in inches, two positive numbers", length=2)


def _is_encoder(value: Any) -> bool:
    """Return whether a value is a name or a torch module, without importing torch."""
    return isinstance(value, str) or (hasattr(value, "state_dict") and not isinstance(value, type))


PRECISIONS: Final = (
    *("32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16", "bf16-true", "16-true", "64-true", "64"),
    *("transformer-engine", "transformer-engine-float16"),
)
"""What Lightning Fabric computes in."""

PREDICTION: Final = (text | Check("an AnnData", lambda value: hasattr(value, "obs_names"))).called(
    "'layer:NAME', 'table:NAME', or an AnnData of the predicted spots"
)

ARGUMENTS: Final[Mapping[str, Check]] = {
    "allow_download": flag,
    "allow_outside": flag,
    "apply_icc": flag,
    "bin_size": _POSITIVE,
    "by": text,
    "cells_key": text,
    "check_image": flag,
    "checkpoint": path,
    "clip": _POSITIVE_OR_INFINITE,
    "context": numbers,
    "coordinate_system": text,
    "counts_layer": text,
    "data_range": _POSITIVE,
    "dense_features": flag,
    "diameter_um": _LENGTH,
    "difference": flag,
    "doi": text,
    "downsample": number(least=1),
    "dpi": _POSITIVE,
    "encoder_layer": LAYERS,
    "encoder_weights": path,
    "exclude": choice("section", "spot", "none"),
    "factor": _COUNT,
    "figsize": _PAIR,
    "flavor": _FLAVOR,
    "gene_symbols": text,
    "gene_flavor": _FLAVOR,
    "genes": texts.called("a gene, or a list of at least one gene"),
    "groups": text,
    "image_alpha": share,
    "image_encoder": Check("the name of an image encoder, or a torch module", _is_encoder, bool),
    "image_key": text | _REGION_TEXT,
    "input_size": _COUNT | choice("patch").called("'patch'"),
    "interval": number(above=0, below=1),
    "key_added": new_name,
    "layer": text,
    "least_tissue": share,
    "level": number(above=0, below=1),
    "library_id": labels,
    "library_key": text,
    "margin": number(least=0),
    "method": text,
    "min_score": number(least=-1, most=1),
    "n_bins": whole(2),
    "n_boot": whole(0),
    "n_clusters": _COUNT,
    "n_components": _COUNT,
    "n_folds": whole(2),
    "n_jobs": (whole() | choice(-1)).called("a positive whole number, or -1 for one process a core"),
    "n_neighbors": _COUNT,
    "n_patients": _COUNT,
    "n_sections": _COUNT,
    "n_splits": _COUNT,
    "n_spots": _COUNT,
    "n_top_genes": _COUNT,
    "min_quality": share,
    "name": text,
    "new_table_key": new_name,
    "nuclei": flag,
    "cell_types": flag,
    "object_type": choice("detection", "annotation"),
    "overwrite": flag,
    "out": path,
    "patch_size": _COUNT,
    "patch_um": _LENGTH,
    "path": path,
    "patient_key": text,
    "pitch_um": _LENGTH,
    "predictions": mapping("a mapping from method to its prediction"),
    "private": flag,
    "radius": _POSITIVE,
    "references": texts,
    "repeats": _COUNT,
    "repository": text,
    "resolution": _POSITIVE,
    "revision": text,
    "sections": texts,
    "samples": list_of(text, "a list of names"),
    "seed": seed,
    "seeds": _COUNT,
    "shapes_key": texts,
    "show_image": flag,
    "show_measured": flag,
    "slide": path,
    "size": _POSITIVE,
    "sizes": list_of(number(), "a list of numbers"),
    "smooth": share,
    "spatial_key": text,
    "spot": text,
    "spotwise": mapping("a mapping from argument to values, one for each spot"),
    "spot_diameter": _POSITIVE,
    "table_key": text,
    "target_sum": _POSITIVE,
    "theta": _POSITIVE_OR_INFINITE,
    "threshold": number(),
    "tile_key": text,
    "um_per_px": _SCALE | _REGION_NUMBER,
    "uncertainty": flag,
    "validation": number(least=0, below=1),
    "verify": flag,
    "vmax": number(),
    "vmin": number(),
    "weights": path,
    "width_um": number(above=0, most=10_000),
    "workers": _COUNT,
    "write_image": flag,
}
"""Argument -> what it may be, in every public function that has one of that name; None only where it is the default."""

OPTIONS: Final[Mapping[str, Check]] = {
    **dict.fromkeys(("batch_size", "bottleneck", "embedding_dim", "k", "max_epochs", "n_blocks", "n_heads"), _COUNT),
    **dict.fromkeys(("n_components", "n_models", "n_positions", "num_nodes", "patience", "width"), _COUNT),
    "dropout": number(least=0, below=1),
    "devices": (_COUNT | text).called("a number of devices, at least 1, or 'auto'"),
    "learning_rate": _POSITIVE,
    "precision": choice(*PRECISIONS),
    "ridge_weight": number(above=0, below=1).called("between 0 and 1, without these"),
    "stain_jitter": number(least=0).called("a finite number and not be negative"),
    "temperature": _POSITIVE,
    "weight_decay": number(least=0),
}
"""Option of a method -> what it may be; the type of an option that is not named here is that of its annotation."""


def checked(**own: Check) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Return a decorator that checks the arguments of a public function before it is entered.

    Parameters
    ----------
    **own
        Argument -> what it may be, where that is not what `ARGUMENTS` says, or where that says nothing.

    Raises
    ------
    TypeError, ValueError
        On a call: an argument is of a wrong type, or has a wrong value.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        parameters = inspect.signature(function).parameters
        names = tuple(parameters)
        checks = {name: check for name, check in {**ARGUMENTS, **own}.items() if name in parameters}

        @wraps(function)
        def checking(*args: Any, **kwargs: Any) -> Result:
            if len(args) > 1 and names[0] == "sdata":
                _check_order(function.__name__, args)
            for name, value in {**dict(zip(names, args, strict=False)), **kwargs}.items():
                if name in checks:
                    _check_parameter(value, checks[name], parameters[name])
            return function(*args, **kwargs)

        checking.checks = checks  # type: ignore[attr-defined]
        return checking

    return decorate


def _check_order(function: str, args: tuple[Any, ...]) -> None:
    """Raise TypeError where the SpatialData stands behind another argument."""
    if any(type(value).__name__ == "SpatialData" for value in args[1:]) and type(args[0]).__name__ != "SpatialData":
        msg = f"The SpatialData comes first in {function}(sdata, …), found {shown(args[0])} before it. Swap them."
        raise TypeError(msg)


def _check_parameter(value: Any, condition: Check, parameter: inspect.Parameter) -> None:
    """Check an argument; None is taken where the signature says so."""
    if value is not None or not (parameter.default is None or "None" in str(parameter.annotation)):
        check(value, condition, name=parameter.name, default=parameter.default)


def check(value: Any, condition: Check, *, name: str, default: Any = inspect.Parameter.empty) -> None:
    """Raise the error of a condition, with what to do next, unless it takes the value."""
    fault = condition.fault(value, name)
    if fault is not None:
        msg = f"{fault} {_next_step(value, name, default)}"
        raise type(fault)(msg)


def _next_step(value: Any, name: str, default: Any) -> str:
    if isinstance(value, str) and (meant := _MEANT.get(value.strip().lower(), _as_number(value))) is not None:
        return f"If the value {meant} is meant, pass {name}={meant} without quotation marks."
    if default is inspect.Parameter.empty:
        return f"Pass another {name}=…"
    if isinstance(default, str | int | float | bool | None):
        return f"Leave it out for the default, {default!r}, or pass another {name}=…"
    return f"Leave it out for the default, or pass another {name}=…"


_WORDS: Final[Mapping[str, Any]] = {"true": True, "false": False, "none": None, "null": None}
_MEANT: Final = {word: str(value) for word, value in _WORDS.items()}


def _as_number(value: str) -> str | None:
    try:
        float(value)
    except ValueError:
        return None
    return value.strip()


def read_value(written: str) -> Any:
    """Return what a value on the command line means: True, False, None or a number where it reads as one, else text."""
    word = written.strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    try:
        return json.loads(written)
    except json.JSONDecodeError:
        return written


def check_arguments(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Check arguments for a function that `checked` decorates without calling it, and return those it does not name."""
    parameters, checks = inspect.signature(function).parameters, function.checks  # type: ignore[attr-defined]
    for name, value in values.items():
        if name in checks:
            _check_parameter(value, checks[name], parameters[name])
    named = {name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
    return {name: value for name, value in values.items() if name not in named}


def check_fields(cls: type, values: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError for an option that is not of the type of its field, or beyond its bounds.

    Parameters
    ----------
    cls
        A dataclass whose fields are annotated with truth values, numbers, text, `Literal`, mappings, lists, or unions
        of these; other annotations are not checked. `OPTIONS` gives the bounds.
    values
        Values of some of its fields.
    """
    conditions = _conditions(cls)
    for field in fields(cls):
        if field.name in conditions and field.name in values:
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            check(values[field.name], conditions[field.name], name=field.name, default=default)


@cache
def _conditions(cls: type) -> dict[str, Check]:
    try:
        hints = get_type_hints(cls)
    except NameError:  # annotations of somebody else's method that exist for type checkers alone
        hints = {}
    found = {name: OPTIONS.get(name) or _of_annotation(hint) for name, hint in hints.items()}
    return {name: condition for name, condition in found.items() if condition is not None}


def _of_annotation(hint: Any) -> Check | None:
    """Return the check for an annotation, None for one that is not known."""
    simple = {bool: flag, int: whole(-(2**63)).called("a whole number"), float: number(), str: text}
    if hint in simple:
        return simple[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return choice(*arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return mapping("a mapping")
    if origin in (Union, types.UnionType):
        members = [_of_annotation(one) for one in arguments if one is not type(None)]
        if None in members:
            return None
        condition = members[0]
        for other in members[1:]:
            condition = condition | other  # type: ignore[operator]
        return condition if type(None) not in arguments else _or_none(condition)  # type: ignore[arg-type]
    if isinstance(origin, type) and issubclass(origin, tuple | list):
        return Check("a list", is_list)
    return None


def _or_none(condition: Check) -> Check:
    none = Check("None", lambda value: value is None)
    if condition.expected.startswith("one of"):
        choices = getattr(condition, "choices", ())
        return choice(*choices, None)
    return condition | none
