"""Texture in the place of an image encoder: no weights, no network."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from sthisto._images.stains import fit_stains
from sthisto.models.data import Features, SectionInput
from sthisto.models.encoders.encoder import TEXTURE, Encoder
from sthisto.models.encoders.texture import patch_texture
from sthisto.models.encoders.texture_windows import window_texture

_PATCH_PX: Final = 24


class TextureEncoder(Encoder):
    """The encoder that `load_encoder("texture")` returns.

    Texture of a section is measured on the slide, in windows as wide as the patches and with the slide's own stain
    vectors (`of_section`). Called on patches, it takes each for 77 µm of tissue, and their pixels together for the
    slide.
    """

    def __init__(self) -> None:
        super().__init__(_PatchTexture(), name=TEXTURE, mean=(0, 0, 0), std=(1, 1, 1), input_size=_PATCH_PX)

    def of_section(self, section: SectionInput) -> Features:
        """Return texture in windows as wide as the patches of each context, (n_spots, N_TEXTURES n_widths)."""
        widths = [source.extent * source.level.downsample for source in section.patches]
        return Features(np.concatenate(list(window_texture(section, widths)), axis=1), section.fingerprint())


class _PatchTexture(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        """Map (batch, 3, height, width) between 0 and 1 to (batch, N_TEXTURES)."""
        patches = (pixels.permute(0, 2, 3, 1).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        stains = fit_stains(patches.reshape(-1, 3).astype(np.float32) / 255)
        return torch.from_numpy(np.stack([patch_texture(patch, stains) for patch in patches])).to(pixels.device)
