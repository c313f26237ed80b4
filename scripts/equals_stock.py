#!/usr/bin/env python
"""Holds the simulator to stock LIBERO on many tasks: states and proprioception at every step, images at every 20th.

    python scripts/equals_stock.py --processes 2            # all forty tasks of the four main suites
    MUJOCO_GL=egl python scripts/equals_stock.py --processes 16   # drawn on a GPU; the default is OSMesa
    python scripts/equals_stock.py --suites libero_goal --tasks 7

Stock is `OffScreenRenderEnv` driven the usual way: seed once, a hard reset per episode, `set_init_state`, settle, step. For the
first and the fourth episode 200 actions: in libero_spatial the scripted expert's up to success, elsewhere and from then on seeded ones
that press, push, turn and grasp. Everything must be equal bit for bit.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import sys
from pathlib import Path

import tyro

# Stock LIBERO, to compare with, is in `tests`, which is not installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("MUJOCO_GL", "osmesa")
os.environ.setdefault("PYOPENGL_PLATFORM", os.environ["MUJOCO_GL"])

from tasks.interface import Official
from tasks.plan import make_episode
from tasks.protocols import find_protocol
from tasks.suites import load_suite

EPISODES = (1, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare with stock LIBERO."""

    suites: tuple[str, ...] = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
    """Suites to compare."""
    tasks: tuple[int, ...] = ()
    """Only these tasks of each suite."""
    steps: int = 200
    """Control steps per episode."""
    images_every: int = 20
    """Compare both images every so many steps."""
    processes: int = 1
    """Processes to use."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One task's result."""

    task: str
    unequal: list[str]
    """The first difference of each episode."""
    contact_steps: int
    """Steps on which the robot touched something."""


def compare(job: tuple[str, int, Arguments]) -> Comparison:
    """Compare one task."""
    from harness.policies.worker import make_worker_policy
    from harness.sim.privileged import SimulatorPrivilegedState
    from harness.sim.simulator import Simulator
    from tests.harness.stock import StockLoop, contact_seeking_actions, differences, robot_contacts, seen

    suite, index, arguments = job
    task, protocol = load_suite(suite)[index], find_protocol("openvla")
    stock, simulator = StockLoop(task, protocol), Simulator(task, protocol)
    unequal: list[str] = []
    touched = resets = 0
    for k in EPISODES:
        while resets < k:
            stock.reset()
            resets += 1
        expected = stock.begin(k - 1)
        simulator.reset(make_episode(task, Official(index=k - 1), protocol))
        found = differences(expected, seen(simulator, False, images=True))
        expert = make_worker_policy("expert") if suite == "libero_spatial" else None
        privileged, success = SimulatorPrivilegedState(simulator), False
        for step, seeded in enumerate(contact_seeking_actions(arguments.steps, seed=k), start=1):
            if found:
                unequal.append(f"episode {k}, before step {step}: {', '.join(found)}")
                break
            action = expert.act(privileged) if expert is not None and not success else seeded
            expected, success = stock.step(action), simulator.step(action)
            touched += robot_contacts(simulator) > 0
            found = differences(expected, seen(simulator, success, images=step % arguments.images_every == 0))
    stock.close()
    simulator.close()
    if touched == 0:
        unequal.append("the robot touched nothing: the comparison shows too little")
    return Comparison(task=str(task), unequal=unequal, contact_steps=touched)


def main(arguments: Arguments) -> int:
    """Compare all tasks; 0 if everything is equal."""
    jobs = [
        (suite, task.index, arguments)
        for suite in arguments.suites
        for task in load_suite(suite)
        if not arguments.tasks or task.index in arguments.tasks
    ]
    different = 0
    with multiprocessing.get_context("spawn").Pool(arguments.processes, maxtasksperchild=4) as pool:
        for result in pool.imap(compare, jobs):
            different += bool(result.unequal)
            verdict = "; ".join(result.unequal) or "equal"
            print(f"{result.task}: {verdict} ({result.contact_steps} steps in contact)", flush=True)
    print(f"{len(jobs) - different} of {len(jobs)} tasks equal stock bit for bit")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
