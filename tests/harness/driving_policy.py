"""A policy for relabelling: it drives straight down, whatever it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.policies.simple import BlindPolicy
from tasks.interface import ActionChunk, Observation


class DownwardPolicy(BlindPolicy):
    def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
        return [ActionChunk(actions=np.tile([0.0, 0.0, -0.3, 0.0, 0.0, 0.0, -1.0], (4, 1))) for _ in observations]


def load(checkpoint: Path) -> DownwardPolicy:
    assert checkpoint.exists()
    return DownwardPolicy()
