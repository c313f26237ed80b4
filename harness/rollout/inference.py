"""Calls a policy on a thread of its own, so that a batch is computed while workers are listened to and the next one gathers."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe

from harness.rollout.batcher import Batcher, ExplainedPolicyError
from tasks.interface import ActionChunk, EpisodeSpec, Observation, Policy

GOODBYE_S = 5.0
"""How long `close` waits for the call in progress."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What `ask` asked for."""

    chunks: Sequence[ActionChunk]
    """One per observation, in order."""
    took_s: float
    """Wall time of the policy's call [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFailure:
    """The policy raised, in whichever call."""

    detail: str
    """Traceback, or the policy's own explanation."""


class Inference:
    """One policy, one thread, one call at a time in the order asked for. Close it when done.

    Args:
        policy: what to call; nothing else may call it meanwhile.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._batcher = Batcher(policy)
        self.batch_size = policy.needs.batch_size
        self.busy = False
        """Whether answers are due; until they are taken, nothing more may be asked."""
        self._calls: queue.SimpleQueue[Callable[[], Answers | None] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Answers | PolicyFailure] = queue.SimpleQueue()
        self.signal, self._alarm = Pipe(duplex=False)
        """A connection to wait for: it can be read from when there are results."""
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    def start(self, spec: EpisodeSpec) -> None:
        """Tell the policy that an episode begins."""
        self._calls.put(lambda: self._policy.start([spec]))

    def finish(self, episode_id: str) -> None:
        """Tell the policy that an episode ended."""
        self._calls.put(lambda: self._policy.finish([episode_id]))

    def ask(self, observations: Sequence[Observation]) -> None:
        """Ask for chunks, for at most `batch_size` observations."""
        assert not self.busy, "the last answers have not been taken"
        self.busy = True

        def act() -> Answers:
            started = time.perf_counter()
            chunks = self._batcher.act(observations)
            return Answers(chunks=chunks, took_s=time.perf_counter() - started)

        self._calls.put(act)

    def results(self) -> list[Answers | PolicyFailure]:
        """What came since the last call; does not wait."""
        found = []
        while self.signal.poll():
            self.signal.recv_bytes()
            found.append(self._results.get())
        if any(isinstance(result, Answers) for result in found):
            self.busy = False
        return found

    def wait(self) -> None:
        """Wait until the policy has nothing left to do."""
        done = threading.Event()
        self._calls.put(done.set)
        done.wait()

    def close(self) -> None:
        """End the thread; a call that takes long ends on its own, and nobody hears of it."""
        self._calls.put(None)
        self._thread.join(timeout=GOODBYE_S)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                result: Answers | PolicyFailure | None = call()
            except ExplainedPolicyError as error:
                result = PolicyFailure(detail=str(error))
            except BaseException:  # a policy that exits or is cancelled has failed too
                result = PolicyFailure(detail=traceback.format_exc())
            if result is not None:
                self._results.put(result)
                self._alarm.send_bytes(b"!")
