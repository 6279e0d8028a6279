"""An image encoder: pixels in, features out."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sthisto._utils.digest import digest_arrays
from sthisto._utils.validate import listed
from sthisto.models.data import Features, SectionInput
from sthisto.models.encoders.layers import LayerArgument, LayerMeans, find_layers

TEXTURE = "texture"


class Encoder(nn.Module):
    """An image encoder with the normalization that belongs to it.

    Parameters
    ----------
    module
        Takes (batch, 3, height, width) normalized RGB and returns (batch, n_features).
    name
        What the encoder is called in a saved model.
    mean, std
        Mean and standard deviation of the three channels, for pixels between 0 and 1.
    input_size
        Width in px that patches are resized to; None leaves them as they are.
    weights
        Path of local weights, or "random"; "" are the ones that belong to the name.
    """

    mean: Tensor  # (1, 3, 1, 1)
    std: Tensor  # (1, 3, 1, 1)
    reads_pixels: ClassVar[bool] = True
    """Whether features come from pixels, and not from a table."""

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        input_size: int | None = None,
        weights: str = "",
    ) -> None:
        super().__init__()
        self.module = module.to(memory_format=torch.channels_last)
        self.weights = weights
        self.name = name
        self.input_size = input_size
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        """Encode uint8 RGB patches (batch, size, size, 3) as float32 features (batch, n_features)."""
        pixels = patches.permute(0, 3, 1, 2).float()  # channels last in memory, as the patches are
        if self.input_size is not None and pixels.shape[-1] != self.input_size:
            pixels = nn.functional.interpolate(
                pixels, size=(self.input_size, self.input_size), mode="bilinear", antialias=True
            )
        features: Tensor = self.module(self._normalized(pixels))
        if features.ndim != 2:
            msg = (
                f"The image encoder {self.name!r} returned {tuple(features.shape)}; expected (batch, n_features). "
                "Pool its output first."
            )
            raise ValueError(msg)
        return features.float()

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Return the maps of the layers, (batch, n_channels, height, width), of uint8 RGB (batch, height, width, 3).

        The pixels are those that the network sees: they are not resized.
        """
        found: list[Tensor] = self.module.maps(self._normalized(pixels.permute(0, 3, 1, 2).float()))  # type: ignore[operator]
        return found

    def of_section(self, section: SectionInput) -> Features | None:
        """Return the features of a section that need no patches of it; None: its patches are encoded."""
        return None

    def _normalized(self, pixels: Tensor) -> Tensor:
        return torch.addcmul(-self.mean / self.std, pixels, 1 / (255 * self.std)).to(self.dtype)

    @property
    def device(self) -> torch.device:
        """Where the encoder computes."""
        return self.mean.device

    @property
    def dtype(self) -> torch.dtype:
        """What the module computes in."""
        return next((value.dtype for value in self.module.parameters()), torch.float32)

    def around(self, module: nn.Module) -> Encoder:
        """Return an encoder with the same normalization and size around another form of its module."""
        other = Encoder(module, name=self.name, input_size=self.input_size, weights=self.weights)
        other.mean, other.std = self.mean.clone(), self.std.clone()
        return other

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose maps are averaged over the patch; () is the module's own output."""
        return tuple(layer.name for layer in self.module.layers) if isinstance(self.module, LayerMeans) else ()

    def at(self, layer: LayerArgument) -> Encoder:
        """Return an encoder of the maps of one or several layers; None is this encoder.

        Raises
        ------
        ValueError
            The module has no such layer, or this is an encoder of other layers already.
        """
        if layer is None:
            return self
        if not isinstance(self.module, LayerMeans):
            return self.around(LayerMeans(self.module, find_layers(self.module, layer, encoder=self.name)))
        if find_layers(self.module.body, layer, encoder=self.name) != self.module.layers:
            msg = (
                f"Image encoder {self.name!r} was loaded at the layer {listed(self.layers)}, found "
                f"encoder_layer={layer!r}. Load it without a layer, or at the same one."
            )
            raise ValueError(msg)
        return self

    def n_features(self, patch_size: int) -> int:
        """Return the number of features of a patch of `patch_size` px."""
        was_training = self.training
        self.eval()
        with torch.inference_mode():
            blank = torch.zeros(1, patch_size, patch_size, 3, dtype=torch.uint8, device=self.device)
            n_features = int(self(blank).shape[1])
        self.train(was_training)
        return n_features

    def n_widths(self, n_context: int) -> int:
        """Return how many widths give features, of `n_context`: given features have one, whatever was looked at."""
        return n_context if self.reads_pixels else 1

    def digest(self) -> str:
        """Return a digest of what decides the features: weights, architecture as its `repr` tells it, normalization."""
        arrays = {key: _as_numpy(value) for key, value in self.module.state_dict().items()}
        constants = {
            "mean": self.mean.cpu().numpy(),
            "std": self.std.cpu().numpy(),
            "input_size": np.array(self.input_size or 0),
        }
        kind = type(self.module)
        return digest_arrays(arrays | constants, f"{kind.__module__}.{kind.__qualname__}", repr(self.module))


def _as_numpy(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    if value.dtype == torch.bfloat16:  # which numpy does not have
        value = value.view(torch.int16)
    return np.asarray(value.numpy())
