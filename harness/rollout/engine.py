"""The rollout engine: workers run episodes at their own pace, the parent answers their queries in batches.

There is no lockstep: whatever observations are ready form the next batch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.rollout import shared_images
from harness.rollout.dealer import Dealer, Job
from harness.rollout.inference import Inference, PolicyFailure
from harness.rollout.messages import CannotStart, Chunk, Done, Failed, Query, Ready, RunEpisode
from harness.rollout.worker_process import Lost, WorkerProcess, device_of, incoming
from harness.sim.gl import Backend
from harness.sim.settings import RolloutSettings
from harness.sim.worker import WorkerSetup
from tasks.interface import EpisodeRecord, EpisodeSpec, Observation, Outcome, Policy, TimeSpent

MAX_ATTEMPTS = 3
FollowUp = Callable[[EpisodeRecord], Sequence[EpisodeSpec]]
"""Which episodes a finished one entails."""


def nothing_more(record: EpisodeRecord) -> Sequence[EpisodeSpec]:
    """No further episodes."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """When to give up."""

    worker_timeout_s: float
    """Longest wait for a worker's answer; model compilation and a whole chunk of steps lie within."""
    max_errors: int
    """Episodes that may end in an error before the run is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """Why the engine stopped."""

    reason: Literal[
        "completed", "interrupted", "too_many_errors", "policy_error", "cannot_start", "cannot_write", "crashed"
    ]
    detail: str
    """Traceback or explanation; empty when completed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something went wrong and was dealt with."""

    kind: Literal["worker_replaced", "episode_repeated"]
    episode_id: str
    """The episode that was running; empty for none."""
    attempt: int
    """Of that episode, the one that went wrong; 0 for none."""
    why: str


class RecordingError(Exception):
    """`on_record` could not keep a record; the run cannot go on."""


class _RunEndedError(Exception):
    def __init__(self, end: RunEnd) -> None:
        super().__init__(end.detail)
        self.end = end


class Engine:
    """Runs episodes on worker processes.

    Args:
        policy: answers queries; None when the settings name a worker policy.
        settings: what every worker is told.
        image_size_px: height and width of the images.
        backend: GL backend for the workers.
        egl_devices: EGL's numbers of the devices that workers draw on in turn; empty for the default.
        workers: number of processes, at least 1.
        limits: when to give up.
        on_record: called with each finished episode, in the order they end.
        on_incident: called when a worker is replaced or an episode is run again.
    """

    def __init__(
        self,
        *,
        policy: Policy | None,
        settings: RolloutSettings,
        image_size_px: int,
        backend: Backend,
        egl_devices: Sequence[int],
        workers: int,
        limits: EngineLimits,
        on_record: Callable[[EpisodeRecord], None],
        on_incident: Callable[[Incident], None],
    ) -> None:
        self._policy = policy
        self._settings = settings
        self._backend = backend
        self._egl_devices = egl_devices
        self._limits = limits
        self._on_record = on_record
        self._on_incident = on_incident
        self._errors = 0
        self._failed_starts = 0
        self._ever_ready = False
        self._shape = (workers, len(settings.cameras), image_size_px, image_size_px, 3)
        self._workers: list[WorkerProcess] = []
        self._pending: list[tuple[WorkerProcess, Query]] = []
        self._asked: list[WorkerProcess] = []
        self.renderer = ""
        """OpenGL's renderer string, once a worker is ready."""

    def run(self, specs: Sequence[EpisodeSpec], follow_up: FollowUp = nothing_more) -> RunEnd:
        """Run the episodes; returns when all ended or something ended the run. Never raises for a worker's fault.

        Args:
            specs: the episodes.
            follow_up: asked after each record for episodes to run besides.
        """
        self._follow_up = follow_up
        self._descriptor = shared_images.create(shared_images.ImageSlots.bytes_for(self._shape))
        self._slots = shared_images.ImageSlots(self._descriptor, self._shape)
        self._inference = Inference(self._policy) if self._policy is not None else None
        try:
            end = self._run(specs)
            if end.reason not in ("completed", "cannot_write"):
                self._keep_what_is_done()
            return end
        except RecordingError as error:
            return RunEnd(reason="cannot_write", detail=str(error))
        finally:
            for worker in self._workers:
                worker.kill()
            self._workers = []
            os.close(self._descriptor)
            if self._inference is not None:
                with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C: do not wait for the policy
                    self._inference.close()

    def _run(self, specs: Sequence[EpisodeSpec]) -> RunEnd:
        dealer = Dealer(specs)
        try:
            for slot in range(min(self._shape[0], len(specs))):
                self._workers.append(self._start(slot))
            while dealer or any(worker.job for worker in self._workers):
                self._deal(dealer)
                self._ask()
                self._listen(dealer)
                self._answer()
            if self._inference is not None:
                self._inference.wait()
                self._answer()
            return RunEnd(reason="completed", detail="")
        except _RunEndedError as ended:
            return ended.end
        except KeyboardInterrupt:
            return RunEnd(reason="interrupted", detail="interrupted by the user")
        except OSError as error:
            return RunEnd(reason="cannot_start", detail=f"a worker process cannot be started: {error}")

    def _keep_what_is_done(self) -> None:
        """Episodes that ended while the parent was busy with what ended the run."""
        for worker in self._workers:
            with contextlib.suppress(EOFError, OSError):
                message = worker.receive() if worker.connection.poll() else None
                if isinstance(message, Done):
                    self._on_record(message.record)

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the live workers."""
        return [worker.pid for worker in self._workers]

    # --- workers -----------------------------------------------------------------------------------

    def _start(self, slot: int) -> WorkerProcess:
        setup = WorkerSetup(
            settings=self._settings,
            backend=self._backend,
            egl_device=device_of(slot, self._egl_devices),
            slot=slot,
            image_shape=self._shape,
            image_descriptor=self._descriptor,
        )
        return WorkerProcess(setup, workers=self._shape[0], timeout_s=self._limits.worker_timeout_s)

    def _deal(self, dealer: Dealer) -> None:
        for worker in self._workers:
            if worker.ready and worker.job is None:
                busy = [other.task for other in self._workers if other is not worker and other.task]
                job = dealer.deal(worker.task, busy)
                if job is None:
                    continue
                worker.job, worker.task = job, job.task
                if self._inference is not None:
                    self._inference.start(job.spec)
                worker.send(RunEpisode(spec=job.spec, attempt=job.attempt))

    def _listen(self, dealer: Dealer) -> None:
        """Wait for something to happen, then take in everything that did."""
        also = () if self._inference is None else (self._inference.signal,)
        for worker, message in incoming(list(self._workers), also):
            self._take(worker, message, dealer)

    def _take(self, worker: WorkerProcess, message: object, dealer: Dealer) -> None:
        match message:
            case Lost():
                self._replace(worker, dealer, message.why)
            case Ready():
                worker.ready, self.renderer = True, message.renderer
                self._failed_starts, self._ever_ready = 0, True
            case CannotStart():
                if not self._ever_ready:
                    raise _RunEndedError(RunEnd(reason="cannot_start", detail=message.reason))
                self._replace(worker, dealer, message.reason)
            case Query():
                self._pending.append((worker, message))
            case Done():
                self._finish(worker, dealer, message.record)
            case Failed(kind="policy"):
                raise _RunEndedError(RunEnd(reason="policy_error", detail=message.error))
            case Failed(kind="storage"):
                raise _RunEndedError(RunEnd(reason="cannot_write", detail=message.error))
            case Failed(kind="simulation"):
                assert worker.job is not None
                self._finish(worker, dealer, _error_record(worker.job, message.error))
            case Failed():
                assert worker.job is not None
                if worker.job.attempt < MAX_ATTEMPTS:
                    self._report("episode_repeated", worker.job, message.error)
                self._retry(worker, dealer, message.error)

    def _replace(self, worker: WorkerProcess, dealer: Dealer, why: str) -> None:
        """A worker died or stalls: start another in its place, run its episode again."""
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_ATTEMPTS:
                raise _RunEndedError(RunEnd(reason="cannot_start", detail=f"workers do not start: {why}"))
        self._report("worker_replaced", worker.job, why)
        worker.kill()
        self._pending = [(w, query) for w, query in self._pending if w is not worker]  # one being answered: see _answer
        replacement = self._start(worker.slot)
        self._workers[self._workers.index(worker)] = replacement
        if worker.job is not None:
            self._retry(worker, dealer, why)

    def _report(self, kind: Literal["worker_replaced", "episode_repeated"], job: Job | None, why: str) -> None:
        episode_id, attempt = (job.spec.episode_id, job.attempt) if job is not None else ("", 0)
        self._on_incident(Incident(kind=kind, episode_id=episode_id, attempt=attempt, why=why))

    def _retry(self, worker: WorkerProcess, dealer: Dealer, why: str) -> None:
        job = worker.job
        assert job is not None
        if job.attempt < MAX_ATTEMPTS:
            worker.job = None
            dealer.put_back(job)
        else:
            self._finish(worker, dealer, _error_record(job, why))

    def _finish(self, worker: WorkerProcess, dealer: Dealer, record: EpisodeRecord) -> None:
        worker.job = None
        self._on_record(record)
        dealer.add(self._follow_up(record))
        if self._inference is not None:
            self._inference.finish(record.spec.episode_id)
        if record.outcome is Outcome.ERROR:
            self._errors += 1
            if self._errors > self._limits.max_errors:
                raise _RunEndedError(
                    RunEnd(
                        reason="too_many_errors",
                        detail=f"{self._errors} episodes ended in an error, more than --max-errors "
                        f"{self._limits.max_errors} allows. The last one:\n{record.error}",
                    )
                )

    # --- the policy --------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Give the policy the queries that wait, as far as a batch goes, unless it is at work."""
        inference = self._inference
        if inference is None or inference.busy or not self._pending:
            return
        batch, self._pending = self._pending[: inference.batch_size], self._pending[inference.batch_size :]
        self._asked = [worker for worker, _ in batch]
        inference.ask([self._observation(worker, query) for worker, query in batch])

    def _answer(self) -> None:
        """Pass the policy's answers on; those for a worker that was replaced meanwhile go nowhere."""
        for result in self._inference.results() if self._inference is not None else ():
            if isinstance(result, PolicyFailure):
                raise _RunEndedError(RunEnd(reason="policy_error", detail=result.detail))
            for worker, chunk in zip(self._asked, result.chunks, strict=True):
                if worker in self._workers:
                    worker.send(Chunk(actions=chunk.actions, took_s=result.took_s))

    def _observation(self, worker: WorkerProcess, query: Query) -> Observation:
        assert worker.job is not None
        return Observation(
            images=self._slots.images[worker.slot].copy(),
            proprio=query.proprio,
            instruction=query.instruction,
            episode_id=worker.job.spec.episode_id,
            step=query.step,
        )


def _error_record(job: Job, why: str) -> EpisodeRecord:
    return EpisodeRecord(
        spec=job.spec,
        outcome=Outcome.ERROR,
        error=why,
        steps=0,
        queries=0,
        clipped_actions=0,
        time_spent=TimeSpent(build_s=0.0, reset_s=0.0, physics_s=0.0, render_s=0.0, policy_s=0.0, wait_s=0.0),
        attempt=job.attempt,
        final_state_sha256="",
        trace="",
        video="",
    )
