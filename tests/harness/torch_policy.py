"""A torch policy of random weights, as a user would bring one: `--policy tests.harness.torch_policy:make_torch_policy`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from tasks.interface import CAMERAS, ActionChunk, EpisodeSpec, Observation, OpenLoopSpec, PolicyNeeds

CHUNK_STEPS = 20


class TorchPolicy:
    """Two cameras and proprioception → a chunk."""

    needs = PolicyNeeds(cameras=CAMERAS, image_convention=None, batch_size=4, ensemble=OpenLoopSpec())
    dtype = "float32"

    def __init__(self, chunk_steps: int = CHUNK_STEPS) -> None:
        self._chunk_steps = chunk_steps
        generator = torch.Generator().manual_seed(0)
        self._images = nn.Conv2d(6, 16, kernel_size=16, stride=16)
        self._head = nn.Linear(16 + 8, chunk_steps * 7)
        for parameter in (*self._images.parameters(), *self._head.parameters()):
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def start(self, specs: Sequence[EpisodeSpec]) -> None:
        del specs

    def finish(self, episode_ids: Sequence[str]) -> None:
        del episode_ids

    @torch.inference_mode()
    def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
        images = torch.from_numpy(np.stack([o.images for o in observations])).float() / 255  # [B, 2, H, W, 3]
        images = images.permute(0, 1, 4, 2, 3).flatten(1, 2)  # [B, 6, H, W]
        proprio = torch.from_numpy(np.stack([o.proprio for o in observations]))  # [B, 8]
        features = torch.cat([self._images(images).relu().mean(dim=(2, 3)), proprio], dim=1)  # [B, 24]
        actions = self._head(features).tanh().unflatten(1, (self._chunk_steps, 7))  # [B, T, 7]
        return [ActionChunk(actions=chunk.double().numpy()) for chunk in actions]


def make_torch_policy() -> TorchPolicy:
    return TorchPolicy()
