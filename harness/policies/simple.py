"""Policies without eyes: the floor any real policy must clear."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.interface import ACTION_DIM, ActionChunk, EpisodeSpec, Observation, OpenLoopSpec, PolicyNeeds, episode_rng

CHUNK_STEPS = 8


class BlindPolicy:
    """The base of policies that look at nothing and keep no state."""

    needs = PolicyNeeds(cameras=(), image_convention=None, batch_size=1, ensemble=OpenLoopSpec())

    def start(self, specs: Sequence[EpisodeSpec]) -> None:
        del specs

    def finish(self, episode_ids: Sequence[str]) -> None:
        del episode_ids


class ZeroPolicy(BlindPolicy):
    """Commands nothing: the arm holds its pose, the gripper its opening."""

    def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
        return [ActionChunk(actions=np.zeros((CHUNK_STEPS, ACTION_DIM))) for _ in observations]


class RandomPolicy(BlindPolicy):
    """Uniform actions in [-1, 1], a function of (run seed, episode, step).

    Args:
        seed: the run's seed.
    """

    def __init__(self, *, seed: int) -> None:
        self._seed = seed

    def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
        return [
            ActionChunk(
                actions=episode_rng(self._seed, o.episode_id, o.step).uniform(-1.0, 1.0, (CHUNK_STEPS, ACTION_DIM))
            )
            for o in observations
        ]
