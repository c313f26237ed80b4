"""Tokens → a chunk of actions."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from vla_vggt.configs.model_config import ModelConfig
from vla_vggt.models.components.attention import QueryAttention
from vla_vggt.models.components.norm import RMSNorm


class MeanPooling(nn.Module):
    """The mean of all tokens that are not padding."""

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """[B, T, d] → [B, d]; `valid`: [B, T] bool"""
        weights = valid.to(tokens.dtype) / valid.sum(dim=1, keepdim=True).to(tokens.dtype)  # [B, T]
        return (tokens * weights[..., None]).sum(dim=1)


class ActionHead(nn.Module):
    """Pooling and a multi-layer perceptron.

    With `mean` pooling one vector gives all H actions; with `queries` each step of the chunk has a learned query of its own.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.chunk_steps, self.action_dim = config.chunk_steps, config.action_dim
        by_query = config.pooling == "queries"
        self.norm = RMSNorm(config.width)
        self.mean = None if by_query else MeanPooling()
        self.queries = QueryAttention(config.chunk_steps, config.width, config.heads) if by_query else None
        outputs = config.action_dim if by_query else config.chunk_steps * config.action_dim
        self.hidden = nn.Linear(config.width, config.head_width)
        self.output = nn.Linear(config.head_width, outputs)

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Normalised actions.

        Args:
            tokens: [B, T, d]
            valid: [B, T] bool: False for padding.

        Returns:
            [B, H, 7] float32
        """
        tokens = self.norm(tokens)
        if self.queries is not None:
            pooled = self.queries(tokens, valid[:, None, None, :])  # [B, H, d]
        else:
            assert self.mean is not None
            pooled = self.mean(tokens, valid)  # [B, d]
        actions: Tensor = self.output(functional.gelu(self.hidden(pooled), approximate="tanh"))  # [B, (H,) 7 or H·7]
        return actions.reshape(-1, self.chunk_steps, self.action_dim).float()
