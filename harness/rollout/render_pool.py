"""Renders what finished episodes left a trace of on worker processes: videos, or demonstrations with their images."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.rollout import shared_images
from harness.rollout.dealer import Dealer
from harness.rollout.messages import CannotStart, Failed, Ready, RenderDemonstration, Rendered, RenderVideo
from harness.rollout.worker_process import Lost, WorkerProcess, device_of, incoming
from harness.sim.gl import Backend
from harness.sim.settings import RolloutSettings
from harness.sim.worker import WorkerSetup
from tasks.interface import EpisodeRecord

MAX_FAILED_STARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderResult:
    """What became of one episode's rendering."""

    record: EpisodeRecord
    error: str
    """Empty when the file is there."""


class RenderPoolError(Exception):
    """No worker can render; the message says what is missing."""


class RenderPool:
    """Renders in parallel; a worker stays on a task while it can.

    Args:
        settings: of the run; its cameras and image convention are what the policy saw.
        backend: GL backend.
        egl_devices: EGL's numbers of the devices that workers draw on in turn; empty for the default.
        workers: processes at most.
        request: what to ask a worker for an episode.
        timeout_s: longest wait for one episode.
    """

    def __init__(
        self,
        *,
        settings: RolloutSettings,
        backend: Backend,
        egl_devices: Sequence[int],
        workers: int,
        request: Callable[[EpisodeRecord], RenderVideo | RenderDemonstration],
        timeout_s: float,
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._egl_devices = egl_devices
        self._limit = workers
        self._request = request
        self._timeout_s = timeout_s
        self._failed_starts = 0
        self._workers: list[WorkerProcess] = []

    def render(self, records: Sequence[EpisodeRecord], on_result: Callable[[RenderResult], None]) -> None:
        """Render `records`; returns when each has a result. Whole files are kept, whatever happens.

        Raises:
            RenderPoolError: workers cannot start.
        """
        self._records = {record.spec.episode_id: record for record in records}
        self._on_result = on_result
        self._dealer = Dealer([record.spec for record in records])
        self._descriptor = shared_images.create(0)  # no images travel; workers expect a place for them
        try:
            for slot in range(min(self._limit, len(records))):
                self._workers.append(self._start(slot))
            while self._dealer or any(worker.job for worker in self._workers):
                self._deal()
                for worker, message in incoming(list(self._workers)):
                    self._take(worker, message)
        finally:
            for worker in self._workers:
                worker.kill()
            self._workers = []
            os.close(self._descriptor)

    def _start(self, slot: int) -> WorkerProcess:
        setup = WorkerSetup(
            settings=self._settings,
            backend=self._backend,
            egl_device=device_of(slot, self._egl_devices),
            slot=slot,
            image_shape=(0,),
            image_descriptor=self._descriptor,
        )
        return WorkerProcess(setup, workers=self._limit, timeout_s=self._timeout_s)

    def _deal(self) -> None:
        for worker in self._workers:
            if worker.ready and worker.job is None:
                busy = [other.task for other in self._workers if other is not worker and other.task]
                job = self._dealer.deal(worker.task, busy)
                if job is None:
                    continue
                worker.job, worker.task = job, job.task
                worker.send(self._request(self._records[job.spec.episode_id]))

    def _take(self, worker: WorkerProcess, message: object) -> None:
        match message:
            case Lost():
                self._replace(worker, message.why)
            case Ready():
                worker.ready, self._failed_starts = True, 0
            case CannotStart():
                raise RenderPoolError(message.reason)
            case Rendered():
                self._end(worker, error="")
            case Failed():
                self._end(worker, error=message.error)

    def _end(self, worker: WorkerProcess, *, error: str) -> None:
        assert worker.job is not None
        job, worker.job = worker.job, None
        self._on_result(RenderResult(record=self._records[job.spec.episode_id], error=error))

    def _replace(self, worker: WorkerProcess, why: str) -> None:
        """A worker died or stalls: its episode is given up, another worker takes its place."""
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise RenderPoolError(f"workers do not start: {why}")
        if worker.job is not None:
            self._end(worker, error=why)
        worker.kill()
        self._workers[self._workers.index(worker)] = self._start(worker.slot)
