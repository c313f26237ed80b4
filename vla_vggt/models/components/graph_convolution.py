"""Graph convolution: every token takes in its neighbours."""

from __future__ import annotations

from torch import Tensor, nn

from vla_vggt.models.components.token_graph import TokenGraph


class GraphConvolution(nn.Module):
    """x → Â x W (Kipf and Welling, arXiv 1609.02907, without the non-linearity, which is the feed-forward's).

    Args:
        width: features per token, d.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor, graph: TokenGraph) -> Tensor:
        """[B, T, d] → [B, T, d]"""
        projected: Tensor = self.project(graph.propagate(tokens))
        return projected
