"""The stock side of `bench_rollout.py`: LIBERO's own environments, driven as evaluation scripts do."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.interface import EpisodeSpec, Official, TaskSpec
from tasks.protocols import openvla

SIZE_PX = openvla().render_size_px


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Episode:
    """An episode and the actions that every side executes in it."""

    spec: EpisodeSpec
    actions: NDArray[np.float64]
    """(steps, 7)"""

    @property
    def index(self) -> int:
        assert isinstance(self.spec.init, Official)
        return self.spec.init.index


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What one process did, and how long it took [s]."""

    steps: int
    episodes: int
    start_s: float
    """Imports, environments."""
    reset_s: float
    """Resets, init states, settling."""
    step_s: float


def run_loop(episodes: Sequence[Episode], started: float) -> Spent:
    """`OffScreenRenderEnv`, one episode after another: a hard reset each, both cameras rendered at every step.

    Args:
        episodes: in order; a task's lie together.
        started: when the process was started, `time.time()`.
    """
    from tasks import init_states
    from tests.harness.stock import stock_environment

    protocol = openvla()
    settling = [0.0] * 6 + [protocol.settle_gripper]
    start_s = time.time() - started
    reset_s = step_s = 0.0
    env: Any = None
    task: TaskSpec | None = None
    for episode in episodes:
        if task != episode.spec.task:
            begun = time.perf_counter()
            if env is not None:
                env.close()
            task = episode.spec.task
            env = stock_environment(task, size_px=SIZE_PX)
            env.seed(protocol.reset_seed)
            states = init_states.read(task.init_states_file)
            start_s += time.perf_counter() - begun
        begun = time.perf_counter()
        env.reset()
        env.set_init_state(states[episode.index])
        for _ in range(protocol.settle_steps):
            env.step(settling)
        reset_s += time.perf_counter() - begun
        begun = time.perf_counter()
        for action in episode.actions:
            env.step(action)
        step_s += time.perf_counter() - begun
    steps = sum(len(episode.actions) for episode in episodes)
    return Spent(steps=steps, episodes=len(episodes), start_s=start_s, reset_s=reset_s, step_s=step_s)


def _loop_process(episodes: Sequence[Episode], started: float, results: Any) -> None:
    results.put(run_loop(episodes, started))
    results.close()
    results.join_thread()
    os._exit(0)  # robosuite's GL context complains at exit


def time_loops(episodes: Sequence[Episode], processes: int) -> tuple[float, list[Spent]]:
    """Wall time of `processes` independent loops that share the episodes, and what each did."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    bounds = np.linspace(0, len(episodes), processes + 1).astype(int)
    started = time.time()
    running = []
    for low, high in itertools.pairwise(bounds):
        if low < high:
            process = context.Process(target=_loop_process, args=(list(episodes[low:high]), started, results))
            process.start()
            running.append(process)
    for process in running:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a stock process exited with status {process.exitcode}")
    return time.time() - started, [results.get() for _ in running]


def time_vector(episodes: Sequence[Episode], processes: int) -> tuple[float, list[Spent]]:
    """Wall time of LIBERO's `SubprocVectorEnv`, which steps all environments of a task in lockstep.

    Args:
        episodes: of one task; as many as `processes`, or a multiple.
    """
    from tasks import init_states
    from tests.harness.stock import stock_environment

    from libero.libero.envs import SubprocVectorEnv  # isort: skip  (the stack above must come first)

    protocol = openvla()
    started = time.time()
    (task,) = {episode.spec.task for episode in episodes}
    env = SubprocVectorEnv([functools.partial(stock_environment, task, size_px=SIZE_PX)] * processes)
    env.seed(protocol.reset_seed)
    states = init_states.read(task.init_states_file)
    start_s, reset_s, step_s = time.time() - started, 0.0, 0.0
    for first in range(0, len(episodes), processes):
        round_ = episodes[first : first + processes]
        ids = np.arange(len(round_))
        begun = time.perf_counter()
        env.reset(id=ids)
        env.set_init_state(states[[episode.index for episode in round_]], id=ids)
        for _ in range(protocol.settle_steps):
            env.step(np.array([[0.0] * 6 + [protocol.settle_gripper]] * len(round_)), id=ids)
        reset_s += time.perf_counter() - begun
        begun = time.perf_counter()
        for step in range(max(len(episode.actions) for episode in round_)):
            alive = np.array([i for i, episode in enumerate(round_) if step < len(episode.actions)])
            env.step(np.stack([round_[i].actions[step] for i in alive]), id=alive)
        step_s += time.perf_counter() - begun
    wall_s = time.time() - started
    env.close()
    steps = sum(len(episode.actions) for episode in episodes)
    return wall_s, [Spent(steps=steps, episodes=len(episodes), start_s=start_s, reset_s=reset_s, step_s=step_s)]
