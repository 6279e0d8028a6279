"""A model as a folder: safetensors and JSON, no pickle, checked on load."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sthisto import __version__
from sthisto._images.patches import PatchSpec
from sthisto._utils.digest import digest_names
from sthisto._utils.validate import check_choice
from sthisto.models.base import ExpressionModel
from sthisto.models.data import TrainingSpots
from sthisto.models.encoders.encoder import RANDOM, Encoder, load_encoder
from sthisto.models.encoders.given import PREFIX, GivenFeatures
from sthisto.models.training.loop import seeded

CONFIG, MODEL, BANK = "config.json", "model.safetensors", "bank.safetensors"
_FORMAT = 1
SIBLINGS = "training.siblings"


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raise FileExistsError unless a bundle may be written to `path`: only another bundle is ever replaced."""
    if not path.exists():
        return
    if not (path / CONFIG).is_file() and not (path.is_dir() and not any(path.iterdir())):
        msg = f"{path} exists and is no saved model, so it is not replaced. Choose another path."
        raise FileExistsError(msg)
    if not overwrite:
        msg = f"{path} exists. Pass overwrite=True to replace it."
        raise FileExistsError(msg)


def save(model: ExpressionModel, path: Path, *, overwrite: bool) -> None:
    """Write the bundle beside `path` and move it there when it is whole; what was there is removed last."""
    if not model.is_fitted:
        msg = f"This {model.method!r} model is not fitted, so there is nothing to save. Call fit first."
        raise RuntimeError(msg)
    check_target(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        whole, replaced = Path(folder) / "bundle", Path(folder) / "replaced"
        whole.mkdir()
        genes = {"genes": digest_names(model.genes)}
        seen = {
            "training.fingerprint": torch.from_numpy(model.training_spots.fingerprint.view(np.int64)),
            "training.section": torch.from_numpy(model.training_spots.section),
            SIBLINGS: torch.from_numpy(model.siblings),
        }
        save_file(model.state() | seen, whole / MODEL, metadata=genes)
        save_file(model.bank_state(), whole / BANK, metadata=genes)
        (whole / CONFIG).write_text(json.dumps(_config(model), indent=1, default=_plain))
        if path.exists():
            path.rename(replaced)
        try:
            whole.rename(path)
        except BaseException:
            if replaced.exists():
                replaced.rename(path)
            raise


def load(
    path: Path, methods: Mapping[str, type[ExpressionModel]], image_encoder: str | nn.Module | None
) -> ExpressionModel:
    """Read a bundle and check that its parts belong together."""
    if not (path / CONFIG).is_file():
        msg = f"{path} is no saved model: it has no {CONFIG}."
        raise FileNotFoundError(msg)
    for file in (MODEL, BANK):
        if not (path / file).is_file():
            msg = f"{path} is no whole model: it has no {file}."
            raise FileNotFoundError(msg)
    config = json.loads((path / CONFIG).read_text())
    if config["format"] > _FORMAT:
        msg = f"{path} was written by sthisto {config['version']}, which is newer than this one. Upgrade sthisto."
        raise ValueError(msg)
    check_choice(config["method"], methods, name=f"method in {path / CONFIG}")
    cls = methods[config["method"]]
    state = _read(path / MODEL, config["genes"])
    with seeded(0):
        encoder = _encoder(config["encoder"], image_encoder) if config["encoder"] else None
    model = cls(
        config["genes"],
        patch=PatchSpec(**config["patch"] | {"context": tuple(config["patch"]["context"])}),
        options=cls.make_options(config["options"]),
        encoder=encoder,
        normalization=config["normalization"],
    )
    model.training_sections = tuple(config["training_sections"])
    model.genes_rule = config.get("genes_rule", "")
    model.depth_knots = tuple(config.get("depth_knots", ()))
    model.history = pd.DataFrame(config["history"], columns=["epoch", "train_loss", "val_loss"]).astype(
        {"epoch": int, "train_loss": float, "val_loss": float}
    )
    model.siblings = state.pop(SIBLINGS, torch.zeros(len(model.genes), 0)).numpy()
    fingerprint = state.pop("training.fingerprint").numpy().view(np.uint64)
    model.training_spots = TrainingSpots(fingerprint, state.pop("training.section").numpy())
    with seeded(0):
        model.load_state(state)
    model.load_bank_state(_read(path / BANK, config["genes"]))
    model.is_fitted = True
    return model


def _plain(value: Any) -> Any:
    """Return the number that a numpy scalar holds, which JSON does not know."""
    if isinstance(value, np.generic):
        return value.item()
    msg = f"A model with an option of the type {type(value).__name__} cannot be saved: {value!r}."
    raise TypeError(msg)


def _config(model: ExpressionModel) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": __version__,
        "method": model.method,
        "options": model.parameters,
        "genes": list(model.genes),
        "patch": asdict(model.patch),
        "normalization": model.normalization,
        "genes_rule": model.genes_rule,
        "depth_knots": list(model.depth_knots),
        "encoder": encoder_record(model) if model.uses_encoder else None,
        "training_sections": list(model.training_sections),
        "history": model.history.astype(object).where(model.history.notna(), None).values.tolist(),
    }


def encoder_record(model: ExpressionModel) -> dict[str, Any]:
    """Return what is needed to load the encoder again, and to see that it is the same one.

    The weights of a fine-tuned encoder are part of the model's own: it is made anew without loading any.
    """
    encoder = model.encoder
    finetuned = model.trains_encoder(model.options)
    return {
        "name": encoder.name,
        "weights": RANDOM if finetuned else encoder.weights,
        "input_size": encoder.input_size,
        "layers": list(encoder.layers),
        "digest": "" if finetuned else encoder.digest(),
    }


def _encoder(record: dict[str, Any], given: str | nn.Module | None) -> Encoder:
    if given is None and record["name"].startswith("module:"):
        msg = (
            f"The model was fitted with an image encoder of your own ({record['name']}). Pass it to load as "
            "image_encoder=…"
        )
        raise ValueError(msg)
    if given is None and record["name"].startswith(PREFIX):
        return GivenFeatures.from_record(record["weights"])
    encoder = load_encoder(
        given if given is not None else record["name"],
        weights=record["weights"] or None if given is None else None,
        input_size=record["input_size"] or "patch",
        layer=record.get("layers") or None,
    )
    if record["digest"] and encoder.digest() != record["digest"]:
        msg = (
            f"The weights of the image encoder {encoder.name!r} are not those that the model was fitted with "
            f"({record['name']!r}). Pass those as image_encoder=…"
        )
        raise ValueError(msg)
    return encoder


def _read(file: Path, genes: list[str]) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as stored:
            if (stored.metadata() or {}).get("genes") != digest_names(genes):
                msg = f"{file} belongs to another list of genes, or to another order of them, than {CONFIG} beside it."
                raise ValueError(msg)
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  it is no mapping
    except SafetensorError as error:
        msg = f"{file} is damaged: {error}. Save the model again."
        raise ValueError(msg) from error
