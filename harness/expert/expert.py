"""The scripted expert: works on the parts of the goal that do not hold yet, again and again, until all do."""

from __future__ import annotations

from collections.abc import Iterator

from harness.expert.motion import Action, Motion
from harness.expert.planner import Plan, next_predicate
from harness.expert.servo import OPEN
from tasks.interface import PrivilegedState


class ScriptedExpert:
    """One episode's expert; see `tasks.interface.WorkerPolicy`.

    Every phase is closed loop on the present poses; what did not work is planned again from where things are now.
    """

    def __init__(self) -> None:
        self._actions: Iterator[Action] | None = None
        self._state: PrivilegedState
        self.finished = False
        """Whether the goal holds and the hand is away: nothing is left to do."""

    def act(self, state: PrivilegedState) -> Action:
        self._state = state
        if self._actions is None:
            self._actions = self._perform()
        return next(self._actions)

    def _perform(self) -> Iterator[Action]:
        motion = Motion(lambda: self._state)
        plan = Plan(motion)
        while True:
            predicate = next_predicate(self._state)
            self.finished = predicate is None
            if predicate is None:
                yield from motion.stay(1, OPEN)
            else:
                yield from plan.skill(predicate)
