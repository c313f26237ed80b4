"""Which episodes are attempted until every task has its demonstrations; the same for any order and number of workers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness.collecting.arguments import CollectArguments
from tasks.interface import EpisodeRecord, EpisodeSpec, InitState, Official, Outcome, Sampled, TaskSpec
from tasks.plan import make_episode
from tasks.protocols import Protocol

ATTEMPTS_PER_DEMONSTRATION, SPARE_ATTEMPTS = 3, 5
"""A task is given up after this many attempts per demonstration wanted, and a few more."""


def is_in_share(number: int, share: float) -> bool:
    """Whether `number`, from 0, is among the `share` of all that are chosen, evenly: of the first n, share × n rounded down."""
    chosen = [math.floor(count * share + 1e-9) for count in (number, number + 1)]  # 100 × 0.29 is a little less than 29
    return chosen[0] < chosen[1]


class Attempts:
    """The attempts at one task, in order: each takes the next seed, or the next official init state.

    Args:
        task: which.
        protocol: of the episodes.
        arguments: how many demonstrations, from which init states.
    """

    def __init__(self, task: TaskSpec, protocol: Protocol, arguments: CollectArguments) -> None:
        self.task = task
        self._protocol = protocol
        self._arguments = arguments
        self.limit = ATTEMPTS_PER_DEMONSTRATION * arguments.demos_per_task + SPARE_ATTEMPTS
        if arguments.init == "official":
            self.limit = task.num_init_states
            if arguments.demos_per_task > self.limit:
                raise ValueError(
                    f"--init official: {task} has {self.limit} init states, {arguments.demos_per_task} demonstrations were asked "
                    "for. Use --init sampled."
                )

    def spec(self, number: int) -> EpisodeSpec:
        """Attempt `number`, from 0."""
        arguments = self._arguments
        spread = arguments.spread if is_in_share(number, arguments.wide_share) else 1.0
        init: InitState = Sampled(seed=arguments.first_seed + number, spread=spread)
        if arguments.init == "official":
            init = Official(index=number)
        return make_episode(self.task, init, self._protocol)

    def kept(self, records: Mapping[str, EpisodeRecord]) -> list[EpisodeRecord]:
        """The demonstrations so far, in the order of the attempts; at most as many as wanted."""
        done = (records.get(self.spec(number).episode_id) for number in range(self.limit))
        kept = [record for record in done if record is not None and self._counts(record)]
        return kept[: self._arguments.demos_per_task]

    def due(self, records: Mapping[str, EpisodeRecord]) -> list[EpisodeSpec]:
        """What has to be run next: enough attempts, should all of them succeed. Empty: done, or given up.

        Args:
            records: episode id → result, of this session and earlier ones; an error counts as a failed attempt.
        """
        due: list[EpisodeSpec] = []
        good = 0
        for number in range(self.limit):
            if good + len(due) == self._arguments.demos_per_task:
                break
            spec = self.spec(number)
            record = records.get(spec.episode_id)
            if record is None:
                due.append(spec)
            else:
                good += self._counts(record)
        return due

    def _counts(self, record: EpisodeRecord) -> bool:
        if record.outcome is Outcome.ERROR:
            return False
        return record.outcome is Outcome.SUCCESS or self._arguments.keeps_failures


class Queue:
    """What has to be run, of all tasks: at first, and once more is known.

    Args:
        attempts: at each task.
        records: episode id → result; those of a session that goes on are added to it by others.
    """

    def __init__(self, attempts: Sequence[Attempts], records: Mapping[str, EpisodeRecord]) -> None:
        self._tasks = {str(task.task): task for task in attempts}
        self._records = records
        self.first = [spec for task in attempts for spec in task.due(records)]
        """Enough, should all of them succeed."""
        self._queued = {spec.episode_id for spec in self.first}

    def after(self, record: EpisodeRecord) -> list[EpisodeSpec]:
        """What has to be run besides, now that this record is among the others: another attempt where one failed."""
        due = self._tasks[str(record.spec.task)].due(self._records)
        more = [spec for spec in due if spec.episode_id not in self._queued]
        self._queued.update(spec.episode_id for spec in more)
        return more
