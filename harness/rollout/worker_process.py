"""The parent's handle of one worker process."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

from harness.machine import usable_cores
from harness.rollout.dealer import Job
from harness.sim.subprocess_environment import package_environment
from harness.sim.worker import WorkerSetup

LOG_TAIL_BYTES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """In place of a message: the worker died, or its answer is overdue and it was ended."""

    why: str


def incoming(
    workers: Sequence[WorkerProcess], also: Sequence[Connection] = ()
) -> Iterator[tuple[WorkerProcess, object]]:
    """Wait until something happens, at most a few seconds; then everything that did, one message or `Lost` per worker.

    A message is read when it is asked for: where the caller stops early, the others stay in their pipes.

    Args:
        workers: whom to listen to.
        also: connections that end the wait, too, when they can be read from; they are left unread.
    """
    timeout_s = min(worker.seconds_left() for worker in workers)
    by_connection = {worker.connection: worker for worker in workers}
    heard = set()
    for connection in wait([*by_connection, *also], timeout=max(0.0, min(timeout_s, 5.0))):
        if connection in also:
            continue
        worker = by_connection[connection]  # type: ignore[index]
        heard.add(worker)
        try:
            message = worker.receive()
        except (EOFError, OSError):
            message = Lost(why=worker.post_mortem())
        yield worker, message
    for worker in workers:
        if worker not in heard and worker.seconds_left() < 0:
            yield (
                worker,
                Lost(why=f"no answer within {worker.timeout_s:g} s (--worker-timeout-s); {worker.post_mortem()}"),
            )


def device_of(slot: int, egl_devices: Sequence[int]) -> int:
    """The device that a worker draws on; -1 for the default."""
    return egl_devices[slot % len(egl_devices)] if egl_devices else -1


def thread_limits(processes: int) -> dict[str, str]:
    """Environment variables that keep `processes` simulators from fighting for cores.

    The simulator's matrices are 7 × 7: no library gains from threads; llvmpipe, Mesa's software GL, does.
    """
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return single | {"LP_NUM_THREADS": str(max(1, usable_cores() // processes))}


class WorkerProcess:
    """Starts a worker and keeps track of what it is doing.

    Args:
        setup: what the worker is told first.
        workers: how many share the machine.
        timeout_s: longest wait for any answer.
    """

    def __init__(self, setup: WorkerSetup, *, workers: int, timeout_s: float) -> None:
        self.slot = setup.slot
        self.job: Job | None = None
        self.task = ""
        """The task the worker has compiled."""
        self.ready = False
        self.timeout_s = timeout_s
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed in kill)
        self.connection, theirs = Pipe()
        environment = package_environment() | thread_limits(workers)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "harness.sim.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno(), setup.image_descriptor],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=environment,
            )
        self.send(setup)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: Any) -> None:
        """Send and start the clock for the answer. A dead worker is noticed when its answer is read."""
        self._deadline = time.monotonic() + self.timeout_s
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)

    def receive(self) -> Any:
        """The worker's next message; until the next `send` it owes no other.

        Raises:
            EOFError: the worker is gone.
            OSError: likewise.
        """
        message = self.connection.recv()
        self._deadline = math.inf
        return message

    def seconds_left(self) -> float:
        """Time until an answer is overdue [s]; infinite while none is due."""
        return self._deadline - time.monotonic()

    def post_mortem(self) -> str:
        """What is known of a worker that went away: its exit status and the end of its output. Ends it if it has not."""
        try:
            code = self._process.wait(timeout=1 if self.seconds_left() > 0 else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            code = 0
        if code == 0:
            how = "stopped answering"
        elif code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"exited with status {code}"
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - LOG_TAIL_BYTES))
        output = self._log.read().decode(errors="replace").strip()
        return f"worker process {self.pid} {how}" + (f"; the end of its output:\n{output}" if output else "")

    def kill(self) -> None:
        """End the process at once."""
        self.connection.close()
        self._process.kill()
        self._process.wait()
        self._log.close()
