"""Encoders trained on histology that timm cannot build from their name alone, and on what terms they are handed out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn

HUB: Final = ("hf-hub:", "hf_hub:")
_NON_COMMERCIAL = "CC BY-NC-ND 4.0: research that is not commercial, no passing on of models derived from it"


class ClassAndPatches(nn.Module):
    """The class token beside the mean of the patch tokens, without the registers, as Virchow's authors use it."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module
        self.pretrained_cfg = module.pretrained_cfg

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode (batch, 3, height, width) as (batch, 2 * width of a token)."""
        tokens = self.module.forward_features(pixels)
        return torch.cat([tokens[:, 0], tokens[:, self.module.num_prefix_tokens :].mean(dim=1)], dim=1)


@dataclass(frozen=True)
class PathologyEncoder:
    """What it takes to load an encoder, and its license and training slides as its page stated them in 2026.

    Attributes
    ----------
    cohort
        Slides that it was pretrained on. A slide that is among them is not new to the encoder.
    arguments
        Arguments of `timm.create_model` besides the name, without those of `swiglu`.
    swiglu
        Whether its blocks have packed SwiGLU layers.
    wrapper
        Turns the module that timm builds into one that returns (batch, n_features).
    """

    license: str
    cohort: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    swiglu: bool = False
    wrapper: Callable[[nn.Module], nn.Module] | None = None

    def create_arguments(self) -> dict[str, Any]:
        """Return all arguments of `timm.create_model` besides the name."""
        if not self.swiglu:
            return dict(self.arguments)
        from timm.layers import SwiGLUPacked

        return {**self.arguments, "mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}


ENCODERS: Final[Mapping[str, PathologyEncoder]] = MappingProxyType(
    {
        "mahmoodlab/uni": PathologyEncoder(
            _NON_COMMERCIAL,
            "Mass-100K: 100,426 H&E slides of Mass General, Brigham and Women's and GTEx",
            {"init_values": 1e-5, "dynamic_img_size": True},
        ),
        "mahmoodlab/uni2-h": PathologyEncoder(
            _NON_COMMERCIAL,
            "over 350,000 H&E and IHC slides of Mass General Brigham",
            {
                "img_size": 224,
                "patch_size": 14,
                "depth": 24,
                "num_heads": 24,
                "init_values": 1e-5,
                "embed_dim": 1536,
                "mlp_ratio": 2.66667 * 2,
                "no_embed_class": True,
                "reg_tokens": 8,
                "dynamic_img_size": True,
            },
            swiglu=True,
        ),
        "bioptimus/h-optimus-0": PathologyEncoder(
            "Apache 2.0", "over 500,000 H&E slides, not public", {"init_values": 1e-5, "dynamic_img_size": False}
        ),
        "bioptimus/h-optimus-1": PathologyEncoder(
            _NON_COMMERCIAL,
            "over 1 million slides of over 800,000 patients, not public",
            {"init_values": 1e-5, "dynamic_img_size": False},
        ),
        "paige-ai/virchow": PathologyEncoder(
            "Apache 2.0, with guidelines of its own",
            "1.5 million H&E slides of Memorial Sloan Kettering",
            swiglu=True,
            wrapper=ClassAndPatches,
        ),
        "paige-ai/virchow2": PathologyEncoder(
            _NON_COMMERCIAL,
            "3.1 million slides, of Memorial Sloan Kettering and others",
            swiglu=True,
            wrapper=ClassAndPatches,
        ),
        "prov-gigapath/prov-gigapath": PathologyEncoder(
            "Apache 2.0, for research", "Prov-Path: 171,189 slides of Providence"
        ),
    }
)
"""By their id on the Hugging Face hub, in small letters."""


def find(name: str) -> PathologyEncoder | None:
    """Return what is known of the encoder that "hf-hub:owner/model" names, None for any other."""
    prefix = next((prefix for prefix in HUB if name.startswith(prefix)), None)
    return None if prefix is None else ENCODERS.get(name.removeprefix(prefix).partition("@")[0].lower())
