"""Early and middle feature maps of timm encoders, averaged over the patch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sthisto.models.encoders.pathology import ClassAndPatches

LayerArgument: TypeAlias = int | str | Sequence[int | str] | None


@dataclass(frozen=True)
class EncoderLayer:
    """A layer whose feature map timm gives out.

    Attributes
    ----------
    index
        Its position among them, timm's ``out_indices``.
    name
        Its module, such as "blocks.2".
    n_channels
        Channels of the map.
    reduction
        Patch px per px of the map.
    """

    index: int
    name: str
    n_channels: int
    reduction: int

    def __str__(self) -> str:
        """Return how messages list the layer."""
        return f"{self.index} = {self.name!r} ({self.n_channels} channels, 1/{self.reduction} of the width)"


class LayerMeans(nn.Module):
    """The spatial means of feature maps of a timm module, concatenated; what comes after the last map is removed.

    Parameters
    ----------
    module
        A timm model. It is left as it is.
    layers
        Some of `available_layers(module)`, from the first to the last.
    """

    def __init__(self, module: nn.Module, layers: Sequence[EncoderLayer]) -> None:
        super().__init__()
        self.layers = tuple(layers)
        body: Any = deepcopy(_unwrapped(module))
        body.prune_intermediate_layers(self._indices, prune_norm=True, prune_head=True)
        self.body = body

    @property
    def _indices(self) -> list[int]:
        return [layer.index for layer in self.layers]

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Return the feature map of each layer, (batch, n_channels, height, width), of (batch, 3, height, width)."""
        found: list[Tensor] = self.body.forward_intermediates(
            pixels, indices=self._indices, output_fmt="NCHW", intermediates_only=True
        )
        return found

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode (batch, 3, height, width) as (batch, sum of n_channels)."""
        return torch.cat([values.mean(dim=(2, 3)) for values in self.maps(pixels)], dim=1)

    def extra_repr(self) -> str:
        """Name the layers: this is part of the encoder's digest."""
        return f"layers={tuple(layer.name for layer in self.layers)}"


def available_layers(module: nn.Module) -> tuple[EncoderLayer, ...]:
    """Return the layers whose maps timm gives out, from the first to the last; () where `module` is no timm model."""
    inner: Any = _unwrapped(module)
    if not hasattr(inner, "forward_intermediates") or not hasattr(inner, "prune_intermediate_layers"):
        return ()
    infos = getattr(inner.feature_info, "info", inner.feature_info)
    return tuple(
        EncoderLayer(index, info["module"], int(info["num_chs"]), int(info["reduction"]))
        for index, info in enumerate(infos)
    )


def find_layers(module: nn.Module, wanted: LayerArgument, *, encoder: str) -> tuple[EncoderLayer, ...]:
    """Return the layers of a timm module that `wanted` names, from the first to the last.

    Parameters
    ----------
    wanted
        Positions (negative ones count from the last) or names, one or several.
    encoder
        How messages name the module.

    Raises
    ------
    ValueError
        There is no such layer, one is named twice, none is named, or timm gives out no maps of the module.
    TypeError
        `wanted` is of another type.
    """
    layers = available_layers(module)
    if not layers:
        msg = (
            f"Image encoder {encoder!r} is no timm model that gives out feature maps, so it has no encoder_layer. Pass "
            "the name of a timm model, or a module that returns the features of the layer."
        )
        raise ValueError(msg)
    several = wanted if isinstance(wanted, Iterable) and not isinstance(wanted, str) else [wanted]
    chosen = [_find(layers, one, encoder) for one in several]
    if not chosen or len(set(chosen)) < len(chosen):
        msg = f"`encoder_layer` is {wanted!r}; expected one or several different layers. {_listed(layers, encoder)}"
        raise ValueError(msg)
    return tuple(sorted(chosen, key=lambda layer: layer.index))


def _find(layers: Sequence[EncoderLayer], wanted: Any, encoder: str) -> EncoderLayer:
    if isinstance(wanted, str):
        found = [layer for layer in layers if layer.name == wanted]
    elif hasattr(wanted, "__index__") and not isinstance(wanted, bool):
        position = int(wanted) + len(layers) * (int(wanted) < 0)
        found = [layer for layer in layers if layer.index == position]
    else:
        msg = f"`encoder_layer` is {wanted!r}; expected numbers or names of layers. {_listed(layers, encoder)}"
        raise TypeError(msg)
    if not found:
        msg = f"Image encoder {encoder!r} has no layer {wanted!r}. {_listed(layers, encoder)}"
        raise ValueError(msg)
    return found[0]


def _listed(layers: Sequence[EncoderLayer], encoder: str) -> str:
    return f"The layers of {encoder!r}: {'; '.join(map(str, layers))}. None is the pooled output of the last."


def _unwrapped(module: nn.Module) -> nn.Module:
    return module.module if isinstance(module, ClassAndPatches) else module
