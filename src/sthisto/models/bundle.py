"""A model as a folder: safetensors and JSON, no pickle, checked on load."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sthisto import __version__
from sthisto._images.patches import PatchSpec
from sthisto._utils.atomic import atomic_folder, recover
from sthisto._utils.digest import digest_arrays, digest_names
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_choice
from sthisto.models.base import ExpressionModel
from sthisto.models.bundle_config import FORMAT, check_config, with_names_of_today
from sthisto.models.bundle_encoder import encoder_record, load_recorded
from sthisto.models.bundle_tensors import (
    CALIBRATION,
    FAMILIARITY,
    FINGERPRINT,
    NO_LONGER_READ,
    PROJECTION,
    PROJECTION_MEAN,
    SECTION,
    SIBLINGS,
    check_axes,
    check_finite,
    check_same,
    check_sizes,
    check_training,
    read_tensors,
)
from sthisto.models.card import FILE as CARD
from sthisto.models.card import model_card
from sthisto.models.conformal import CALIBRATION_AXES, Calibration
from sthisto.models.data import TrainingSpots
from sthisto.models.familiarity import Familiarity, familiarity_axes
from sthisto.models.low_rank import check_components
from sthisto.models.manifest import CONFIG, ModelFolder, add_files, write_manifest
from sthisto.models.passport import FILE as PASSPORT
from sthisto.models.passport import passport_file, read_passport
from sthisto.models.torch_state import seeded

MODEL: Final = "model.safetensors"
BANK: Final = "bank.safetensors"
_DECIDES: Final = (
    *("method", "options", "genes", "patch", "normalization", "encoder", "training_sections", "depth_knots"),
    "confidence_groups",
)
"""Entries of the configuration that predictions, their scores or their confidence follow from."""
Part = TypeVar("Part")


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
    """Write the bundle beside `path` and move it there when it is complete."""
    if not model.is_fitted:
        msg = f"This {model.method!r} model is not fitted, so there is nothing to save. Call fit first."
        raise RuntimeError(msg)
    check_target(path, overwrite=overwrite)
    bank, state = model.bank_state(), _state(model)
    for tensors in (state, bank):
        check_finite(tensors, f"This {model.method!r} model cannot be saved", "Fit it again, with other options.")
    config = _config(model)
    config["fit"] = _fit(config, state, bank)
    metadata = {"genes": digest_names(model.genes), "fit": config["fit"]}
    with atomic_folder(path, overwrite=overwrite) as folder:
        save_file(state, folder / MODEL, metadata=metadata)
        save_file(bank, folder / BANK, metadata=metadata)
        text = json.dumps(config, indent=1, default=_plain, allow_nan=False)
        (folder / CONFIG).write_text(text, encoding="utf-8")
        for name, content in _told(model, config["fit"]).items():
            (folder / name).write_bytes(content)
        write_manifest(folder)
    model.path = path.absolute()


def save_passport(model: ExpressionModel) -> bool:
    """Put the passport and the new model card into the folder that a model was saved to or loaded from.

    Returns
    -------
    Whether there was such a folder. If the folder is gone, or holds another model by now, a warning is logged.
    """
    if model.path is None:
        return False
    fit = _fit(_config(model), _state(model), model.bank_state())
    try:
        stored = ModelFolder(model.path).json(CONFIG).get("fit")
    except FileNotFoundError:
        stored = None
    if stored != fit:
        logger.warning(
            "%s does not hold this model any more, or was saved by sthisto 0.1: the passport is in memory only. Call "
            "model.save(…) to keep it.",
            model.path,
        )
        return False
    add_files(model.path, _told(model, fit))
    return True


def _state(model: ExpressionModel) -> dict[str, Tensor]:
    """Return what a model has learned, its training spots, and what its scores, confidence and intervals need."""
    state = model.state() | {
        FINGERPRINT: torch.from_numpy(model.training_spots.fingerprint.view(np.int64)),
        SECTION: torch.from_numpy(model.training_spots.section),
        SIBLINGS: torch.from_numpy(model.siblings),
    }
    for prefix, part in ((FAMILIARITY, model.familiarity), (CALIBRATION, model.calibration)):
        state |= {} if part is None else {f"{prefix}{name}": values for name, values in part.state().items()}
    if model.is_projected:
        state[PROJECTION] = torch.from_numpy(model.projection)
        state[PROJECTION_MEAN] = torch.from_numpy(model.projection_mean)
    return state


def _told(model: ExpressionModel, fit: str) -> dict[str, bytes]:
    """Return the files of a model that no prediction needs: the model card, and the passport where there is one."""
    files = {CARD: model_card(model).encode()}
    if model.passport is not None:
        files[PASSPORT] = passport_file(model.passport, fit=fit)
    return files


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
    state, bank = (read_tensors(folder.file(name), config) for name in (MODEL, BANK))
    is_whole = not verify or folder.listed is None or _fit(config, state, bank) == config["fit"]
    state = _with_names_of_today(state)
    bank = {name: values for name, values in bank.items() if not name.endswith(NO_LONGER_READ)}
    model = _unfitted(folder, config, methods, state, image_encoder, allow_download)
    _take(model, state, bank, folder)
    if not is_whole:
        msg = (
            f"{path} was changed: the settings in {CONFIG} and the tensors beside it are not those of the fit "
            f"{config['fit']} that it names. Copy or save the model again; verify=False loads it nevertheless."
        )
        raise ValueError(msg)
    if PASSPORT in folder:
        model.passport = read_passport(folder.file(PASSPORT), model.genes, fit=config.get("fit", ""))
    model.is_fitted = True
    model.path = path.absolute()
    return model


def _unfitted(
    folder: ModelFolder,
    config: dict[str, Any],
    methods: Mapping[str, type[ExpressionModel]],
    state: dict[str, Tensor],
    image_encoder: str | nn.Module | None,
    allow_download: bool,
) -> ExpressionModel:
    """Return the model of a configuration without what it learned; its training spots are taken out of `state`."""
    cls, file = methods[config["method"]], folder.path / CONFIG
    check_training(state, config, folder.path / MODEL)
    check_sizes(config["options"], state, folder.path / MODEL)
    options = _options(cls, config, file)
    model = cls(
        config["genes"],
        patch=PatchSpec(**config["patch"] | {"context": tuple(config["patch"]["context"])}),
        options=options,
        encoder=load_recorded(
            config["encoder"],
            image_encoder,
            file,
            finetuned=cls.trains_encoder(options),
            allow_download=allow_download,
        ),
        normalization=config["normalization"],
    )
    if model.needs_encoder(model.options) and config["encoder"] is None:
        msg = f"{file} is damaged: it names no image encoder, which {model.method!r} needs. Save the model again."
        raise ValueError(msg)
    model.training_sections = tuple(config["training_sections"])
    model.genes_rule = config.get("genes_rule", "")
    model.facts = dict(config.get("facts", {}))
    model.seed = config.get("seed")
    model.depth_knots = tuple(config.get("depth_knots", ()))
    model.history = pd.DataFrame(config["history"], columns=["epoch", "train_loss", "val_loss"]).astype(
        {"epoch": int, "train_loss": float, "val_loss": float}
    )
    _take_components(model, state, folder.path / MODEL)
    model.familiarity = _familiarity(state, config, folder.path / MODEL)
    model.calibration = _calibration(state, len(model.genes), folder.path / MODEL)
    fingerprint = state.pop(FINGERPRINT).numpy().view(np.uint64)
    model.training_spots = TrainingSpots(fingerprint, state.pop(SECTION).numpy())
    return model


def _take_components(model: ExpressionModel, state: dict[str, Tensor], file: Path) -> None:
    """Take the components of the training expression out of `state`; models of 0.1 have none."""
    n_genes = len(model.genes)
    found = {SIBLINGS: state.pop(SIBLINGS, torch.zeros(n_genes, 0))}
    axes: dict[str, tuple[int | str, ...]] = {SIBLINGS: ("genes", "siblings")}
    if model.is_projected:
        found |= {name: state.pop(name) for name in (PROJECTION, PROJECTION_MEAN) if name in state}
        n_components = min(max(check_components(model.options.expression_components)), n_genes)
        axes |= {PROJECTION: ("genes", n_components), PROJECTION_MEAN: ("genes",)}
    check_axes(found, axes, {"genes": n_genes}, file)
    model.siblings = found[SIBLINGS].numpy()
    if model.is_projected:
        model.projection, model.projection_mean = found[PROJECTION].numpy(), found[PROJECTION_MEAN].numpy()


def _familiarity(state: dict[str, Tensor], config: Mapping[str, Any], file: Path) -> Familiarity | None:
    """Return what the confidence follows from, taken out of `state`; None for a model without it, as those of 0.1."""
    found, groups = _taken(state, FAMILIARITY), config.get("confidence_groups", "")
    if not found and not groups:
        return None
    check_axes(found, familiarity_axes(found), {}, file)
    return _made(lambda: Familiarity.from_state(found, groups), file)


def _calibration(state: dict[str, Tensor], n_genes: int, file: Path) -> Calibration | None:
    """Return what intervals follow from, taken out of `state`; None for a model without calibration spots."""
    found = _taken(state, CALIBRATION)
    if not found:
        return None
    check_axes(found, CALIBRATION_AXES, {"genes": n_genes}, file)
    return _made(lambda: Calibration.from_state(found), file)


def _taken(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take the tensors whose names begin with a prefix out of `state`."""
    names = [name for name in state if name.startswith(prefix)]
    return {name.removeprefix(prefix): state.pop(name) for name in names}


def _made(make: Callable[[], Part], file: Path) -> Part:
    """Return what is made from stored values; raise ValueError that names the file if they contradict each other."""
    try:
        return make()
    except ValueError as error:
        msg = f"{file} is damaged: {error}. Save the model again."
        raise ValueError(msg) from error


def _take(model: ExpressionModel, state: dict[str, Tensor], bank: dict[str, Tensor], folder: ModelFolder) -> None:
    """Give a model its tensors; compare them with what the method says, and with what it holds afterwards."""
    sizes = {"genes": len(model.genes), "spots": len(model.training_spots.fingerprint)}
    check_axes(state, model.state_axes(), sizes, folder.path / MODEL)
    check_axes(bank, model.bank_axes(), sizes, folder.path / BANK)
    try:
        with seeded(0):
            model.load_state(state)
        model.load_bank_state(bank)
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        msg = (
            f"{folder.path} is damaged: its tensors are not those of the method {model.method!r} with the options in "
            f"{CONFIG}: {error}. Save the model again."
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
            msg = f"{folder.path} is incomplete: it has no manifest.json. Copy or save the model again."
            raise FileNotFoundError(msg)
        warnings.warn(
            f"{folder.path} was saved by sthisto {config['version']}, which kept no checksums: damage to it goes "
            "unnoticed. Save it again with model.save(path, overwrite=True); 0.1's form is read until 0.3.",
            FutureWarning,
            stacklevel=4,
        )
        config = with_names_of_today(config)
    elif config["format"] < FORMAT:
        msg = f"{file} is damaged: a model with a manifest has format {FORMAT}, found {config['format']}."
        raise ValueError(msg)
    check_choice(config["method"], methods, name=f"method in {file}")
    return config


def _with_names_of_today(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the names that they have today: 0.1 wrote "centre"."""
    return {
        "center".join(name.rsplit("centre", 1)) if name.endswith("centre") else name: values
        for name, values in state.items()
    }


def _options(cls: type[ExpressionModel], config: dict[str, Any], file: Path) -> Any:
    try:
        return cls.make_options(config["options"])
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        msg = f"{file} is damaged: its options are not those of the method {config['method']!r}: {error}"
        raise ValueError(msg) from error


def _plain(value: Any) -> Any:
    """Return the number that a numpy scalar holds, which JSON does not know."""
    if isinstance(value, np.generic):
        return value.item()
    msg = f"A model with an option of the type {type(value).__name__} cannot be saved: {value!r}."
    raise TypeError(msg)


def _fit(config: Mapping[str, Any], state: Mapping[str, Tensor], bank: Mapping[str, Tensor]) -> str:
    """Return what tells one fit from another: a digest of all that a prediction follows from, but for the images.

    It stands in every file, so that parts of two fits, or settings that were changed, are never taken for one.
    """
    settings = json.dumps({name: config.get(name) for name in _DECIDES}, sort_keys=True, default=_plain)
    tensors = dict(state) | {f"bank.{name}": values for name, values in bank.items()}
    return digest_arrays(
        {
            name: values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            for name, values in tensors.items()
        },
        settings,
    )


def _config(model: ExpressionModel) -> dict[str, Any]:
    epochs = model.history.astype(object).values.tolist()
    return {
        "format": FORMAT,
        "version": __version__,
        "method": model.method,
        "options": model.parameters,
        "genes": list(model.genes),
        "patch": asdict(model.patch),
        "normalization": model.normalization,
        "genes_rule": model.genes_rule,
        "facts": model.facts,
        "seed": model.seed,
        "depth_knots": list(model.depth_knots),
        "confidence_groups": "" if model.familiarity is None else model.familiarity.groups,
        "encoder": encoder_record(model) if model.has_encoder else None,
        "training_sections": list(model.training_sections),
        "training_spots": np.bincount(model.training_spots.section, minlength=len(model.training_sections)).tolist(),
        "n_recognized": int(np.count_nonzero(model.training_spots.fingerprint)),
        "history": [[value if math.isfinite(value) else None for value in row] for row in epochs],
    }
