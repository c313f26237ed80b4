"""Tells the backbone what kind of token it looks at."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LANGUAGE, VISION, STATE = range(3)


class TokenTypeEmbedding(nn.Module):
    """One learned vector per modality, added to its tokens.

    Args:
        width: features per token, d.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.types = nn.Parameter(torch.empty(3, width))

    def forward(self, tokens: Tensor, token_type: int) -> Tensor:
        """[B, tokens of one modality, d] → the same

        Args:
            token_type: LANGUAGE, VISION or STATE.
        """
        return tokens + self.types[token_type].to(tokens.dtype)
