"""Calls a policy with batches of one fixed size, and checks what it returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tasks.interface import PADDING_ID, ActionChunk, Observation, Policy


class PolicyError(Exception):
    """A policy raised, or returned something else than chunks. The run ends after saving; the cause has the traceback."""


class ExplainedPolicyError(Exception):
    """Raised by a policy whose message says everything; a traceback would only hide it."""


class Batcher:
    """Pads every call to the policy's batch size, so that an observation's neighbours never change its bits.

    Args:
        policy: what to call.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._size = policy.needs.batch_size

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """One chunk per observation; any number of observations.

        Raises:
            PolicyError: the policy raised, or its answer has the wrong length or type.
            ExplainedPolicyError: as the policy raised it.
        """
        chunks: list[ActionChunk] = []
        for start in range(0, len(observations), self._size):
            chunks += self._act(observations[start : start + self._size])
        return chunks

    def _act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        filler = dataclasses.replace(observations[-1], episode_id=PADDING_ID)
        batch = [*observations, *[filler] * (self._size - len(observations))]
        who = ", ".join(f"{o.episode_id} step {o.step}" for o in observations)
        try:
            chunks = list(self._policy.act(batch))
        except ExplainedPolicyError:
            raise
        except Exception as error:
            raise PolicyError(f"the policy failed on {who}: {type(error).__name__}: {error}") from error
        if len(chunks) != len(batch):
            raise PolicyError(
                f"the policy returned {len(chunks)} chunks for a batch of {len(batch)} observations ({who})"
            )
        for chunk in chunks:
            if not isinstance(chunk, ActionChunk):
                raise PolicyError(
                    f"the policy returned {type(chunk).__name__} for {who}; expected tasks.interface.ActionChunk"
                )
        return chunks[: len(observations)]
