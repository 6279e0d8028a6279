from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import nn

from sthisto.nn import Transformer, TransformerBlock


def second_implementation(block: TransformerBlock, width: int, n_heads: int, mlp_width: int) -> nn.Module:
    """Torch's own layer with the same weights."""
    layer = nn.TransformerEncoderLayer(
        width, n_heads, mlp_width, dropout=0.0, activation="gelu", norm_first=True, batch_first=True
    )
    own = block.state_dict()
    names = {
        "self_attn.in_proj_weight": "qkv.weight",
        "self_attn.in_proj_bias": "qkv.bias",
        "self_attn.out_proj.weight": "out.weight",
        "self_attn.out_proj.bias": "out.bias",
        "linear1.weight": "mlp.0.weight",
        "linear1.bias": "mlp.0.bias",
        "linear2.weight": "mlp.3.weight",
        "linear2.bias": "mlp.3.bias",
        "norm1.weight": "attention_norm.weight",
        "norm1.bias": "attention_norm.bias",
        "norm2.weight": "mlp_norm.weight",
        "norm2.bias": "mlp_norm.bias",
    }
    layer.load_state_dict({theirs: own[ours] for theirs, ours in names.items()})
    return layer


def test_block_agrees_with_torch():
    torch.manual_seed(0)
    block = TransformerBlock(24, 3, 48)
    layer = second_implementation(block, 24, 3, 48)
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(block(x), layer(x), rtol=1e-5, atol=1e-5)


def test_block_agrees_with_timm():
    torch.manual_seed(0)
    block, theirs = TransformerBlock(24, 3, 48).eval(), Block(24, 3, mlp_ratio=2.0, qkv_bias=True).eval()
    names = {
        "norm1": "attention_norm", "attn.qkv": "qkv", "attn.proj": "out", "norm2": "mlp_norm", "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.3",
    }  # fmt: skip
    own = block.state_dict()
    theirs.load_state_dict({f"{t}.{kind}": own[f"{o}.{kind}"] for t, o in names.items() for kind in ("weight", "bias")})
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(block(x) - x, theirs(x) - x, rtol=1e-4, atol=1e-5)


def test_tokens_have_no_order():
    torch.manual_seed(0)
    transformer = Transformer(2, width=16, n_heads=2, mlp_width=32).eval()
    x, order = torch.randn(1, 6, 16), torch.randperm(6)
    torch.testing.assert_close(transformer(x)[:, order], transformer(x[:, order]), rtol=1e-5, atol=1e-5)


def test_gradients_reach_every_parameter():
    transformer = Transformer(2, width=16, n_heads=2, mlp_width=32, dropout=0.1)
    transformer(torch.randn(2, 5, 16)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in transformer.parameters())


def test_block_has_the_parameters_of_its_formula():
    width, mlp_width = 1024, 2048
    with torch.device("meta"):
        block = TransformerBlock(width, 16, mlp_width)
    norms, attention = 4 * width, 4 * (width * width + width)
    perceptron = 2 * width * mlp_width + mlp_width + width
    assert sum(p.numel() for p in block.parameters()) == norms + attention + perceptron == 8_399_872


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="multiple of `n_heads`, found 10 and 3"):
        TransformerBlock(10, 3, 20)
