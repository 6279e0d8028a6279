"""DenseNet for inference: the same features as timm's, with its norms folded and its features never copied."""

from __future__ import annotations

import sys
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


def onednn_computes(dtype: torch.dtype) -> bool:
    """Return whether oneDNN has kernels of its own for float32 or bfloat16 on this machine's CPU."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def can_fold(module: nn.Module) -> bool:
    """Return whether `FoldedDenseNet` computes what `module` does: a DenseNet of timm with its usual parts."""
    if "timm.models.densenet" not in sys.modules:  # none of its classes has been made; importing timm takes seconds
        return False
    from timm.layers import BatchNormAct2d
    from timm.models.densenet import DenseNet

    if not isinstance(module, DenseNet):
        return False
    names = [name for name, _ in module.features.named_children()]
    norms = [part for part in module.features.modules() if isinstance(part, nn.BatchNorm2d)]
    pools = [part.pool for name, part in module.features.named_children() if name.startswith("transition")]
    return (
        names[:3] == ["conv0", "norm0", "pool0"]
        and all(isinstance(norm, BatchNormAct2d) and isinstance(norm.act, nn.ReLU) for norm in norms)
        and all(isinstance(pool, nn.AvgPool2d) for pool in pools)
    )


class FoldedDenseNet(nn.Module):
    """A DenseNet in evaluation mode.

    A norm that follows a convolution is folded into its weights. The layers of a block write side by side into one
    channels-last array, instead of concatenating all that came before. Transitions pool before their 1 x 1
    convolution, which gives the same and is a quarter of the work. On the CPU, oneDNN applies the ReLU while it
    writes the convolution.

    Parameters
    ----------
    module
        For which `can_fold` holds. It is left as it is.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        parts = dict(module.features.named_children())
        self.stem = _FoldedConv(parts["conv0"], parts["norm0"])
        self.pool = parts["pool0"]
        self.blocks = nn.ModuleList(_Block(part) for name, part in parts.items() if name.startswith("denseblock"))
        self.transitions = nn.ModuleList(
            _Transition(part) for name, part in parts.items() if name.startswith("transition")
        )
        self.norm = _NormReLU(parts["norm5"])
        self.head = deepcopy(nn.Sequential(module.global_pool, module.classifier))

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode (batch, 3, height, width) as (batch, n_features)."""
        x = self.pool(self.stem(pixels))
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i < len(self.transitions):
                x = self.transitions[i](x)
        features: Tensor = self.head(self.norm(x))
        return features


class _Block(nn.Module):
    def __init__(self, block: Any) -> None:
        super().__init__()
        layers = list(block.values())
        self.norms = nn.ModuleList(_NormReLU(layer.norm1) for layer in layers)
        self.narrow = nn.ModuleList(_FoldedConv(layer.conv1, layer.norm2) for layer in layers)
        self.grow = nn.ModuleList(deepcopy(layer.conv2) for layer in layers)

    def forward(self, x: Tensor) -> Tensor:
        used, width = x.shape[1], sum(conv.out_channels for conv in self.grow)  # type: ignore[misc]
        shape = (x.shape[0], used + width, *x.shape[2:])
        features = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        features[:, :used] = x
        for norm, narrow, grow in zip(self.norms, self.narrow, self.grow, strict=True):
            new = grow(narrow(norm(features[:, :used])))
            features[:, used : used + new.shape[1]] = new
            used += new.shape[1]
        return features


class _Transition(nn.Module):
    def __init__(self, transition: Any) -> None:
        super().__init__()
        self.norm = _NormReLU(transition.norm)
        self.pool, self.conv = transition.pool, deepcopy(transition.conv)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.conv(self.pool(self.norm(x)))
        return mixed


class _NormReLU(nn.Module):
    """Batch norm with its running statistics, and ReLU, as one product and one sum, of (batch, c, height, width)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        scale, shift = _affine(norm)
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("shift", shift.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale).relu_()


class _FoldedConv(nn.Module):
    """Convolution, the batch norm that follows it, and ReLU, of (batch, c, height, width)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: Any, norm: Any) -> None:
        super().__init__()
        scale, shift = _affine(norm)
        weight = (conv.weight.detach() * scale.view(-1, 1, 1, 1)).to(memory_format=torch.channels_last)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", shift if conv.bias is None else shift + scale * conv.bias.detach())
        self.stride, self.padding = list(conv.stride), list(conv.padding)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and onednn_computes(x.dtype):
            fused: Tensor = torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, self.padding, self.stride, [1, 1], 1, "relu", [], ""
            )
            return fused
        return nn.functional.conv2d(x, self.weight, self.bias, self.stride, self.padding).relu_()


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """Return scale and shift, (n_channels,) each, of a batch norm with its running statistics."""
    scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias.detach() - norm.running_mean * scale
