"""The vision transformer's blocks, for sequences whose tokens are spots."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sthisto._utils.validate import check_positive

__all__ = ["Transformer", "TransformerBlock"]


class TransformerBlock(nn.Module):
    """Attention among all tokens, then a perceptron on each: ``x + A(LN(x))``, then ``x + M(LN(x))``.

    ``A(x) = out(softmax(q k' / sqrt(d)) v)`` in each head, M is linear, GELU, linear.

    Parameters
    ----------
    width
        Features of a token.
    n_heads
        Attention heads; they share `width` among them.
    mlp_width
        Width of the perceptron's hidden layer.
    dropout
        Share of the values that both branches lose while training.

    Raises
    ------
    ValueError
        `width` is no multiple of `n_heads`.

    References
    ----------
    Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021, doi:10.48550/arXiv.2010.11929.

    Examples
    --------
    >>> import torch
    >>> from sthisto.nn import TransformerBlock
    >>> TransformerBlock(32, 4, 64)(torch.rand(2, 10, 32)).shape
    torch.Size([2, 10, 32])
    """

    def __init__(self, width: int, n_heads: int, mlp_width: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_positive(n_heads, name="n_heads")
        if width % n_heads:
            msg = f"`width` must be a multiple of `n_heads`, found {width} and {n_heads}."
            raise ValueError(msg)
        self.n_heads = n_heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_width), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, n_tokens, width) to (batch, n_tokens, width)."""
        x = x + self.dropout(self._attend(self.attention_norm(x)))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        batch, n_tokens, width = x.shape
        heads = self.qkv(x).view(batch, n_tokens, 3, self.n_heads, width // self.n_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (batch, n_heads, n_tokens, width / n_heads)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.out(attended.transpose(1, 2).reshape(batch, n_tokens, width))


class Transformer(nn.Sequential):
    """Transformer blocks one after the other; parameters as in `TransformerBlock`.

    Examples
    --------
    >>> import torch
    >>> from sthisto.nn import Transformer
    >>> Transformer(2, width=32, n_heads=4, mlp_width=64)(torch.rand(2, 10, 32)).shape
    torch.Size([2, 10, 32])
    """

    def __init__(self, n_blocks: int, *, width: int, n_heads: int, mlp_width: int, dropout: float = 0.0) -> None:
        check_positive(n_blocks, name="n_blocks")
        super().__init__(*(TransformerBlock(width, n_heads, mlp_width, dropout) for _ in range(n_blocks)))
