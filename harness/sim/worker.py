"""A worker process: runs whole episodes or renders videos, one at a time, at its parent's word.

Started as `python -m harness.sim.worker CONNECTION_FD`; never forked, because an inherited GL context
crashes and a fork of the parent would drag torch along.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from harness.rollout.messages import (
    CannotStart,
    Chunk,
    Done,
    Failed,
    Query,
    Ready,
    RenderDemonstration,
    Rendered,
    RenderVideo,
    RunEpisode,
)
from harness.rollout.shared_images import ImageSlots
from harness.sim.gl import Backend, GlError, explain, prepare
from harness.sim.settings import RolloutSettings, TraceWriteError
from harness.sim.subprocess_environment import die_with_parent
from tasks.interface import ActionChunk, Observation

if TYPE_CHECKING:
    from harness.sim.episode import EpisodeRunner
    from harness.sim.episode import Query as Query_
    from harness.sim.trace_demonstration import TraceDemonstrations
    from harness.sim.trace_video import TraceVideos


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """The parent's first message."""

    settings: RolloutSettings
    backend: Backend
    egl_device: int
    """EGL's number of the device to draw on; -1 for the default."""
    slot: int
    """This worker's row of the shared images."""
    image_shape: tuple[int, ...]
    """(slots, cameras, H, W, 3)"""
    image_descriptor: int


class _ParentGoneError(Exception):
    """The parent closed the connection in the middle of an episode."""


def _start_runner(setup: WorkerSetup) -> tuple[EpisodeRunner, str]:
    """The runner and the GL renderer string.

    Raises:
        GlError: a GL library is missing.
    """
    if setup.egl_device >= 0:
        os.environ["MUJOCO_EGL_DEVICE_ID"] = str(setup.egl_device)
    renderer = prepare(setup.backend, bool(setup.settings.cameras))
    try:
        from harness.sim.episode import EpisodeRunner
    except (ImportError, OSError) as error:
        if ".so" in str(error):
            raise GlError(explain(error, "the simulation stack cannot be imported")) from error
        raise
    gc.freeze()  # what is imported is never garbage: collections need not look at it
    return EpisodeRunner(setup.settings), renderer


def serve(connection: Connection) -> None:
    """Obey the parent until it says stop or goes away."""
    setup: WorkerSetup = connection.recv()
    try:
        runner, renderer = _start_runner(setup)
    except GlError as error:
        connection.send(CannotStart(reason=str(error)))
        return
    except Exception:
        connection.send(CannotStart(reason=traceback.format_exc()))
        return
    slots = ImageSlots(setup.image_descriptor, setup.image_shape)

    def query(observation: Observation) -> tuple[ActionChunk, float]:
        slots.images[setup.slot] = observation.images
        connection.send(Query(proprio=observation.proprio, instruction=observation.instruction, step=observation.step))
        try:
            answer = connection.recv()
        except (EOFError, OSError) as error:
            raise _ParentGoneError from error
        assert isinstance(answer, Chunk)
        return ActionChunk(actions=answer.actions), answer.took_s

    connection.send(Ready(renderer=renderer))
    rendering = _Rendering(setup.settings)
    while True:
        message = connection.recv()
        if isinstance(message, RenderVideo | RenderDemonstration):
            connection.send(rendering.render(message))
        else:
            assert isinstance(message, RunEpisode)
            connection.send(_run(runner, message, query))


def _run(runner: EpisodeRunner, message: RunEpisode, query: Query_) -> Done | Failed:
    from harness.sim.settings import WorkerPolicyError
    from harness.sim.simulator import SimulatorError

    try:
        return Done(record=runner.run(message.spec, message.attempt, query))
    except _ParentGoneError:
        raise
    except WorkerPolicyError:
        return Failed(error=traceback.format_exc(), kind="policy")
    except TraceWriteError as error:
        return Failed(error=str(error), kind="storage")
    except Exception as error:
        runner.close()  # whatever state it is in, the next episode starts from a fresh one
        return Failed(error=traceback.format_exc(), kind="simulation" if isinstance(error, SimulatorError) else "other")


class _Rendering:
    """Renders from traces, one kind of thing after another.

    Args:
        settings: of the run.
    """

    def __init__(self, settings: RolloutSettings) -> None:
        self._settings = settings
        self._kind: tuple[object, ...] = ()
        self._renderer: TraceVideos | TraceDemonstrations

    def render(self, message: RenderVideo | RenderDemonstration) -> Rendered | Failed:
        from results.trace import TraceError

        try:
            if isinstance(message, RenderVideo):
                self._videos(message).render(message.spec, message.outcome)
            else:
                self._demonstrations(message).render(message.spec, message.into)
        except TraceError as error:
            return Failed(error=str(error), kind="other")
        except OSError as error:
            return Failed(error=f"{type(error).__name__}: {error}", kind="storage")
        except Exception:
            self._kind = ()
            return Failed(error=traceback.format_exc(), kind="other")
        return Rendered()

    def _videos(self, message: RenderVideo) -> TraceVideos:
        from harness.sim.trace_video import TraceVideos

        kind = (TraceVideos, message.size_px, message.policy_view)
        if kind != self._kind:
            self._renderer = TraceVideos(self._settings, size_px=message.size_px, policy_view=message.policy_view)
            self._kind = kind
        assert isinstance(self._renderer, TraceVideos)
        return self._renderer

    def _demonstrations(self, message: RenderDemonstration) -> TraceDemonstrations:
        from harness.sim.trace_demonstration import TraceDemonstrations

        kind = (TraceDemonstrations, message.size_px)
        if kind != self._kind:
            self._renderer = TraceDemonstrations(self._settings, size_px=message.size_px)
            self._kind = kind
        assert isinstance(self._renderer, TraceDemonstrations)
        return self._renderer


def main() -> None:
    """Serve on the connection whose file descriptor is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    die_with_parent()
    connection = Connection(int(sys.argv[1]))
    with contextlib.suppress(_ParentGoneError, EOFError, BrokenPipeError, ConnectionResetError):  # nobody to tell
        serve(connection)
    sys.stderr.flush()
    os._exit(0)  # GL's exit handlers print errors that mean nothing


if __name__ == "__main__":
    main()
