"""Runs one episode from reset to success or horizon, and writes its trace.

The same code runs inside a worker process and, with `--workers 0`, in the command itself; what differs is
the `query` callable that turns an observation into a chunk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.ensembling import make_ensembler
from harness.machine import return_freed_memory
from harness.policies.worker import make_worker_policy
from harness.sim.disturbance import steps_allowed
from harness.sim.privileged import SimulatorPrivilegedState
from harness.sim.renderer import convert
from harness.sim.settings import Demonstrating, RolloutSettings, TraceWriteError, WorkerPolicyError
from harness.sim.simulator import Simulator, SimulatorState
from results.trace import Trace, trace_path, write_trace
from tasks.demonstrations import read_demonstration_start
from tasks.interface import (
    ACTION_DIM,
    PROPRIO_DIM,
    ActionChunk,
    ActionError,
    EpisodeRecord,
    EpisodeSpec,
    Observation,
    Outcome,
    Recorded,
    TimeSpent,
)
from tasks.protocols import find_protocol

Query = Callable[[Observation], tuple[ActionChunk, float]]
"""Observation → chunk, and the wall time the policy took for it [s]."""


class ActionSource(Protocol):
    """Where the actions of one episode come from."""

    @property
    def queries(self) -> int: ...

    def action(self, step: int) -> NDArray[np.float64]: ...


class ChunkedSource:
    """Queries a policy for chunks and ensembles them."""

    def __init__(
        self,
        settings: RolloutSettings,
        observe: Callable[[int], Observation],
        query: Callable[[Observation], ActionChunk],
    ) -> None:
        self.queries = 0
        self._observe = observe
        self._query = query
        self._ensembler = make_ensembler(settings.ensemble)

    def action(self, step: int) -> NDArray[np.float64]:
        if self._ensembler.wants_chunk(step):
            self._ensembler.push(self._query(self._observe(step)), step)
            self.queries += 1
        return self._ensembler.action(step)


class PrivilegedSource:
    """Asks a worker policy for every action."""

    def __init__(self, name: str, spec: EpisodeSpec, simulator: Simulator, spent: _Spent) -> None:
        self.queries = 0
        self._state = SimulatorPrivilegedState(simulator)
        self._spent = spent
        self._spec = spec
        self._policy = _guarded(spec, lambda: make_worker_policy(name))

    def action(self, step: int) -> NDArray[np.float64]:
        started = time.perf_counter()
        action = _guarded(self._spec, lambda: np.asarray(self._policy.act(self._state), dtype=np.float64))
        self._spent.policy_s += time.perf_counter() - started
        self.queries += 1
        return _one_action(self._spec, step, action)


class Demonstration:
    """The expert's actions as `DemonstrationSource` gives them, with an observation recorded for every one."""

    def __init__(
        self,
        settings: Demonstrating,
        spec: EpisodeSpec,
        simulator: Simulator,
        rows: _TraceRows,
        driver: Callable[[], ChunkedSource],
    ) -> None:
        from harness.sim.demonstrating import DemonstrationSource  # scipy: not in workers that evaluate

        self._spec, self._simulator, self._rows = spec, simulator, rows
        state = SimulatorPrivilegedState(simulator)
        self._source = DemonstrationSource(settings, spec.episode_id, state, driver)

    @property
    def queries(self) -> int:
        return self._source.queries

    @property
    def labels(self) -> list[NDArray[np.float64]]:
        return self._source.labels

    def action(self, step: int) -> NDArray[np.float64]:
        observed = len(self._rows.query_steps)
        action = self._source.action(step)
        if len(self._rows.query_steps) == observed:  # no policy looked
            self._rows.add_query(self._simulator, step)
        return _one_action(self._spec, step, action)

    def finished(self, succeeded: bool) -> bool:
        return self._source.finished(succeeded=succeeded)


def _guarded(spec: EpisodeSpec, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        raise WorkerPolicyError(
            f"{spec.episode_id}: the worker policy raised {type(error).__name__}: {error}"
        ) from error


def _one_action(spec: EpisodeSpec, step: int, action: NDArray[np.float64]) -> NDArray[np.float64]:
    """`action` (7,), checked."""
    try:
        return ActionChunk(actions=action.reshape(1, -1)).actions[0]
    except ActionError as error:
        raise WorkerPolicyError(f"{spec.episode_id} step {step}: {error}") from error


@dataclass(slots=True)
class _Spent:
    policy_s: float = 0.0
    wait_s: float = 0.0


@dataclass(slots=True)
class _TraceRows:
    """A trace being recorded."""

    states: list[SimulatorState] = field(default_factory=list)
    actions: list[NDArray[np.float64]] = field(default_factory=list)
    query_steps: list[int] = field(default_factory=list)
    query_qpos: list[NDArray[np.float64]] = field(default_factory=list)
    query_site_alpha: list[NDArray[np.float32]] = field(default_factory=list)
    query_proprio: list[NDArray[np.float32]] = field(default_factory=list)
    labels: list[NDArray[np.float64]] = field(default_factory=list)

    def add_query(self, simulator: Simulator, step: int) -> None:
        sampled = simulator.sampled
        self.query_steps.append(step)
        self.query_qpos.append(sampled.qpos)
        self.query_site_alpha.append(sampled.sites_rgba[:, 3])
        self.query_proprio.append(sampled.proprio)

    def trace(self, spec: EpisodeSpec, simulator: Simulator) -> Trace:
        nq, nsite = simulator.scene.model.nq, simulator.scene.model.nsite
        queries = len(self.query_steps)
        return Trace(
            episode_id=spec.episode_id,
            protocol=spec.protocol,
            time_s=np.array([state.time_s for state in self.states]),
            qpos=np.stack([state.qpos for state in self.states]),
            qvel=np.stack([state.qvel for state in self.states]),
            site_alpha=np.stack([state.site_alpha for state in self.states]),
            actions=np.array(self.actions, dtype=np.float64).reshape(-1, ACTION_DIM),
            fixtures=simulator.scene.fixtures,
            fixture_poses=simulator.scene.fixture_poses(),
            query_steps=np.array(self.query_steps, dtype=np.int32),
            query_qpos=np.array(self.query_qpos, dtype=np.float64).reshape(queries, nq),
            query_site_alpha=np.array(self.query_site_alpha, dtype=np.float32).reshape(queries, nsite),
            query_proprio=np.array(self.query_proprio, dtype=np.float32).reshape(queries, PROPRIO_DIM),
            labels=np.array(self.labels, dtype=np.float64).reshape(-1, ACTION_DIM),
        )


class EpisodeRunner:
    """Runs episodes one after another, keeping the last task's simulator alive.

    Args:
        settings: the run's settings.
    """

    def __init__(self, settings: RolloutSettings) -> None:
        self._settings = settings
        self._protocol = find_protocol(settings.protocol)
        self._simulator: Simulator | None = None

    def close(self) -> None:
        """Release the live simulator."""
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None
            return_freed_memory()  # robosuite's environments refer to themselves

    def run(self, spec: EpisodeSpec, attempt: int, query: Query) -> EpisodeRecord:
        """One episode.

        Args:
            spec: which.
            attempt: 1 for the first try.
            query: called at query steps only.

        Raises:
            WorkerPolicyError: a worker policy raised or returned no action.
            SimulatorError: the simulation failed.
            TraceWriteError: the trace cannot be written.
        """
        simulator = self._ready(spec)
        spent, rows = _Spent(), _TraceRows()
        built_s, simulator.times.build_s = simulator.times.build_s, 0.0
        simulator.reset(spec)
        rows.states.append(simulator.state())
        source = self._source(spec, simulator, rows, spent, query)
        horizon, over = self._length(spec), self._ending(spec, source)
        succeeded, clipped = False, 0
        for step in range(horizon):
            action = source.action(step)
            clipped += bool((np.abs(action[:-1]) > 1.0).any())
            rows.actions.append(action)
            succeeded = simulator.step(action) or succeeded
            rows.states.append(simulator.state())
            if over(succeeded):
                break
        if isinstance(source, Demonstration):
            rows.labels = source.labels
        trace = rows.trace(spec, simulator)
        self._keep(trace)
        return EpisodeRecord(
            spec=spec,
            outcome=Outcome.SUCCESS if succeeded else Outcome.TIMEOUT,
            error="",
            steps=len(rows.actions),
            queries=source.queries,
            clipped_actions=clipped,
            time_spent=TimeSpent(
                build_s=built_s + simulator.times.build_s,
                reset_s=simulator.times.reset_s,
                physics_s=simulator.times.physics_s,
                render_s=simulator.times.render_s,
                policy_s=spent.policy_s,
                wait_s=spent.wait_s,
            ),
            attempt=attempt,
            final_state_sha256=trace.state_sha256(-1),
            trace=trace_path(spec.episode_id),
            video="",
        )

    def _keep(self, trace: Trace) -> None:
        file = self._settings.run_dir / trace_path(trace.episode_id)
        try:
            write_trace(file, trace)
        except OSError as error:
            raise TraceWriteError(
                f"cannot write the trace {file}: {error.strerror or error}. Free some space there and repeat the command."
            ) from error

    def _ready(self, spec: EpisodeSpec) -> Simulator:
        """The simulator for an episode: of its task, or of its demonstration's model.

        The previous one is released first, so that memory holds one.
        """
        xml = ""
        if isinstance(spec.init, Recorded):
            xml = read_demonstration_start(spec.init.file, spec.init.demo).model_xml
        live = self._simulator
        if live is not None and (live.task, live.recorded_xml) == (spec.task, xml):
            return live
        del live
        self.close()
        self._simulator = Simulator(spec.task, self._protocol, xml)
        return self._simulator

    def _source(
        self, spec: EpisodeSpec, simulator: Simulator, rows: _TraceRows, spent: _Spent, query: Query
    ) -> ActionSource:
        def observe(step: int) -> Observation:
            rows.add_query(simulator, step)
            images = simulator.images(self._settings.cameras)
            return Observation(
                images=np.stack([convert(image, self._settings.image_convention) for image in images])
                if len(images)
                else images,
                proprio=simulator.sampled.proprio,
                instruction=self._protocol.instruction(spec.task),
                episode_id=spec.episode_id,
                step=step,
            )

        def timed_query(observation: Observation) -> ActionChunk:
            started = time.perf_counter()
            chunk, policy_s = query(observation)
            spent.policy_s += policy_s
            spent.wait_s += time.perf_counter() - started - policy_s
            return chunk

        def driver() -> ChunkedSource:
            return ChunkedSource(self._settings, observe, timed_query)

        demonstrating = self._settings.demonstrating
        if demonstrating is not None:
            return Demonstration(demonstrating, spec, simulator, rows, driver)
        if self._settings.worker_policy:
            return PrivilegedSource(self._settings.worker_policy, spec, simulator, spent)
        return driver()

    def _length(self, spec: EpisodeSpec) -> int:
        """Control steps at most."""
        horizon = self._protocol.horizon(spec.task)
        if self._settings.demonstrating is not None:
            return steps_allowed(horizon, self._settings.demonstrating.noise, self._settings.demonstrating.misplaced)
        return self._settings.recorded_steps.get(spec.episode_id, horizon)

    def _ending(self, spec: EpisodeSpec, source: ActionSource) -> Callable[[bool], bool]:
        """Whether an episode ends now, from whether the goal has held."""
        if isinstance(source, Demonstration):
            return source.finished
        if spec.episode_id in self._settings.recorded_steps:
            return lambda succeeded: False
        return lambda succeeded: succeeded
