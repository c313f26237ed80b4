"""Root-mean-square normalisation (arXiv 1910.07467)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-6


class RMSNorm(nn.Module):
    """x → x / rms(x) · g, in the input's dtype whatever the dtype of g.

    `torch.nn.RMSNorm` would raise bf16 tokens to the dtype of its float32 gain.

    Args:
        width: features of the last dimension.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., d] → [..., d]"""
        return functional.rms_norm(tokens, self.gain.shape, self.gain.to(tokens.dtype), EPSILON).to(tokens.dtype)
