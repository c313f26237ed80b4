#!/usr/bin/env python
"""This harness against stock LIBERO, side by side in one run: the same tasks, init states and actions.

    python scripts/bench_rollout.py --quick                # under 3 minutes on 2 cores with software GL
    python scripts/bench_rollout.py                        # about 12 minutes there
    python scripts/bench_rollout.py --processes 16 --workers 24 --tasks 0 1 2 3 4 5 6 7 8 9 --episodes 20

Stock is `OffScreenRenderEnv` as evaluation scripts use it (a hard reset per episode, a render every step): one sequential loop, as
many independent loops as processes, and LIBERO's own `SubprocVectorEnv`, which goes in lockstep. The actions are the scripted
expert's; all sides execute as many in each episode. Both cameras at 256 px.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

# Stock LIBERO, to compare with, is in `tests`, which is not installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))
from stock_rollouts import SIZE_PX, Episode, Spent, time_loops, time_vector

from harness.drawing import Drawing, find_drawing
from harness.machine import count_workers, usable_cores
from harness.rollout.engine import Engine, EngineLimits
from harness.rollout.worker_process import thread_limits
from harness.sim.gl import set_environment
from harness.sim.settings import RolloutSettings
from results.manifest import machine_name
from results.summary import time_shares
from results.trace import read_trace
from tasks.interface import CAMERAS, ActionChunk, EpisodeRecord, EpisodeSpec, Observation, OpenLoopSpec, PolicyNeeds
from tasks.plan import plan_official
from tasks.protocols import openvla
from tasks.suites import select_tasks

QUICK_STEPS = 30
Part = Literal["control", "reset", "rollout", "every_step"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare the speed with stock LIBERO's."""

    suite: str = "libero_spatial"
    """Suite; the scripted expert must know it."""
    tasks: tuple[str, ...] = ("0", "1")
    """Tasks."""
    episodes: int = 4
    """Episodes per task."""
    processes: int = dataclasses.field(default_factory=usable_cores)
    """Processes of stock LIBERO."""
    workers: str = "auto"
    """Workers of this harness; auto: as `vla-eval` decides."""
    parts: tuple[Part, ...] = ("control", "reset", "rollout", "every_step")
    """What to compare: physics and control on one core; resets; episodes in chunks of 8; the same with a query every step."""
    sequential: bool = True
    """Whether to run the sequential stock loop, the slowest of all (on the first task)."""
    vector: bool = True
    """Whether to run `SubprocVectorEnv` (on the first task)."""
    mujoco_gl: Literal["auto", "egl", "osmesa"] = "auto"
    """How images are rendered."""
    quick: bool = False
    """One task, the first 30 steps of as many episodes as processes, and no sequential loop."""


class ExpertActions:
    """Answers queries with recorded actions, in chunks; a policy that costs nothing."""

    def __init__(self, episodes: Sequence[Episode], execute_steps: int) -> None:
        self.needs = PolicyNeeds(
            cameras=CAMERAS, image_convention=None, batch_size=8, ensemble=OpenLoopSpec(execute_steps=execute_steps)
        )
        self._actions = {episode.spec.episode_id: episode.actions for episode in episodes}
        self._steps = execute_steps

    def start(self, specs: Sequence[EpisodeSpec]) -> None: ...

    def finish(self, episode_ids: Sequence[str]) -> None: ...

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        return [self._chunk(observation) for observation in observations]

    def _chunk(self, observation: Observation) -> ActionChunk:
        actions = self._actions.get(observation.episode_id, np.zeros((1, 7)))[observation.step :][: self._steps]
        missing = self._steps - len(actions)
        return ActionChunk(actions=np.concatenate([actions, np.zeros((missing, 7))]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """What is measured on."""

    drawn: Drawing
    workers: int


def run_harness(
    specs: Sequence[EpisodeSpec],
    policy: ExpertActions | None,
    machine: Machine,
    folder: Path,
    lengths: Mapping[str, int] | None = None,
) -> tuple[float, list[EpisodeRecord]]:
    """Wall time of the harness, start-up and all, and the records. Without a policy: the expert, without images.

    Args:
        lengths: steps of each episode, by id; without: up to success or the horizon.
    """
    cameras = policy.needs.cameras if policy is not None else ()
    records: list[EpisodeRecord] = []
    engine = Engine(
        policy=policy,
        settings=RolloutSettings(
            protocol=openvla().name, cameras=cameras, image_convention="rotated_180",
            ensemble=policy.needs.ensemble if policy is not None else OpenLoopSpec(),
            worker_policy="" if policy is not None else "expert", run_dir=folder,
            recorded_steps=lengths or {},
        ),
        image_size_px=SIZE_PX, backend=machine.drawn.backend, egl_devices=machine.drawn.egl_devices,
        workers=machine.workers,
        limits=EngineLimits(worker_timeout_s=600, max_errors=0), on_record=records.append, on_incident=print,
    )  # fmt: skip
    started = time.perf_counter()
    end = engine.run(specs)
    if end.reason != "completed":
        raise SystemExit(end.detail)
    return time.perf_counter() - started, records


def record_expert(arguments: Arguments, machine: Machine, folder: Path) -> list[Episode]:
    """The episodes, and what the expert did in them. This also fills the model cache."""
    tasks = select_tasks(arguments.suite, arguments.tasks)
    specs = plan_official(tasks, openvla(), episodes=arguments.episodes).episodes
    _, records = run_harness(specs, None, machine, folder)
    actions = {record.spec.episode_id: read_trace(folder / record.trace).actions for record in records}
    return [Episode(spec=spec, actions=actions[spec.episode_id]) for spec in specs]


# --- one core --------------------------------------------------------------------------------------


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure_control(episode: Episode, repeats: int) -> list[tuple[float, float]]:
    """(stock, here) seconds for the episode's actions, without cameras, several times in turn."""

    def seconds(step: Callable[[Any], Any]) -> float:
        started = time.perf_counter()
        for action in episode.actions:
            step(action)
        return time.perf_counter() - started

    from harness.sim.simulator import Simulator
    from tasks import init_states
    from tests.harness.stock import stock_environment

    task = episode.spec.task
    stock, here = stock_environment(task), Simulator(task, openvla())
    stock.seed(0)
    state = init_states.read(task.init_states_file)[episode.index]
    pairs = []
    for _ in range(repeats + 1):
        stock.reset()
        stock.set_init_state(state)
        for _ in range(10):
            stock.step([0.0] * 6 + [-1.0])
        here.reset(episode.spec)
        pairs.append((seconds(stock.step), seconds(here.step)))
    return pairs[1:]  # the first one compiles


def measure_resets(episode: Episode, images: bool, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """(stock, here) seconds of a reset, and of a reset with init state, settling and the first images if any."""
    from harness.sim.simulator import Simulator
    from tasks import init_states
    from tasks.fixture_poses import first_reset
    from tests.harness.stock import stock_environment

    task, protocol = episode.spec.task, openvla()
    stock = stock_environment(task, size_px=SIZE_PX if images else 0)
    here = Simulator(task, protocol)
    stock.seed(0)
    state = init_states.read(task.init_states_file)[episode.index]

    def stock_start() -> None:
        if images and stock.sim._render_context_offscreen is not None:
            stock.sim._render_context_offscreen.gl_ctx.make_current()  # the other side drew last
        stock.reset()
        stock.set_init_state(state)
        for _ in range(protocol.settle_steps):
            stock.step([0.0] * 6 + [protocol.settle_gripper])

    def our_start() -> None:
        here.reset(episode.spec)
        if images:
            here.images(CAMERAS)

    def our_reset() -> None:
        point = first_reset(0)
        here.scene.reset_in_sequence(point.random_state(), point.loads)

    rows: dict[str, list[tuple[float, float]]] = {"start": []}
    if not images:
        rows["reset"] = [(_seconds(stock.reset), _seconds(our_reset)) for _ in range(repeats + 1)][1:]
    rows["start"] = [(_seconds(stock_start), _seconds(our_start)) for _ in range(repeats + 1)][1:]
    return rows


def in_child(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run in a process of its own, so that one measurement leaves nothing to the next."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def report_pairs(name: str, pairs: Sequence[tuple[float, float]], per: int, unit: str) -> None:
    stock, here = (1e3 * statistics.median(pair[i] for pair in pairs) / per for i in (0, 1))
    ratio = statistics.median(a / b for a, b in pairs)
    low, high = min(a / b for a, b in pairs), max(a / b for a, b in pairs)
    print(
        f"{name}: stock {stock:.1f} {unit}, here {here:.1f} {unit}: {ratio:.2f} times ({low:.2f} – {high:.2f})",
        flush=True,
    )


# --- whole evaluations -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """One side's result."""

    steps_per_s: float
    """From start to end."""
    episodes_per_min: float
    busy_steps_per_s: float
    """While all processes are at work: start-up, model building and the last stragglers left out."""


def report(*, name: str, wall_s: float, steps: int, episodes: int, busy: float, parts: dict[str, float]) -> Speed:
    """Print a line and return its figures.

    Args:
        busy: steps per second that the processes make together while all are at work.
        parts: where their time goes.
    """
    total = sum(parts.values())
    shares = ", ".join(f"{part} {100 * value / total:.0f} %" for part, value in parts.items() if value / total >= 0.005)
    speed = Speed(steps_per_s=steps / wall_s, episodes_per_min=60 * episodes / wall_s, busy_steps_per_s=busy)
    print(
        f"{name}: {steps} steps, {episodes} episodes in {wall_s:.1f} s: {speed.steps_per_s:.1f} steps/s, "
        f"{speed.episodes_per_min:.2f} episodes/min; {busy:.1f} steps/s at work ({shares})",
        flush=True,
    )
    return speed


def report_stock(name: str, wall_s: float, spent: Sequence[Spent]) -> Speed:
    busy = sum(s.steps / (s.reset_s + s.step_s) for s in spent)
    parts = {part: sum(getattr(s, f"{part}_s") for s in spent) for part in ("start", "reset", "step")}
    steps, episodes = sum(s.steps for s in spent), sum(s.episodes for s in spent)
    return report(name=name, wall_s=wall_s, steps=steps, episodes=episodes, busy=busy, parts=parts)


def report_harness(name: str, wall_s: float, records: Sequence[EpisodeRecord], workers: int) -> Speed:
    times = [dataclasses.asdict(record.time_spent) for record in records]
    at_work = sum(sum(row.values()) - row["build_s"] for row in times)
    steps = sum(record.steps for record in records)
    busy = min(workers, len(records)) * steps / at_work
    return report(name=name, wall_s=wall_s, steps=steps, episodes=len(records), busy=busy, parts=time_shares(records))


def time_rivals(episodes: Sequence[Episode], arguments: Arguments) -> dict[str, Speed]:
    """Whole evaluations by stock LIBERO, which renders at every step, whatever the policy sees."""
    print(f"\nWhole evaluations, two cameras at {SIZE_PX} px:")
    first = [e for e in episodes if e.spec.task == episodes[0].spec.task]
    speeds = {}
    if arguments.sequential:
        speeds["stock, sequential loop"] = time_loops(first[:2], 1)
    if arguments.processes > 1:
        speeds[f"stock, {arguments.processes} independent loops"] = time_loops(episodes, arguments.processes)
    if arguments.vector:
        name = f"stock, SubprocVectorEnv of {arguments.processes}"
        speeds[name] = in_child_process(time_vector, first, arguments.processes)
    return {name: report_stock(name, *result) for name, result in speeds.items()}


def compare_rollouts(
    episodes: Sequence[Episode], execute_steps: int, machine: Machine, rivals: dict[str, Speed], *, cut: bool
) -> None:
    """Whole evaluations by this harness, and how much faster they are.

    Args:
        cut: whether the actions do not go on to success; else the harness must find it where the expert did.
    """
    lengths = {e.spec.episode_id: len(e.actions) for e in episodes}
    with tempfile.TemporaryDirectory() as folder:
        policy = ExpertActions(episodes, execute_steps)
        wall_s, records = run_harness(
            [e.spec for e in episodes], policy, machine, Path(folder), lengths if cut else None
        )
    if any(record.steps != lengths[record.spec.episode_id] for record in records):
        raise SystemExit("the harness did not repeat the expert's episodes")
    every = "step" if execute_steps == 1 else f"{execute_steps} steps"
    here = report_harness(f"here, a query every {every}, {machine.workers} workers", wall_s, records, machine.workers)
    for name, speed in rivals.items():
        print(
            f"  against {name}: {here.episodes_per_min / speed.episodes_per_min:.2f} times the episodes/min, "
            f"{here.busy_steps_per_s / speed.busy_steps_per_s:.2f} times the steps/s at work"
        )


def _put(results: Any, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    results.put(work(*arguments))
    results.close()
    results.join_thread()
    os._exit(0)


def in_child_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """As `in_child`, for work that starts processes itself, which a pool's may not."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    process = context.Process(target=_put, args=(results, work, arguments))
    process.start()
    answer = results.get()
    process.join()
    return answer


def main(arguments: Arguments) -> None:
    """Compare what `--parts` names."""
    if arguments.quick:
        arguments = dataclasses.replace(
            arguments, tasks=arguments.tasks[:1], episodes=arguments.processes, sequential=False
        )
    repeats = 2 if arguments.quick else 5
    drawn = find_drawing(arguments.mujoco_gl)
    set_environment(drawn.backend)
    os.environ.update(thread_limits(arguments.processes))
    machine = Machine(drawn=drawn, workers=max(1, count_workers(arguments.workers, on_gpu=drawn.on_gpu)))
    print(f"{machine_name()}; {drawn.renderer}; {arguments.suite}, tasks {' '.join(arguments.tasks)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        episodes = record_expert(arguments, machine, Path(folder))
    if arguments.quick:
        episodes = [dataclasses.replace(episode, actions=episode.actions[:QUICK_STEPS]) for episode in episodes]
    if "control" in arguments.parts:
        for episode in {e.spec.task.index: e for e in reversed(episodes)}.values():
            name = f"Physics and control, task {episode.spec.task.index}, no cameras, one core"
            report_pairs(name, in_child(measure_control, episode, repeats), len(episode.actions), "ms/step")
    if "reset" in arguments.parts:
        without = in_child(measure_resets, episodes[0], False, repeats)
        starts = 1 if arguments.quick else repeats  # stock takes 6 s each with images
        with_images = in_child(measure_resets, episodes[0], True, starts)
        report_pairs("Reset alone, no cameras", without["reset"], 1, "ms")
        report_pairs("Reset, init state, 10 settling steps, no cameras", without["start"], 1, "ms")
        report_pairs("Reset, init state, 10 settling steps, first two images", with_images["start"], 1, "ms")
    chunks = {"rollout": 8, "every_step": 1}
    wanted = [steps for part, steps in chunks.items() if part in arguments.parts]
    rivals = time_rivals(episodes, arguments) if wanted else {}
    for execute_steps in wanted:
        compare_rollouts(episodes, execute_steps, machine, rivals, cut=arguments.quick)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
