"""One VGGT layer: graph convolution → self-attention → feed-forward, each added to the stream of tokens."""

from __future__ import annotations

from torch import Tensor, nn

from vla_vggt.models.components.attention import SelfAttention
from vla_vggt.models.components.feed_forward import FeedForward
from vla_vggt.models.components.graph_convolution import GraphConvolution
from vla_vggt.models.components.norm import RMSNorm
from vla_vggt.models.components.token_graph import TokenGraph


class VGGTLayer(nn.Module):
    """Pre-normalised, as transformers are (arXiv 2002.04745).

    Args:
        width: features per token, d.
        heads: attention heads.
        feed_forward_width: hidden features of the feed-forward.
    """

    def __init__(self, width: int, heads: int, feed_forward_width: int) -> None:
        super().__init__()
        self.graph_norm = RMSNorm(width)
        self.graph_convolution = GraphConvolution(width)
        self.attention_norm = RMSNorm(width)
        self.attention = SelfAttention(width, heads)
        self.feed_forward_norm = RMSNorm(width)
        self.feed_forward = FeedForward(width, feed_forward_width)

    def forward(self, tokens: Tensor, graph: TokenGraph, attend: Tensor) -> Tensor:
        """[B, T, d] → [B, T, d]

        Args:
            graph: who is whose neighbour.
            attend: [B, 1, 1, T]: `attention_bias`.
        """
        tokens = tokens + self.graph_convolution(self.graph_norm(tokens), graph)
        tokens = tokens + self.attention(self.attention_norm(tokens), attend)
        return tokens + self.feed_forward(self.feed_forward_norm(tokens))
