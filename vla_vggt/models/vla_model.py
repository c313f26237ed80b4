"""The whole policy network, as in the figure.

```
image [B, C, 3, 224, 224] → patches 16×16 (one matrix, or convolutions) → [B, V, d] + (row, column), camera
text  [B, L, D], frozen language model's features → projector → [B, L, d]
state [B, 8] → projector → [B, 1, d]
[language | vision | state] + token type → N × (graph convolution → self-attention → feed-forward)
→ pooling → action head → chunk [B, H, 7]
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from tasks.interface import PROPRIO_DIM
from vla_vggt.configs.model_config import ModelConfig
from vla_vggt.models.action_head import ActionHead
from vla_vggt.models.components.norm import RMSNorm
from vla_vggt.models.components.token_graph import BandedGraph, TokenLayout, banded_graph
from vla_vggt.models.components.token_type_embedding import LANGUAGE, STATE, VISION, TokenTypeEmbedding
from vla_vggt.models.vggt_backbone import VGGTBackbone
from vla_vggt.models.vision_encoder import VisionEncoder


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelInputs:
    """A batch, as the network takes it."""

    images: Tensor
    """[B, C, 3, image_px, image_px] float, about in [-1, 1]"""
    language: Tensor
    """[B, L, D] float: the language model's features, padded on the left."""
    language_valid: Tensor
    """[B, L] bool: False for padding."""
    proprioception: Tensor
    """[B, 8] float32, normalised; not read without `ModelConfig.proprioception`."""


class VLAModel(nn.Module):
    """VLA-VGGT."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_encoder = VisionEncoder(
            width=config.width,
            patch_px=config.patch_px,
            grid=config.grid,
            cameras=len(config.cameras),
            stem=config.stem,
        )
        self.language_norm = RMSNorm(config.language_width)
        self.language_projector = nn.Linear(config.language_width, config.width)
        self.state_projector = nn.Linear(PROPRIO_DIM, config.width) if config.proprioception else None
        self.token_types = TokenTypeEmbedding(config.width)
        self.backbone = VGGTBackbone(
            width=config.width,
            layers=config.layers,
            heads=config.heads,
            feed_forward_width=config.feed_forward_width,
        )
        self.action_head = ActionHead(config)
        self._initialise()

    def forward(self, inputs: ModelInputs) -> Tensor:
        """[B, H, 7] float32: normalised actions."""
        tokens, valid = self.tokens(inputs)  # [B, T, d], [B, T]
        tokens = self.backbone(tokens, self.graph(valid, tokens.dtype), valid)  # [B, T, d]
        return cast(Tensor, self.action_head(tokens, valid))

    def tokens(self, inputs: ModelInputs) -> tuple[Tensor, Tensor]:
        """What the backbone starts from: tokens [B, T, d], and [B, T] bool, False for padding."""
        language = self.language_projector(self.language_norm(inputs.language))  # [B, L, d]
        vision, _ = self.vision_encoder(inputs.images)  # [B, V, d]
        parts = [self.token_types(language, LANGUAGE), self.token_types(vision, VISION)]
        if self.state_projector is not None:
            state = self.state_projector(inputs.proprioception)[:, None]  # [B, 1, d]
            parts.append(self.token_types(state, STATE))
        tokens = torch.cat(parts, dim=1)  # [B, T, d]
        others = inputs.language_valid.new_ones(tokens.shape[0], tokens.shape[1] - language.shape[1])
        return tokens, torch.cat([inputs.language_valid, others], dim=1)

    def layout(self, language_tokens: int) -> TokenLayout:
        """What stands where in a sequence with L = `language_tokens`."""
        return TokenLayout(
            language_tokens=language_tokens,
            cameras=len(self.config.cameras),
            grid=self.config.grid,
            state_tokens=int(self.config.proprioception),
        )

    def graph(self, valid: Tensor, dtype: torch.dtype = torch.float32) -> BandedGraph:
        """The graph of a batch in canonical order; `valid`: [B, T] bool; `dtype`: of the tokens."""
        others = self.config.vision_tokens + int(self.config.proprioception)
        return banded_graph(self.layout(valid.shape[1] - others), self.config.neighbours, valid, dtype)

    def _initialise(self) -> None:
        """Matrices: LeCun's normal, 1 / √inputs (with half of it, `tiny` learns three demonstrations by heart half as fast).
        Embeddings: 0.2, a third of what a patch's pixels give. Queries: 1, as normalised tokens. What a layer adds to the tokens:
        times 1 / √(3 N).
        """
        added = (
            ".graph_convolution.project.weight",
            ".attention.project_out.weight",
            ".feed_forward.project_out.weight",
        )
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif name.endswith(".weight"):
                scale = (3 * self.config.layers) ** -0.5 if name.endswith(added) else 1.0
                _normal_(parameter, scale * parameter[0].numel() ** -0.5)
            elif not name.endswith(".gain"):
                _normal_(parameter, 1.0 if name.endswith(".queries") else 0.2)


def _normal_(parameter: Tensor, std: float) -> None:
    nn.init.trunc_normal_(parameter, std=std, a=-3 * std, b=3 * std)
