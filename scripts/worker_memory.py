#!/usr/bin/env python
"""Resident memory of one worker over many episodes and several tasks, with and without rendering.

python scripts/worker_memory.py                                   # 200 episodes each way, about 12 minutes
python scripts/worker_memory.py --suite libero_10 --episodes 1 --tasks 0 1 2 3 4 5 6 7 8 9
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from pathlib import Path

import tyro

from harness.policies.simple import ZeroPolicy
from harness.rollout.engine import Engine, EngineLimits
from harness.sim.gl import choose_backend
from harness.sim.settings import RolloutSettings
from results.manifest import machine_name
from tasks.interface import CAMERAS, OpenLoopSpec, PolicyNeeds
from tasks.plan import plan_official
from tasks.protocols import openvla
from tasks.suites import select_tasks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measure a worker's memory."""

    suite: str = "libero_spatial"
    """Suite to run."""
    tasks: tuple[str, ...] = ("0", "1", "2", "3")
    """Its tasks, one after another on one worker."""
    episodes: int = 50
    """Episodes of each task."""


class SeeingZeroPolicy(ZeroPolicy):
    """Does nothing, but looks."""

    needs = PolicyNeeds(cameras=CAMERAS, image_convention="raw", batch_size=1, ensemble=OpenLoopSpec(execute_steps=110))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Of the worker, after an episode [GB, 10⁹ bytes]."""

    task: str
    resident: float
    peak: float
    """Since the process started."""


def memory(pid: int, task: str) -> Memory:
    """What a process has now."""
    text = Path(f"/proc/{pid}/status").read_text()
    gb = {key: int(value) * 1024 / 1e9 for key, value in re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", text)}
    return Memory(task=task, resident=gb["VmRSS"], peak=gb["VmHWM"])


def measure(arguments: Arguments, policy: ZeroPolicy) -> list[Memory]:
    """The worker's memory after each episode, the model cache filled beforehand or on the way."""
    tasks = select_tasks(arguments.suite, arguments.tasks)
    specs = plan_official(tasks, openvla(), episodes=arguments.episodes).episodes
    seen: list[Memory] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = RolloutSettings(
            protocol="openvla", cameras=policy.needs.cameras, image_convention="raw", ensemble=policy.needs.ensemble,
            worker_policy="", run_dir=Path(folder),
        )  # fmt: skip
        engine = Engine(
            policy=policy, settings=settings, image_size_px=256, backend=choose_backend("auto")[0], egl_devices=(),
            workers=1, limits=EngineLimits(worker_timeout_s=300, max_errors=0),
            on_record=lambda record: seen.append(memory(engine.worker_pids[0], str(record.spec.task))),
            on_incident=print,
        )  # fmt: skip
        end = engine.run(specs)
    if end.reason != "completed":
        raise SystemExit(end.detail)
    return seen


def report(name: str, rows: list[Memory]) -> None:
    """Print what each task took, and how much it grew from its second episode to its last."""
    print(
        f"{name}: {len(rows)} episodes; largest {max(row.resident for row in rows):.3f} GB, peak {rows[-1].peak:.3f} GB"
    )
    for task in dict.fromkeys(row.task for row in rows):
        mine = [row.resident for row in rows if row.task == task]
        growth = f", {100 * (mine[-1] / mine[1] - 1):+.1f} % from its second to its last" if len(mine) > 2 else ""
        print(f"  {task}: {mine[-1]:.3f} GB after {len(mine)} episodes{growth}", flush=True)


def main(arguments: Arguments) -> None:
    print(machine_name())
    report("with both cameras", measure(arguments, SeeingZeroPolicy()))
    report("without rendering", measure(arguments, ZeroPolicy()))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
