from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from harness.policies.simple import BlindPolicy
from harness.rollout.batcher import Batcher, PolicyError
from tasks.interface import PADDING_ID, ActionChunk, Observation, OpenLoopSpec, PolicyNeeds
from tests.examples import observation


class Spy(BlindPolicy):
    """Answers with each observation's step; remembers the batches."""

    needs = PolicyNeeds(cameras=(), image_convention=None, batch_size=4, ensemble=OpenLoopSpec())

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
        self.batches.append([o.episode_id for o in observations])
        return [ActionChunk(actions=np.full((1, 7), o.step / 100)) for o in observations]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_every_batch_has_the_fixed_size(count: int) -> None:
    spy = Spy()
    chunks = Batcher(spy).act([observation(f"s/00/{i:02d}/r0", step=i) for i in range(count)])
    assert [chunk.actions[0, 0] for chunk in chunks] == [i / 100 for i in range(count)]
    assert all(len(batch) == 4 for batch in spy.batches)
    flat = [name for batch in spy.batches for name in batch]
    assert [name for name in flat if name != PADDING_ID] == [f"s/00/{i:02d}/r0" for i in range(count)]


def failing(answer: Any) -> Batcher:
    class Failing(BlindPolicy):
        def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
            return answer() if callable(answer) else answer  # type: ignore[no-any-return]

    return Batcher(Failing())


def raise_zero_division() -> None:
    raise ZeroDivisionError("division by zero")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([], r"returned 0 chunks for a batch of 1 observations \(libero_spatial/00/00/r0 step 7\)"),
        (
            [np.zeros((1, 7))],
            r"returned ndarray for libero_spatial/00/00/r0 step 7; expected tasks.interface.ActionChunk",
        ),
        (raise_zero_division, r"failed on libero_spatial/00/00/r0 step 7: ZeroDivisionError: division by zero"),
        (
            lambda: [ActionChunk(actions=np.zeros((1, 6)))],
            r"step 7: ActionError: expected actions of shape \(T, 7\).*got \(1, 6\)",
        ),
        (
            lambda: [ActionChunk(actions=np.full((1, 7), np.nan))],
            r"step 7: ActionError: expected finite actions, got nan",
        ),
    ],
)
def test_a_bad_answer_names_episode_and_step(answer: Any, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        failing(answer).act([observation(step=7)])
