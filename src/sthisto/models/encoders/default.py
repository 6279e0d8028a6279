"""The image encoder of a fit, and the layer of it, where these are not chosen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from sthisto.models.encoders.encoder import Encoder
from sthisto.models.encoders.layers import LayerArgument, available_layers
from sthisto.models.encoders.loading import load_encoder

if TYPE_CHECKING:
    from sthisto.models.base import ExpressionModel


def encoder_for(
    cls: type[ExpressionModel],
    image_encoder: str | nn.Module | None,
    weights: str | Path | None = None,
    input_size: int | str | None = None,
    layer: LayerArgument = None,
) -> Encoder:
    """Return the image encoder that a method is fitted with.

    Parameters
    ----------
    cls
        The method, whose `default_encoder` and `default_reduction` stand in for what is None.
    image_encoder, weights, input_size, layer
        Arguments of `load_encoder`.
    """
    chosen = cls.default_encoder if image_encoder is None else image_encoder
    encoder = load_encoder(chosen, weights=weights, input_size=input_size, layer=layer)
    if layer is not None or cls.default_reduction is None or encoder.layers:
        return encoder
    layers = available_layers(encoder.module)
    if len({one.reduction for one in layers}) < 2:  # a transformer, or no timm model: its own output
        return encoder
    fitting = [one for one in layers if one.reduction == cls.default_reduction]
    return encoder.at(fitting[-1].index) if fitting else encoder
