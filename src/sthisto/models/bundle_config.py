"""What `config.json` of a saved model may say: a table of its entries."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from sthisto._utils.deprecate import METHOD_NAMES
from sthisto._utils.targets import SET_MEANS, is_proportions

FORMAT: Final = 2
_LARGEST_PATCH: Final = 4096
_LARGEST_INT: Final = 2**63
_MOST_LAYERS: Final = 1024
_MOST_GENES: Final = 1_000_000
_LONGEST_NAME: Final = 4096
_UNWRITABLE: Final = re.compile("[\0\ud800-\udfff]")
_DIGEST: Final = re.compile(r"[0-9a-f]{32}")
_OPTION_NAMES: Final = {"colours": "colors"}


def check_config(config: Mapping[str, Any], file: Path) -> None:
    """Raise ValueError unless every entry of a configuration is there and of its form.

    Parameters
    ----------
    config
        What the file holds.
    file
        For the message.
    """
    required = _ENTRIES if config.get("format") == 1 else {**_ENTRIES, **_SINCE_FORMAT_2}
    missing = [name for name in required if name not in config]
    if missing:
        msg = f"{file} is damaged: it has no entry {missing[0]!r}. Save the model again."
        raise ValueError(msg)
    for name, (is_valid, expected) in {**_ENTRIES, **_SINCE_FORMAT_2, **_OPTIONAL}.items():
        if name in config and not is_valid(config[name]):
            msg = f"{file} is damaged: {name!r} must be {expected}, found {_short(config[name])}. Save the model again."
            raise ValueError(msg)
    targets = config["normalization"].get("targets")
    if targets is not None and [line.partition("\t")[0] for line in targets] != config["genes"]:
        msg = f"{file} is damaged: 'genes' are not the names of the targets of its scale. Save the model again."
        raise ValueError(msg)


def with_names_of_today(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration of 0.1 with the names that methods and options have today."""
    options = {_OPTION_NAMES.get(name, name): value for name, value in config["options"].items()}
    return config | {"method": METHOD_NAMES.get(config["method"], config["method"]), "options": options}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _is_number(value: Any) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST_INT


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_NAME and not _UNWRITABLE.search(value)


def _is_list_of(is_valid: Callable[[Any], bool], at_least: int, at_most: int) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list) and at_least <= len(value) <= at_most and all(is_valid(entry) for entry in value)
    )


def _are_unique(names: Iterable[str]) -> bool:
    names = list(names)
    return len(set(names)) == len(names)


def _is_genes(value: Any) -> bool:
    return _is_list_of(_is_name, 1, _MOST_GENES)(value) and _are_unique(value)


def _is_options(value: Any) -> bool:
    return isinstance(value, dict) and all(
        entry is None or isinstance(entry, bool | str) or _is_number(entry) or _is_options(entry) or _is_list(entry)
        for entry in value.values()
    )


_is_numbers = _is_list_of(_is_number, 0, _MOST_GENES)
_is_list = _is_list_of(lambda entry: _is_number(entry) or _is_name(entry), 0, _MOST_GENES)


def _is_patch(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) - {"dense"} != {"size", "um_per_px", "context"}:
        return False
    um_per_px, context = value["um_per_px"], value["context"]
    return (
        isinstance(value.get("dense", False), bool)
        and _is_int(value["size"])
        and 0 < value["size"] <= _LARGEST_PATCH
        and (um_per_px is None or (_is_number(um_per_px) and um_per_px > 0))
        and _is_list_of(lambda width: _is_number(width) and width > 0, 1, 64)(context)
    )


def _is_normalization(value: Any) -> bool:
    if not isinstance(value, dict) or not all(_is_name(key) for key in value):
        return False
    if not all(
        entry is None or _is_name(entry) or isinstance(entry, bool) or _is_number(entry)
        for name, entry in value.items()
        if name != "targets"
    ):
        return False
    if not value:
        return True
    return (
        _is_target(value.get("target"), value.get("targets"))
        and isinstance(value.get("layer", ""), str)
        and _is_number(value.get("target_sum", 1.0))
        and value.get("target_sum", 1.0) > 0
    )


def _is_target(target: Any, targets: Any) -> bool:
    """Return whether a scale is known, and names what it has in place of genes."""
    if targets is None:
        return target in ("log1p", "pearson_residuals", "as_is")
    if not _is_list_of(lambda line: isinstance(line, str) and not _UNWRITABLE.search(line), 1, _MOST_GENES)(targets):
        return False
    names, members = zip(*(line.partition("\t")[::2] for line in targets), strict=True)
    if not _is_genes(list(names)):
        return False
    if target == SET_MEANS:
        return all(line and _is_genes(line.split("\t")) for line in members)
    return isinstance(target, str) and is_proportions(target) and not any(members)


def _is_encoder(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or set(value) - {"layers"} != {"name", "weights", "input_size", "digest"}:
        return False
    size, digest, layers = value["input_size"], value["digest"], value.get("layers", [])
    return (
        _is_name(value["name"])
        and _is_name(value["weights"])
        and (size is None or (_is_int(size) and 0 < size <= _LARGEST_PATCH))
        and _is_list_of(_is_name, 0, _MOST_LAYERS)(layers)
        and isinstance(digest, str)
        and (not digest or _DIGEST.fullmatch(digest) is not None)
    )


def _is_facts(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _is_name(name) and (_is_name(fact) or _is_list_of(_is_name, 0, _MOST_GENES)(fact))
        for name, fact in value.items()
    )


def _is_epoch(row: Any) -> bool:
    return (
        isinstance(row, list) and len(row) == 3 and _is_int(row[0]) and all(v is None or _is_number(v) for v in row[1:])
    )


_ENTRIES: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "format": (lambda value: _is_int(value) and value >= 1, "a whole number from 1"),
    "version": (_is_name, "a version"),
    "method": (_is_name, "a method's name"),
    "options": (_is_options, "an object of options"),
    "genes": (_is_genes, "a list of different names"),
    "patch": (_is_patch, "an object with a positive size, um_per_px and context"),
    "normalization": (_is_normalization, "an object with a target, a layer and a positive target_sum"),
    "encoder": (_is_encoder, "null or an object with name, weights, input_size and digest"),
    "training_sections": (_is_list_of(_is_name, 1, _MOST_GENES), "a list of names"),
    "history": (_is_list_of(_is_epoch, 0, _MOST_GENES), "a list of epochs, each a number and two losses"),
}
_SINCE_FORMAT_2: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "genes_rule": (_is_name, "a text"),
    "depth_knots": (_is_numbers, "a list of numbers"),
    "training_spots": (_is_list_of(_is_int, 1, _MOST_GENES), "a list of numbers of spots"),
    "n_recognized": (lambda value: _is_int(value) and value >= 0, "a number of training spots"),
    "fit": (lambda value: isinstance(value, str) and _DIGEST.fullmatch(value) is not None, "a digest"),
}
_OPTIONAL: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "confidence_groups": (
        lambda value: value in ("", "patient", "section", "block"),
        "'patient', 'section' or 'block'",
    ),
    "facts": (_is_facts, "an object of texts and lists of texts"),
    "seed": (lambda value: value is None or (_is_int(value) and value >= 0), "null or a whole number from 0"),
}
