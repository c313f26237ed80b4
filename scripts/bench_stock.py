#!/usr/bin/env python
"""Environment steps per second: stock LIBERO in parallel processes against this harness, in one run.

    python scripts/bench_stock.py                  # 2 processes, about 5 minutes with software GL
    python scripts/bench_stock.py --processes 16 --episodes 32

Both run the same episodes of the same task (official init states, settling, both cameras at 256 px) with the same random actions,
in chunks of 8, to the horizon. Stock is `OffScreenRenderEnv` as evaluation scripts use it: a hard reset per episode, a render
every step. Times are from start to end on both sides: starting processes, making environments, resets and all.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from harness.machine import usable_cores
from harness.policies.simple import RandomPolicy
from harness.rollout.engine import Engine, EngineLimits
from harness.rollout.worker_process import thread_limits
from harness.sim.gl import choose_backend, set_environment
from harness.sim.settings import RolloutSettings
from results.manifest import machine_name
from tasks.interface import CAMERAS, EpisodeRecord, Observation, OpenLoopSpec, PolicyNeeds
from tasks.plan import plan_official
from tasks.protocols import openvla
from tasks.suites import select_tasks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare the speed with stock LIBERO's."""

    suite: str = "libero_spatial"
    """Suite of the task."""
    task: str = "0"
    """Task to run."""
    episodes: int = 4
    """Episodes for each side."""
    processes: int = dataclasses.field(default_factory=usable_cores)
    """Processes for each side."""
    mujoco_gl: Literal["auto", "egl", "osmesa"] = "auto"
    """How images are rendered."""


class SeeingRandomPolicy(RandomPolicy):
    """Random actions, but the images are asked for: rendering is what is measured."""

    needs = PolicyNeeds(cameras=CAMERAS, image_convention="raw", batch_size=1, ensemble=OpenLoopSpec())


def stock_process(arguments: Arguments, share: Sequence[int], counts: Any) -> None:
    """Run the episodes `share` on stock LIBERO; put the number of control steps into the queue `counts`."""
    from tasks import init_states
    from tests.harness.stock import stock_environment

    (task,) = select_tasks(arguments.suite, [arguments.task])
    protocol = openvla()
    specs = plan_official([task], protocol, episodes=arguments.episodes).episodes
    states = init_states.read(task.init_states_file)
    env = stock_environment(task, size_px=protocol.render_size_px)
    env.seed(protocol.reset_seed)
    policy = SeeingRandomPolicy(seed=0)
    total = 0
    for index in share:
        env.reset()
        observation = env.set_init_state(states[index])
        for _ in range(protocol.settle_steps):
            observation, *_ = env.step([0.0] * 6 + [protocol.settle_gripper])
        step, finished = 0, False
        while step < protocol.horizon(task) and not finished:
            seen = Observation(
                images=observation["agentview_image"][None], proprio=observation["robot0_eef_pos"],
                instruction="", episode_id=specs[index].episode_id, step=step,
            )  # fmt: skip
            for action in policy.act([seen])[0].actions:
                observation, _, finished, _ = env.step(action)
                step += 1
                if finished or step == protocol.horizon(task):
                    break
        total += step
    counts.put(total)
    counts.close()
    counts.join_thread()
    os._exit(0)


def time_stock(arguments: Arguments) -> tuple[float, int]:
    """Seconds stock takes for all episodes, and the control steps it made."""
    os.environ.update(thread_limits(arguments.processes))
    context = multiprocessing.get_context("spawn")
    counts: Any = context.Queue()
    shares = [range(slot, arguments.episodes, arguments.processes) for slot in range(arguments.processes)]
    started = time.perf_counter()
    processes = [context.Process(target=stock_process, args=(arguments, share, counts)) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a stock process exited with status {process.exitcode}")
    return time.perf_counter() - started, sum(counts.get() for _ in processes)


def time_harness(arguments: Arguments, backend: Literal["egl", "osmesa"]) -> tuple[float, list[EpisodeRecord]]:
    """Seconds the harness takes for all episodes, and their records."""
    protocol = openvla()
    specs = plan_official(
        select_tasks(arguments.suite, [arguments.task]), protocol, episodes=arguments.episodes
    ).episodes
    records: list[EpisodeRecord] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = RolloutSettings(
            protocol=protocol.name, cameras=CAMERAS, image_convention="raw", ensemble=OpenLoopSpec(),
            worker_policy="", run_dir=Path(folder),
        )  # fmt: skip
        engine = Engine(
            policy=SeeingRandomPolicy(seed=0), settings=settings, image_size_px=protocol.render_size_px, backend=backend,
            workers=arguments.processes, limits=EngineLimits(worker_timeout_s=600, max_errors=0), on_record=records.append,
            on_incident=print,
        )  # fmt: skip
        started = time.perf_counter()
        end = engine.run(specs)
    if end.reason != "completed":
        raise SystemExit(end.detail)
    return time.perf_counter() - started, records


def main(arguments: Arguments) -> None:
    if arguments.episodes % arguments.processes:
        raise SystemExit(
            f"--episodes must be a multiple of --processes, got {arguments.episodes} and {arguments.processes}"
        )
    backend, renderer = choose_backend(arguments.mujoco_gl)
    set_environment(backend)
    print(
        f"{machine_name()}; {backend}: {renderer}; {arguments.processes} processes; {arguments.suite} task {arguments.task}"
    )
    harness_s, records = time_harness(arguments, backend)
    steps = sum(record.steps for record in records)
    print(f"this harness: {steps} steps in {harness_s:.1f} s, {steps / harness_s:.1f} steps/s", flush=True)
    stock_s, stock_steps = time_stock(arguments)
    print(f"stock LIBERO: {stock_steps} steps in {stock_s:.1f} s, {stock_steps / stock_s:.1f} steps/s")
    if steps != stock_steps:
        raise SystemExit("the two sides made different numbers of steps: they did not run the same episodes")
    print(f"this harness makes {steps / harness_s / (stock_steps / stock_s):.2f} times the steps per second")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
