"""Attention over all tokens of a sample, and of learned queries over them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def attention_bias(valid: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to a score before the softmax: 0, and -∞ for padding.

    The same as a mask of booleans, from which attention would make this anew in every layer.

    Args:
        valid: [B, T] bool: False for padding.

    Returns:
        [B, 1, 1, T] of `dtype`.
    """
    bias = torch.zeros(valid.shape, dtype=dtype, device=valid.device).masked_fill(~valid, -torch.inf)
    return bias[:, None, None, :]


class SelfAttention(nn.Module):
    """Multi-head self-attention; padding is never attended to.

    Args:
        width: features per token, d.
        heads: attention heads, h; they divide `width`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project_in = nn.Linear(width, 3 * width, bias=False)
        self.project_out = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor, attend: Tensor) -> Tensor:
        """[B, T, d] → [B, T, d]

        Args:
            attend: [B, 1, 1, T]: `attention_bias`.
        """
        query, key, value = self.project_in(tokens).unflatten(-1, (3, self.heads, -1)).unbind(2)  # each [B, T, h, d/h]
        mixed = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=attend
        )  # [B, h, T, d/h]
        projected: Tensor = self.project_out(mixed.transpose(1, 2).flatten(2))  # [B, T, d]
        return projected


class QueryAttention(nn.Module):
    """Learned queries attend to all tokens: the set's pooling.

    Args:
        queries: how many, Q.
        width: features per token, d.
        heads: attention heads, h.
    """

    def __init__(self, queries: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries = nn.Parameter(torch.empty(queries, width))
        self.project_query = nn.Linear(width, width, bias=False)
        self.project_in = nn.Linear(width, 2 * width, bias=False)
        self.project_out = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor, attend: Tensor) -> Tensor:
        """[B, T, d] → [B, Q, d]

        Args:
            attend: [B, 1, 1, T]: `attention_bias`.
        """
        key, value = self.project_in(tokens).unflatten(-1, (2, self.heads, -1)).unbind(2)  # each [B, T, h, d/h]
        query = self.project_query(self.queries.to(tokens.dtype)).unflatten(-1, (self.heads, -1))  # [Q, h, d/h]
        query = query.transpose(0, 1).expand(tokens.shape[0], -1, -1, -1)  # [B, h, Q, d/h]
        mixed = functional.scaled_dot_product_attention(
            query, key.transpose(1, 2), value.transpose(1, 2), attn_mask=attend
        )  # [B, h, Q, d/h]
        projected: Tensor = self.project_out(mixed.transpose(1, 2).flatten(2))  # [B, Q, d]
        return projected
