"""The image encoder of a saved model: what is kept of it, and which names lead to it again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from torch import nn

from sthisto.models.base import ExpressionModel
from sthisto.models.encoders import pathology
from sthisto.models.encoders.encoder import TEXTURE, Encoder
from sthisto.models.encoders.given import PREFIX, GivenFeatures
from sthisto.models.encoders.loading import PACKAGED, RANDOM, load_encoder
from sthisto.models.training.loop import seeded

_LOCAL: Final = "local"
_OWN: Final = "module:"
_TIMM_NAME: Final = re.compile(r"\w+(\.\w+)?", re.ASCII)
_HUB_NAME: Final = re.compile(r"hf[-_]hub:[\w-][\w.-]*/[\w-][\w.-]*(@[\w-][\w.-]*)?", re.ASCII)


def encoder_record(model: ExpressionModel) -> dict[str, Any]:
    """Return what is needed to load the encoder again, and to see that it is the same one.

    The weights of a fine-tuned encoder are part of the model's own: it is made anew without loading any. Of local
    weights no path is kept, only that they were local.
    """
    encoder = model.encoder
    finetuned = model.trains_encoder(model.options)
    is_text = encoder.weights in ("", RANDOM) or encoder.name.startswith(PREFIX)  # names and widths of given features
    weights = encoder.weights if is_text else _LOCAL
    return {
        "name": encoder.name,
        "weights": RANDOM if finetuned else weights,
        "input_size": encoder.input_size,
        "layers": list(encoder.layers),
        "digest": "" if finetuned else encoder.digest(),
    }


def load_recorded(
    record: dict[str, Any] | None,
    given: str | nn.Module | None,
    file: Path,
    *,
    finetuned: bool,
    allow_download: bool,
) -> Encoder | None:
    """Return the encoder that the model was fitted with.

    Parameters
    ----------
    record
        What `encoder_record` returned; None for a method without an encoder.
    given
        The encoder that the user passed, if any.
    file
        The configuration, for messages.
    finetuned
        Whether the encoder was trained with the model, whose state then holds its weights.
    allow_download
        Whether any model of the Hugging Face hub may be loaded because the record names it.

    Raises
    ------
    ValueError
        The name is none that a saved model may load, or the encoder's weights are others than those of the fit.
    """
    if record is None:
        return None
    if finetuned == bool(record["digest"]) or (finetuned and record["weights"] != RANDOM):
        msg = f"{file} is damaged: weights or digest of its image encoder are missing or wrong. Save the model again."
        raise ValueError(msg)
    if given is None and record["name"].startswith(PREFIX):
        return _given_features(record, file)
    if given is None:
        _check_record(record, file, allow_download=allow_download)
    try:
        with seeded(0):
            encoder = load_encoder(
                given if given is not None else record["name"],
                weights=record["weights"] or None if given is None else None,
                input_size=record["input_size"] or "patch",
                layer=record.get("layers") or None,
            )
    except (ValueError, TypeError) as error:
        msg = f"The image encoder of {file} could not be loaded: {error}"
        raise ValueError(msg) from error
    if not finetuned and encoder.digest() != record["digest"]:
        msg = (
            f"The weights of the image encoder {encoder.name!r} are not those that the model was fitted with "
            f"({record['name']!r} in {file}). Pass those as image_encoder=…"
        )
        raise ValueError(msg)
    return encoder


def _given_features(record: dict[str, Any], file: Path) -> GivenFeatures:
    """Return the features that were computed elsewhere and take an encoder's place."""
    try:
        found = GivenFeatures.from_record(record["weights"])
    except (ValueError, TypeError) as error:
        msg = f"{file} is damaged: the given features {record['weights'][:80]!r} cannot be read. Save the model again."
        raise ValueError(msg) from error
    if found.name != record["name"] or found.digest() != record["digest"]:
        msg = f"{file} is damaged: the given features are not those named {record['name']!r}. Save the model again."
        raise ValueError(msg)
    return found


def _check_record(record: dict[str, Any], file: Path, *, allow_download: bool) -> None:
    """Raise ValueError unless the encoder may be loaded by its name alone."""
    if record["name"].startswith(_OWN):
        msg = (
            f"The model in {file.parent} was fitted with an image encoder of your own ({record['name']}). Pass it to "
            "load as image_encoder=…"
        )
        raise ValueError(msg)
    _check_name(record["name"], file, allow_download=allow_download)
    if record["weights"] not in ("", RANDOM):
        msg = (
            f"The model in {file.parent} was fitted with local weights of the image encoder {record['name']!r}, and a "
            "saved model opens no file outside its folder. Pass "
            f"image_encoder=sth.models.load_encoder({record['name']!r}, weights=path)."
        )
        raise ValueError(msg)


def _check_name(name: str, file: Path, *, allow_download: bool) -> None:
    """Raise ValueError for the name of an encoder that a saved model may not load by itself.

    Allowed are the packaged encoder, names of timm, and the pathology encoders that are listed; other models of the
    Hugging Face hub only with `allow_download`. No name that leads to a file is ever followed.
    """
    if name in (PACKAGED, TEXTURE) or _is_of_timm(name):
        return
    if not _HUB_NAME.fullmatch(name):
        msg = (
            f"{file} names the image encoder {name[:80]!r}, which is neither a name of timm nor 'hf-hub:owner/model': "
            "a saved model loads nothing else by itself. If you trust it, load the encoder yourself and pass it as "
            "image_encoder=…"
        )
        raise ValueError(msg)
    if pathology.find(name) is None and not allow_download:
        msg = (
            f"{file} names the image encoder {name!r}, a model of the Hugging Face hub that sthisto does not know. If "
            "you trust it, pass allow_download=True, or the encoder itself as image_encoder=…"
        )
        raise ValueError(msg)


def _is_of_timm(name: str) -> bool:
    """Return whether timm has an architecture, and pretrained weights with that tag, of a name."""
    import timm

    if not _TIMM_NAME.fullmatch(name) or not timm.is_model(name):
        return False
    return "." not in name or name in timm.list_pretrained(name.partition(".")[0] + ".*")
