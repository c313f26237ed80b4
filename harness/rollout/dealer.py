"""Deals episodes to workers: a worker stays on a task while it can, since switching means loading a model, and the tasks with
the most work left come first, so that all workers finish together.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tasks.interface import EpisodeSpec
from tasks.protocols import find_protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An episode to run."""

    spec: EpisodeSpec
    attempt: int

    @property
    def task(self) -> str:
        return str(self.spec.task)


def longest_steps(spec: EpisodeSpec) -> int:
    """Control steps an episode can take: its protocol's horizon."""
    return find_protocol(spec.protocol).horizon(spec.task)


class Dealer:
    """The episodes still to be dealt, by task, in the order they came.

    Args:
        specs: the episodes.
    """

    def __init__(self, specs: Sequence[EpisodeSpec]) -> None:
        self._queues: dict[str, deque[Job]] = {}
        self.add(specs)

    def add(self, specs: Sequence[EpisodeSpec]) -> None:
        """More episodes, after those of their task."""
        for spec in specs:
            self._queues.setdefault(str(spec.task), deque()).append(Job(spec=spec, attempt=1))

    def __bool__(self) -> bool:
        return any(self._queues.values())

    def deal(self, task: str, busy: Collection[str]) -> Job | None:
        """The next job for a worker, or None when all are dealt.

        Args:
            task: the task the worker has compiled; empty for none. It goes on with it while it lasts.
            busy: the other workers' tasks, one entry each. A task without a worker comes first; among those, and where
                all have one, the task with the most control steps left per worker.
        """
        waiting = {name: queue for name, queue in self._queues.items() if queue}
        if not waiting:
            return None
        if task in waiting:
            return waiting[task].popleft()
        helpers = Counter(busy)
        left = {name: sum(longest_steps(job.spec) for job in queue) for name, queue in waiting.items()}
        name = max(waiting, key=lambda n: (helpers[n] == 0, left[n] / (helpers[n] + 1)))
        return waiting[name].popleft()

    def put_back(self, job: Job) -> None:
        """Run an episode again, next among its task's."""
        self._queues[job.task].appendleft(Job(spec=job.spec, attempt=job.attempt + 1))
