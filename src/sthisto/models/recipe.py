"""How a fitted model was made, as arguments of `tl.fit`: to fit it again, and to write the call into its model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Final

from torch import nn

from sthisto._utils.targets import SET_MEANS
from sthisto.models.base import ExpressionModel
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.encoders.given import PREFIX, GivenFeatures
from sthisto.models.encoders.loading import RANDOM, load_encoder

_OWN_MODULE: Final = "module:"


def recipe(model: ExpressionModel) -> dict[str, Any]:
    """Return the arguments of `tl.fit` that fit the model again, but for its encoder and its seed.

    The genes are those of the model: they are not chosen again. A model of sets of genes or of proportions has no genes
    of its own.
    """
    scale, patch = model.normalization, model.patch
    given = given_features(model)
    arguments: dict[str, Any] = {
        "method": model.method,
        "genes": None if scale.get("targets") else list(model.genes),
        "patch_size": patch.size,
        "patch_um": None if patch.um_per_px is None else patch.size * patch.um_per_px,
        "context": list(patch.context),
        "dense_features": patch.dense,
        "target": None if scale.get("target") == SET_MEANS else scale.get("target"),
        "target_sets": _target_sets(scale),
        "layer": None if scale.get("layer", "X") == "X" else scale["layer"],
    }
    if given is None:
        return arguments | model.parameters
    options = {name: value for name, value in model.parameters.items() if name != "features"}
    return arguments | options | {"features": [f"{PREFIX}{part.key}" for part in given.parts]}


def _target_sets(scale: Mapping[str, Any]) -> dict[str, list[str]] | None:
    """Return set -> its genes, None where a scale has no sets."""
    if scale.get("target") != SET_MEANS:
        return None
    lines = (str(line).split("\t") for line in scale["targets"])
    return {name: genes for name, *genes in lines}


def changed_options(model: ExpressionModel) -> dict[str, Any]:
    """Return the options of a model that differ from the method's defaults."""
    default = {field.name: _default(field) for field in fields(model.options)}
    hidden = () if given_features(model) is None else ("features",)
    return {name: value for name, value in model.parameters.items() if value != default[name] and name not in hidden}


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def given_features(model: ExpressionModel) -> GivenFeatures | None:
    """Return the features that take the place of the model's encoder, None where it has a real one or none."""
    encoder = model.encoder if model.has_encoder else None
    return encoder if isinstance(encoder, GivenFeatures) else None


def untrained_encoder(model: ExpressionModel, image_encoder: str | nn.Module | None = None) -> Encoder | None:
    """Return the image encoder that the model was fitted with, as it was before the fit.

    Parameters
    ----------
    model
        The model. An encoder that it trained is loaded again, by its name.
    image_encoder
        The encoder, where the model trained one that cannot be loaded by its name.

    Returns
    -------
    None for a model without an encoder, or whose features were given.

    Raises
    ------
    ValueError
        The model trained its encoder, and that was a module of the user's own or had local weights.
    """
    if not model.has_encoder or given_features(model) is not None:
        return None
    encoder = model.encoder
    if not model.trains_encoder(model.options):
        return encoder
    if image_encoder is not None:
        return load_encoder(image_encoder, input_size=encoder.input_size or "patch", layer=encoder.layers or None)
    if encoder.name.startswith(_OWN_MODULE) or encoder.weights not in ("", RANDOM):
        msg = (
            f"The model trained its image encoder, {encoder.name!r}, and to fit it again needs it as it was before. "
            "Pass it as image_encoder=…"
        )
        raise ValueError(msg)
    weights = encoder.weights or None
    return load_encoder(
        encoder.name, weights=weights, input_size=encoder.input_size or "patch", layer=encoder.layers or None
    )


def fit_call(model: ExpressionModel) -> str:
    """Return the call of `tl.fit` that made the model, as code.

    `sdata` is defined before it, and so is `genes`, or `target_sets` of a model of sets of genes.
    """
    arguments = recipe(model)
    shown: dict[str, Any] = {"method": arguments["method"], **_encoder_arguments(model)}
    if given_features(model) is not None:
        shown["features"] = arguments["features"]
    shown |= {name: arguments[name] for name in ("target", "layer") if arguments[name] is not None}
    shown |= {name: arguments[name] for name in ("patch_size", "patch_um", "context", "dense_features")}
    shown |= changed_options(model)
    if shown["patch_um"] is None:
        del shown["patch_um"]
    if model.seed is not None:
        shown["seed"] = model.seed
    chosen = [f"    {name}={name}," for name in ("genes", "target_sets") if arguments[name] is not None]
    lines = [f"    {name}={value!r}," for name, value in shown.items()]
    return "\n".join(["sth.tl.fit(", "    sdata,", *chosen, *lines, ")"])


def _encoder_arguments(model: ExpressionModel) -> dict[str, Any]:
    if not model.has_encoder or given_features(model) is not None:
        return {}
    encoder = model.encoder
    arguments: dict[str, Any] = {"image_encoder": encoder.name}
    # A finetuned encoder's own weights are RANDOM once the model was read; no path of local weights is ever shown.
    if encoder.weights not in ("", RANDOM):
        arguments["encoder_weights"] = "…"
    if encoder.layers:
        arguments["encoder_layer"] = list(encoder.layers)
    return arguments
