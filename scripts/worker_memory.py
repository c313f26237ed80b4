#!/usr/bin/env python
"""Peak resident memory of one worker over several tasks of a suite, with and without rendering.

python scripts/worker_memory.py --tasks 0 1 2 3
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
    """Its tasks, one episode each, one after another on one worker."""


class SeeingZeroPolicy(ZeroPolicy):
    """Does nothing, but looks."""

    needs = PolicyNeeds(cameras=CAMERAS, image_convention="raw", batch_size=1, ensemble=OpenLoopSpec(execute_steps=110))


def memory_gib(pid: int) -> tuple[float, float]:
    """(resident now, peak) of a process [GiB]."""
    text = Path(f"/proc/{pid}/status").read_text()
    kilobytes = {key: int(value) for key, value in re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", text)}
    return kilobytes["VmRSS"] / 2**20, kilobytes["VmHWM"] / 2**20


def measure(arguments: Arguments, policy: ZeroPolicy) -> list[tuple[float, float]]:
    """(resident, peak) [GiB] of the worker after each episode."""
    specs = plan_official(select_tasks(arguments.suite, arguments.tasks), openvla(), episodes=1).episodes
    seen: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = RolloutSettings(
            protocol="openvla", cameras=policy.needs.cameras, image_convention="raw", ensemble=policy.needs.ensemble,
            worker_policy="", run_dir=Path(folder),
        )  # fmt: skip
        engine = Engine(
            policy=policy, settings=settings, image_size_px=256, backend=choose_backend("auto")[0], egl_devices=(), workers=1,
            limits=EngineLimits(worker_timeout_s=300, max_errors=0),
            on_record=lambda _: seen.append(memory_gib(engine.worker_pids[0])), on_incident=print,
        )  # fmt: skip
        engine.run(specs)
    return seen


def main(arguments: Arguments) -> None:
    print(machine_name())
    for name, policy in (("with both cameras", SeeingZeroPolicy()), ("without rendering", ZeroPolicy())):
        rows = measure(arguments, policy)
        after = ", ".join(f"{resident:.2f}" for resident, _ in rows)
        print(f"{name}: resident after each task [GiB] {after}; peak {max(peak for _, peak in rows):.2f}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
