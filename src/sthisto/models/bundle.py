"""A model as a folder: safetensors and JSON, no pickle, checked on load."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sthisto import __version__
from sthisto._images.patches import PatchSpec
from sthisto._utils.atomic import atomic_folder, recover
from sthisto._utils.digest import digest_names
from sthisto._utils.validate import check_choice
from sthisto.models.base import ExpressionModel
from sthisto.models.bundle_config import FORMAT, check_config, check_encoder_name, with_names_of_today
from sthisto.models.bundle_tensors import (
    FINGERPRINT,
    SECTION,
    check_axes,
    check_same,
    check_sizes,
    check_training,
    read_tensors,
)
from sthisto.models.encoders.encoder import RANDOM, Encoder, load_encoder
from sthisto.models.manifest import CONFIG, ModelFolder, write_manifest
from sthisto.models.training.loop import seeded

MODEL, BANK = "model.safetensors", "bank.safetensors"
_LOCAL = "local"
"""Stands in the configuration for local weights: where they lay is nobody else's concern."""


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raise FileExistsError unless a bundle may be written to `path`: only another bundle is ever replaced."""
    recover(path)
    if not path.exists():
        return
    if not (path / CONFIG).is_file() and not (path.is_dir() and not any(path.iterdir())):
        msg = f"{path} exists and is no saved model, so it is not replaced. Choose another path."
        raise FileExistsError(msg)
    if not overwrite:
        msg = f"{path} exists. Pass overwrite=True to replace it."
        raise FileExistsError(msg)


def save(model: ExpressionModel, path: Path, *, overwrite: bool) -> None:
    """Write the bundle beside `path` and move it there when it is whole."""
    if not model.is_fitted:
        msg = f"This {model.method!r} model is not fitted, so there is nothing to save. Call fit first."
        raise RuntimeError(msg)
    check_target(path, overwrite=overwrite)
    genes = {"genes": digest_names(model.genes)}
    seen = {
        FINGERPRINT: torch.from_numpy(model._fingerprint.view(np.int64)),
        SECTION: torch.from_numpy(model._section_of),
    }
    with atomic_folder(path, overwrite=overwrite) as folder:
        save_file(model.state() | seen, folder / MODEL, metadata=genes)
        save_file(model.bank_state(), folder / BANK, metadata=genes)
        text = json.dumps(_config(model), indent=1, default=_plain, allow_nan=False)
        (folder / CONFIG).write_text(text, encoding="utf-8")
        write_manifest(folder)


def load(
    path: Path,
    methods: Mapping[str, type[ExpressionModel]],
    image_encoder: str | nn.Module | None,
    *,
    verify: bool = True,
    allow_download: bool = False,
) -> ExpressionModel:
    """Read a bundle and check that it is what was saved."""
    folder = ModelFolder(path, verify=verify)
    config = _read_config(folder, methods)
    cls, file = methods[config["method"]], folder.file(MODEL)
    state = _of_today(read_tensors(file, config["genes"]))
    bank = read_tensors(folder.file(BANK), config["genes"])
    n_spots = check_training(state, len(config["training_sections"]), config.get("n_recognized"), file)
    fingerprint, section = state.pop(FINGERPRINT), state.pop(SECTION)
    check_sizes(config["options"], state, file)
    options = _options(cls, config, folder.path / CONFIG)
    model = cls(
        config["genes"],
        patch=PatchSpec(**config["patch"] | {"context": tuple(config["patch"]["context"])}),
        options=options,
        encoder=_encoder(config["encoder"], options, image_encoder, folder.path / CONFIG, allow_download),
        normalization=config["normalization"],
    )
    _check_encoder_is_there(model, folder.path / CONFIG)
    model.training_sections = tuple(config["training_sections"])
    model.genes_rule = config.get("genes_rule", "")
    model.depth_knots = tuple(config.get("depth_knots", ()))
    model.history = pd.DataFrame(config["history"], columns=["epoch", "train_loss", "val_loss"]).astype(
        {"epoch": int, "train_loss": float, "val_loss": float}
    )
    model._fingerprint, model._section_of = fingerprint.numpy().view(np.uint64), section.numpy()
    sizes = {"genes": len(model.genes), "spots": n_spots}
    _take(model, state, bank, sizes, folder)
    model.is_fitted = True
    return model


def _take(
    model: ExpressionModel,
    state: dict[str, Tensor],
    bank: dict[str, Tensor],
    sizes: dict[str, int],
    folder: ModelFolder,
) -> None:
    """Give a model its tensors, after comparing them with what the method says of them, and before and after."""
    check_axes(state, model.state_axes(), sizes, folder.path / MODEL)
    check_axes(bank, model.bank_axes(), sizes, folder.path / BANK)
    try:
        with seeded(0):
            model.load_state(state)
        model.load_bank_state(bank)
    except (RuntimeError, KeyError, IndexError, TypeError, ValueError) as error:
        msg = (
            f"The tensors of {folder.path} are not those of the method {model.method!r} with the options in {CONFIG}: "
            f"{error}. Save the model again."
        )
        raise ValueError(msg) from error
    check_same(state, model.state(), folder.path / MODEL)
    check_same(bank, model.bank_state(), folder.path / BANK)


def _read_config(folder: ModelFolder, methods: Mapping[str, type[ExpressionModel]]) -> dict[str, Any]:
    """Return the configuration, checked, with the names of today."""
    file = folder.path / CONFIG
    config = folder.json(CONFIG)
    written = config.get("format")
    if isinstance(written, int) and written > FORMAT:
        msg = f"{folder.path} was written by sthisto {config.get('version')}, which is newer than this one. Upgrade it."
        raise ValueError(msg)
    check_config(config, file)
    if folder.listed is None:
        if config["format"] > 1:
            msg = f"{folder.path} is no whole model: it has no manifest.json. Copy or save the model again."
            raise FileNotFoundError(msg)
        warnings.warn(
            f"{folder.path} was saved by sthisto {config['version']}, which kept no checksums: damage to it goes "
            "unnoticed. Save it again with model.save(path, overwrite=True); 0.1's form is read until 0.3.",
            FutureWarning,
            stacklevel=4,
        )
        config = with_names_of_today(config)
    check_choice(config["method"], methods, name=f"method in {file}")
    return config


def _of_today(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the names that they have today: 0.1 wrote "centre"."""
    return {("center".join(name.rsplit("centre", 1)) if name.endswith("centre") else name): v for name, v in state.items()}


def _options(cls: type[ExpressionModel], config: dict[str, Any], file: Path) -> Any:
    try:
        return cls.make_options(config["options"])
    except (TypeError, ValueError) as error:
        msg = f"{file} has options that the method {config['method']!r} does not take: {error}"
        raise ValueError(msg) from error


def _plain(value: Any) -> Any:
    """Return the number that a numpy scalar holds, which JSON does not know."""
    if isinstance(value, np.generic):
        return value.item()
    msg = f"A model with an option of the type {type(value).__name__} cannot be saved: {value!r}."
    raise TypeError(msg)


def _config(model: ExpressionModel) -> dict[str, Any]:
    encoder = model._encoder
    epochs = model.history.astype(object).values.tolist()
    return {
        "format": FORMAT,
        "version": __version__,
        "method": model.method,
        "options": model.parameters,
        "genes": list(model.genes),
        "patch": {"size": model.patch.size, "um_per_px": model.patch.um_per_px, "context": model.patch.context},
        "normalization": model.normalization,
        "genes_rule": model.genes_rule,
        "depth_knots": list(model.depth_knots),
        "encoder": None if encoder is None else encoder_record(model),
        "training_sections": list(model.training_sections),
        "n_recognized": int(np.count_nonzero(model._fingerprint)),
        "history": [[value if math.isfinite(value) else None for value in row] for row in epochs],
    }


def _is_finetuned(options: Any) -> bool:
    return bool(getattr(options, "finetune", False))


def encoder_record(model: ExpressionModel) -> dict[str, Any]:
    """Return what is needed to load the encoder again, and to see that it is the same one.

    The weights of a fine-tuned encoder are part of the model's own: it is made anew without loading any.
    """
    encoder = model.encoder
    finetuned = _is_finetuned(model.options)
    weights = encoder.weights if encoder.weights in ("", RANDOM) else _LOCAL
    return {
        "name": encoder.name,
        "weights": RANDOM if finetuned else weights,
        "input_size": encoder.input_size,
        "digest": "" if finetuned else encoder.digest(),
    }


def _encoder(
    record: dict[str, Any] | None,
    options: Any,
    given: str | nn.Module | None,
    file: Path,
    allow_download: bool,
) -> Encoder | None:
    """Return the encoder that the model was fitted with; where it was not fine-tuned, its digest must be the same."""
    if record is None:
        return None
    finetuned = _is_finetuned(options)
    if not finetuned and not record["digest"]:
        msg = f"{file} is damaged: it has no digest of the image encoder's weights. Save the model again."
        raise ValueError(msg)
    if given is None:
        _check_named(record, file, allow_download)
    with seeded(0):
        encoder = load_encoder(
            given if given is not None else record["name"],
            weights=record["weights"] or None if given is None else None,
            input_size=record["input_size"] or "patch",
        )
    if not finetuned and encoder.digest() != record["digest"]:
        msg = (
            f"The weights of the image encoder {encoder.name!r} are not those that the model was fitted with "
            f"({record['name']!r}). Pass those as image_encoder=…"
        )
        raise ValueError(msg)
    return encoder


def _check_named(record: dict[str, Any], file: Path, allow_download: bool) -> None:
    """Raise ValueError unless the encoder may be loaded by its name alone."""
    if record["name"].startswith("module:"):
        msg = (
            f"The model was fitted with an image encoder of your own ({record['name']}). Pass it to load as "
            "image_encoder=…"
        )
        raise ValueError(msg)
    check_encoder_name(record["name"], file, allow_download=allow_download)
    if record["weights"] not in ("", RANDOM):
        msg = (
            f"The model was fitted with local weights of the image encoder {record['name']!r}, and a saved model opens "
            "no file outside its folder. Pass image_encoder=sth.models.load_encoder(name, weights=path)."
        )
        raise ValueError(msg)


def _check_encoder_is_there(model: ExpressionModel, file: Path) -> None:
    if model.uses_encoder and model._encoder is None:
        msg = f"{file} is damaged: it names no image encoder, which {model.method!r} needs. Save the model again."
        raise ValueError(msg)
