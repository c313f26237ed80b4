"""N VGGT layers over the tokens of a sample."""

from __future__ import annotations

from torch import Tensor, nn

from vla_vggt.models.components.attention import attention_bias
from vla_vggt.models.components.token_graph import TokenGraph
from vla_vggt.models.components.vggt_layer import VGGTLayer


class VGGTBackbone(nn.Module):
    """The stack of layers; it knows the tokens' graph and nothing of what they stand for.

    Args:
        width: features per token, d.
        layers: N.
        heads: attention heads of each layer.
        feed_forward_width: hidden features of each feed-forward.
    """

    def __init__(self, *, width: int, layers: int, heads: int, feed_forward_width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VGGTLayer(width, heads, feed_forward_width) for _ in range(layers))

    def forward(self, tokens: Tensor, graph: TokenGraph, valid: Tensor) -> Tensor:
        """[B, T, d] → [B, T, d]

        Args:
            graph: who is whose neighbour, in the tokens' order.
            valid: [B, T] bool: False for padding.
        """
        attend = attention_bias(valid, tokens.dtype)
        for layer in self.layers:
            tokens = layer(tokens, graph, attend)
        return tokens
