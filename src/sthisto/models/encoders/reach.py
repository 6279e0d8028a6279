"""How far around a cell of a feature map a network sees: what tiles must overlap by."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, lcm
from typing import Any

import torch
from torch import Tensor

from sthisto._utils.validate import listed
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.encoders.layers import LayerMeans

_PROBES = (256, 512, 1024)


@dataclass(frozen=True)
class Reach:
    """What a network needs around the pixels whose maps are wanted.

    Attributes
    ----------
    margin
        Pixels on each side, a multiple of `stride`.
    stride
        Multiple of pixels at which a piece of an image must begin for its cells to be those of the whole image.
    """

    margin: int
    stride: int


def reach(encoder: Encoder) -> Reach | None:
    """Return how far the maps of an encoder's layers see, from the gradient of a cell by the pixels.

    Returns
    -------
    None where no tile can stand for the image: the encoder gives out no maps, or a cell depends on pixels of the whole
    patch, as with attention, squeeze and excitation, norms over space, or so far into a network that a cell sees more
    than a thousand pixels.
    """
    if not isinstance(encoder.module, LayerMeans):
        return None
    stride = lcm(*(layer.reduction for layer in encoder.module.layers))
    was_training = encoder.training
    encoder.eval()
    try:
        for probe in (ceil(size / stride) * stride for size in _PROBES):
            if not _covers(encoder, probe):
                return None
            margin = _margin(encoder, probe)
            if margin is not None:
                return Reach(ceil(margin / stride) * stride, stride)
    finally:
        encoder.train(was_training)
    return None


def known_reach(encoder: Encoder) -> Reach:
    """Return what `reach` does; raise ValueError, saying why, where it finds None."""
    found = reach(encoder)
    if found is not None:
        return found
    if not encoder.layers:
        msg = (
            f"dense_features=True needs feature maps, and image encoder {encoder.name!r} gives one vector for a patch. "
            "Choose a map with encoder_layer=…"
        )
        raise ValueError(msg)
    msg = (
        f"dense_features=True needs a layer that looks nearby; a cell of {listed(encoder.layers)} of image "
        f"encoder {encoder.name!r} depends on the whole patch, or on more than {_PROBES[-1]} px of it. Choose an "
        "earlier layer or a convolutional encoder."
    )
    raise ValueError(msg)


def _covers(encoder: Encoder, probe: int) -> bool:
    """Return whether the network takes images of any size and its maps cover them from border to border."""
    module: Any = encoder.module
    if getattr(module.body, "pretrained_cfg", {}).get("fixed_input_size"):
        return False
    with torch.inference_mode():
        maps = encoder.maps(torch.zeros(1, probe, probe, 3, dtype=torch.uint8, device=encoder.device))
    return [found.shape[2:] for found in maps] == [(probe // layer.reduction,) * 2 for layer in module.layers]


def _margin(encoder: Encoder, probe: int) -> int | None:
    """Return the pixels that any layer's cell sees beyond its own; None where it sees up to the border of the probe."""
    module: Any = encoder.module
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, probe, probe, generator=generator).to(encoder.device, encoder.dtype).requires_grad_()
    with torch.enable_grad():
        maps = module.maps(pixels)
        margins = []
        for layer, found in zip(module.layers, maps, strict=True):
            cell = probe // layer.reduction // 2
            weights = torch.randn(found.shape[1], generator=generator).to(found)
            (slope,) = torch.autograd.grad(found[0, :, cell, cell] @ weights, pixels, retain_graph=True)
            seen = _seen(slope)
            if seen[0] == 0 or seen[1] == probe:
                return None
            margins.append(max(cell * layer.reduction - seen[0], seen[1] - (cell + 1) * layer.reduction))
    return max(0, *margins)


def _seen(slope: Tensor) -> tuple[int, int]:
    """Return the first and the last but one row or column of (1, 3, height, width) that is not 0."""
    touched = (slope[0] != 0).any(dim=0)
    either = touched.any(dim=0) | touched.any(dim=1)
    positions = torch.nonzero(either).ravel()
    return int(positions[0]), int(positions[-1]) + 1
