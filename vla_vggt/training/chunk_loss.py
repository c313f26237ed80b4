"""From a batch as recorded to the errors of the predicted chunks: what is compiled as one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vla_vggt.data.batches import Batch
from vla_vggt.data.images import AugmentationDraw, augment_images, prepare_images
from vla_vggt.data.statistics import Scaling
from vla_vggt.models.vla_model import ModelInputs, VLAModel
from vla_vggt.training.loss import chunk_l1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InstructionTable:
    """Features of every instruction of a set."""

    features: Tensor
    """[instructions, L, D] bfloat16, or float32 where they have gradients; padded on the left."""
    valid: Tensor
    """[instructions, L] bool: False for padding."""


class ChunkLoss(nn.Module):
    """Scales a batch, runs the model, compares.

    Args:
        model: the network.
        actions: the scaling of actions, on the model's device.
        proprio: of proprioception, likewise.
        instructions: by index, likewise: those of a frozen language model.
        bf16: compute in bfloat16 (autocast).
    """

    def __init__(
        self,
        model: VLAModel,
        *,
        actions: Scaling,
        proprio: Scaling,
        instructions: InstructionTable,
        bf16: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.instructions, self.bf16 = instructions, bf16
        self._actions, self._proprio = actions, proprio

    @property
    def language_tokens(self) -> int:
        """L, padding included."""
        return self.instructions.features.shape[1]

    def forward(self, batch: Batch, draw: AugmentationDraw | None, instructions: InstructionTable) -> Tensor:
        """[7] float32: summed absolute errors of normalised actions; see `chunk_l1`.

        Args:
            draw: how to change the images; None: not at all.
            instructions: what the batch's are indices of.
        """
        return chunk_l1(self.predict(batch, draw, instructions), self._actions.scale(batch.actions), batch.valid)

    def predict(self, batch: Batch, draw: AugmentationDraw | None, instructions: InstructionTable) -> Tensor:
        """[B, H, 7] float32: normalised actions."""
        image_px = self.model.config.image_px
        images = (
            prepare_images(batch.images, image_px) if draw is None else augment_images(batch.images, draw, image_px)
        )
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            predicted: Tensor = self.model(
                ModelInputs(
                    images=images,
                    language=instructions.features[batch.instructions].to(images.dtype),
                    language_valid=instructions.valid[batch.instructions],
                    proprioception=self._proprio.scale(batch.proprio),
                )
            )
        return predicted

    def restored(self, scaled: Tensor) -> Tensor:
        """Normalised actions [..., 7] → as the simulator takes them."""
        return self._actions.restore(scaled)
