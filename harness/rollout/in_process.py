"""`--workers 0`: the same episodes in the command's own process, so that a debugger sees everything."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from harness.rollout.batcher import Batcher
from harness.rollout.engine import FollowUp
from harness.sim.settings import RolloutSettings
from tasks.interface import ActionChunk, EpisodeRecord, EpisodeSpec, Observation, Policy


def run_in_process(
    specs: Sequence[EpisodeSpec],
    policy: Policy | None,
    settings: RolloutSettings,
    on_record: Callable[[EpisodeRecord], None],
    follow_up: FollowUp,
) -> None:
    """Run episodes one after another. Exceptions are not caught: a debugger stops where they arise.

    Raises:
        KeyboardInterrupt: Ctrl-C, likewise.
    """
    from harness.sim.episode import EpisodeRunner  # the simulation stack, wanted in this process only here

    runner = EpisodeRunner(settings)
    batcher = Batcher(policy) if policy is not None else None

    def query(observation: Observation) -> tuple[ActionChunk, float]:
        assert batcher is not None
        started = time.perf_counter()
        (chunk,) = batcher.act([observation])
        return chunk, time.perf_counter() - started

    try:
        waiting = deque(specs)
        while waiting:
            spec = waiting.popleft()
            if policy is not None:
                policy.start([spec])
            record = runner.run(spec, 1, query)
            on_record(record)
            waiting.extend(follow_up(record))
            if policy is not None:
                policy.finish([spec.episode_id])
    finally:
        runner.close()
