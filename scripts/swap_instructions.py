#!/usr/bin/env python3
"""Whether a policy listens: the same scenes, once with their own instruction and once with that of the other bowl.

    python scripts/swap_instructions.py --output runs/swapped --episodes 3

Every scene of libero_spatial has two black bowls, and the one that is not meant stands where another task's bowl stands: in the first,
"next to the ramekin", which is the second task's instruction. A policy that learnt scenes by heart takes the same bowl either way.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.sim.simulator import Simulator
from results.run_directory import RunDirectory
from results.trace import read_trace
from tasks.interface import ActionChunk, EpisodeSpec, Observation, PolicyNeeds, TaskSpec
from tasks.protocols import find_protocol
from tasks.suites import load_suite
from vla_vggt.policy import VlaVggtPolicy
from vla_vggt.policy import load as load_policy
from vla_vggt.pretrained import find_shipped

SUITE, PROTOCOL = "libero_spatial", "openvla"
BOWLS = ("akita_black_bowl_1", "akita_black_bowl_2")
"""The one that a task is about, and the other."""
LIFTED_M = 0.03
Taken = Literal["meant by the scene", "the other", "none"]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Evaluate with own and with other instructions; print which bowl was taken."""

    output: Path
    """Folder of the two runs."""
    checkpoint: Path | None = None
    """Default: the one that ships."""
    tasks: tuple[str, ...] = ()
    """Only these scenes, by index or name."""
    episodes: int = 3
    """Per scene and instruction."""
    workers: str = "auto"


def other_task(tasks: Sequence[TaskSpec], scene: TaskSpec) -> TaskSpec:
    """The task whose bowl stands where a scene has the bowl that is not meant."""
    place = place_of(scene, BOWLS[1])
    (found,) = (task for task in tasks if place_of(task, BOWLS[0]) == place)
    return found


def place_of(task: TaskSpec, bowl: str) -> str:
    """Where a bowl stands at first, as the BDDL file calls it."""
    begins = Path(task.bddl_file).read_text().partition("(:init")[2]
    found = re.search(rf"\((?:On|In) {bowl} (\S+)\)", begins)
    assert found is not None
    return found[1]


class Swapped:
    """A policy that is told of the other bowl, whatever the scene says.

    Args:
        policy: what acts.
        others: a scene's own instruction → what is said instead.
    """

    def __init__(self, policy: VlaVggtPolicy, others: dict[str, str]) -> None:
        self._policy, self._others = policy, others
        policy.encode(list(others.values()))

    @property
    def needs(self) -> PolicyNeeds:
        """The policy's."""
        return self._policy.needs

    def start(self, specs: Sequence[EpisodeSpec]) -> None:
        """Episodes begin."""
        self._policy.start(specs)

    def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
        """One chunk per observation."""
        return self._policy.act(
            [dataclasses.replace(seen, instruction=self._others[seen.instruction]) for seen in observations]
        )

    def finish(self, episode_ids: Sequence[str]) -> None:
        """Episodes ended."""
        self._policy.finish(episode_ids)


def load(checkpoint: Path, device: str = "auto", batch_size: int | None = None) -> Swapped:
    """What `vla-eval --policy swap_instructions:load` makes."""
    tasks, protocol = load_suite(SUITE), find_protocol(PROTOCOL)
    others = {protocol.instruction(task): protocol.instruction(other_task(tasks, task)) for task in tasks}
    return Swapped(load_policy(checkpoint, device=device, batch_size=batch_size), others)


def evaluate(arguments: Arguments, name: str, flags: list[str]) -> RunDirectory:
    """One run of vla-eval."""
    folder = arguments.output / name
    command = [sys.executable, "-m", "harness", "--suite", SUITE, "--protocol", PROTOCOL, "--videos", "none"]
    command += ["--checkpoint", str(arguments.checkpoint or find_shipped([SUITE])), "--output-dir", str(folder)]
    command += ["--episodes", str(arguments.episodes), "--workers", arguments.workers, *flags]
    if arguments.tasks:
        command += ["--tasks", *arguments.tasks]
    paths = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    if subprocess.run(command, env=environment, check=False).returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return RunDirectory(folder)


def places_in_state(task: TaskSpec) -> list[int]:
    """Where the heights of the two bowls are in `Trace.qpos`."""
    model = Simulator(task, find_protocol(PROTOCOL)).scene.model
    return [int(model.joint(f"{bowl}_joint0").qposadr[0]) + 2 for bowl in BOWLS]


def first_taken(heights: NDArray[np.float64]) -> Taken:
    """Which bowl was lifted first, by heights (T, 2) [m]."""
    risen = heights - heights[0] > LIFTED_M
    if not risen.any():
        return "none"
    first = int(risen.any(axis=1).argmax())
    return "meant by the scene" if risen[first, 0] else "the other"


def main() -> None:
    """Run and print."""
    arguments = tyro.cli(Arguments)
    runs = {
        "its own": evaluate(arguments, "own", []),
        "the other bowl's": evaluate(arguments, "swapped", ["--policy", "swap_instructions:load"]),
    }
    tasks = load_suite(SUITE)
    columns = {task.index: places_in_state(task) for task in tasks}
    table = Table("scene", "told of", "takes the bowl it is told of", "takes the other one", "none", "episodes")
    totals = {name: Counter[Taken]() for name in runs}
    for task in tasks:
        for name, run in runs.items():
            taken = Counter(
                first_taken(read_trace(run.path / record.trace).qpos[:, columns[task.index]])
                for record in run.records()
                if record.spec.task.index == task.index and record.trace
            )
            if taken:
                told = task if name == "its own" else other_task(tasks, task)
                place = find_protocol(PROTOCOL).instruction(told).partition(" bowl ")[2].partition(" and place")[0]
                table.add_row(str(task.index), place, *counts(name, taken))
                totals[name] += taken
    for name, taken in totals.items():
        table.add_row("all", name, *counts(name, taken))
    Console(width=120).print(table)


def counts(name: str, taken: Counter[Taken]) -> list[str]:
    """A row's numbers."""
    meant: Taken = "meant by the scene"
    told, other = (taken[meant], taken["the other"]) if name == "its own" else (taken["the other"], taken[meant])
    return [str(told), str(other), str(taken["none"]), str(taken.total())]


if __name__ == "__main__":
    main()
