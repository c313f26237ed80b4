"""The position-wise part of a layer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class FeedForward(nn.Module):
    """Linear, GELU (tanh form), linear.

    Args:
        width: features per token, d.
        hidden_width: features between the two.
    """

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.project_in = nn.Linear(width, hidden_width, bias=False)
        self.project_out = nn.Linear(hidden_width, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T, d] → [B, T, d]"""
        projected: Tensor = self.project_out(functional.gelu(self.project_in(tokens), approximate="tanh"))
        return projected
