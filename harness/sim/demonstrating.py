"""Where a demonstration's actions come from: the expert, perhaps disturbed, perhaps correcting a policy that drives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.expert.expert import ScriptedExpert
from harness.sim.disturbance import Disturbance
from harness.sim.settings import Demonstrating, WorkerPolicyError
from tasks.interface import PrivilegedState, episode_rng

TURN_STEPS = 10
"""With a policy in the loop: who drives is drawn anew after this many steps."""
AFTER_SUCCESS_STEPS = 40
"""How long the expert may take to let go and back off once the goal has held."""


class Driver(Protocol):
    """A policy's actions, one per control step."""

    def action(self, step: int) -> NDArray[np.float64]: ...


class DemonstrationSource:
    """One demonstration's actions, and the expert's answer to every state that was visited.

    Args:
        settings: strength of the disturbance, share of the expert.
        episode_id: seeds what is drawn.
        state: the simulator's.
        new_driver: makes the policy that drives, unless the expert does at every step; a fresh one for each of its turns, because a
            chunk from before is about another state.
    """

    def __init__(
        self,
        settings: Demonstrating,
        episode_id: str,
        state: PrivilegedState,
        new_driver: Callable[[], Driver],
    ) -> None:
        self.queries = 0
        self.labels: list[NDArray[np.float64]] = []
        """The expert's action (7,) at every step so far."""
        self._settings = settings
        self._episode_id = episode_id
        self._state = state
        self._new_driver = new_driver
        self._generator = episode_rng(settings.seed, episode_id, 0)
        self._disturbance = Disturbance(settings.noise, self._generator, misplaced=settings.misplaced)
        self._expert = ScriptedExpert(
            disturbed=settings.noise > 0.0 or settings.misplaced > 0.0 or settings.expert_share < 1.0
        )
        self._driver: Driver | None = None
        self._since_success = 0

    def action(self, step: int) -> NDArray[np.float64]:
        """(7,): what is executed at `step`."""
        if step % TURN_STEPS == 0:
            expert_drives = self._generator.random() < self._settings.expert_share
            self._driver = None if expert_drives else self._new_driver()
        self._expert.advise(only=self._driver is not None)
        label = self._answer(step)
        self.labels.append(label)
        self.queries += 1
        if self._driver is None:
            expert = self._expert
            return self._disturbance.applied(
                label,
                presses=expert.presses,
                reaches=expert.reaches,
                outward=expert.outward,
                lowers=expert.lowers,
            )
        self._expert.reconsider()
        return self._driver.action(step)

    def _answer(self, step: int) -> NDArray[np.float64]:
        try:
            return self._expert.act(self._state)
        except Exception as error:
            raise WorkerPolicyError(
                f"{self._episode_id} step {step}: the expert raised {type(error).__name__}: {error}"
            ) from error

    def finished(self, *, succeeded: bool) -> bool:
        """Whether the demonstration is over: the goal has held, and the expert has let go and backed off.

        Args:
            succeeded: whether the goal has held at any step so far.
        """
        if not succeeded:
            return False
        self._since_success += 1
        return self._expert.between_skills or self._since_success > AFTER_SUCCESS_STEPS
