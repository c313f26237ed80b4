#!/usr/bin/env python3
"""Whether a policy goes where things are, or where they are on average: from the traces of a run.

    python scripts/following.py runs/NAME

In most tasks things stand a little elsewhere in every episode. Per task, the place where the fingers close is fitted to the place of
the thing that is picked up, and the place of that thing when it is let go to the place of what it is put on; each in the table's two
directions. A slope of 1: the policy follows. 0: it goes to the same place whatever it sees. All tasks together: deviations from each
task's mean. Intervals are 95 %, by drawing init states again (bootstrap, within each task).

Only of tasks whose goal is one thing on or in another that can move; only of episodes in which the thing was lifted: a run with many
misses looks better than it is, so mind how many those are. Slopes shrink by what is not seen, not by how exact a hand must be: where
a centimetre is forgiven, a policy may succeed without following.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import mujoco
import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.sim.privileged import SimulatorPrivilegedState
from harness.sim.simulator import Simulator
from results.run_directory import RunDirectory
from results.trace import Trace, read_trace
from tasks.bddl import read_problem
from tasks.interface import TaskSpec
from tasks.protocols import find_protocol
from tasks.suites import load_suite

LIFTED_M = 0.03
VARIES_M = 1e-4
"""Standard deviation below which a place does not vary."""
DRAWS = 2000
FEWEST = 10
"""Init states of a task that are drawn from: of fewer, some draws would be one state many times."""
REGION = "_contain_region"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Print how far a run's policy follows what stands elsewhere."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run of vla-eval, with its traces."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Of one episode, each [2] float64: x and y [m]."""

    init: str
    """The init state's name; episodes that repeat one count as one."""
    thing: NDArray[np.float64]
    """Where what is picked up stands at first."""
    closed: NDArray[np.float64]
    """Where the hand is when the fingers begin to close, for the last time before the thing is lifted."""
    target: NDArray[np.float64]
    """Where what it is put on stands at first."""
    released: NDArray[np.float64]
    """Where the thing is when the fingers begin to open for the last time, or at the end if they never do."""


class Scene:
    """A task's model, to read its traces.

    Args:
        task: this machine's.

    Raises:
        ValueError: its goal is not one thing on or in another that can move.
    """

    def __init__(self, task: TaskSpec) -> None:
        things = things_of(task)
        if things is None:
            raise ValueError(f"{task.name}: expected a goal of one thing on or in another that can move")
        self._simulator = Simulator(task, find_protocol("openvla"))
        self._state = SimulatorPrivilegedState(self._simulator)
        model = self._simulator.scene.model
        self.thing, self.target = (int(model.joint(f"{name}_joint0").qposadr[0]) for name in things)
        """Where the x of each is in `Trace.qpos`."""

    def hand(self, qpos: NDArray[np.float64]) -> NDArray[np.float64]:
        """[2] float64: x and y [m] of the point between the fingers, in a state (nq,)."""
        scene = self._simulator.scene
        scene.data.qpos[:] = qpos
        mujoco.mj_kinematics(scene.model, scene.data)
        return self._state.eef_position_world[:2]


def things_of(task: TaskSpec) -> tuple[str, str] | None:
    """What is picked up and what it is put on or into, by name; None where the goal is another."""
    problem = read_problem(Path(task.bddl_file))
    if len(problem.goal) != 1 or len(problem.goal[0]) != 3 or problem.goal[0][0] not in ("on", "in"):
        return None
    _, thing, target = problem.goal[0]
    target = target.removesuffix(REGION)
    return (thing, target) if {thing, target} <= problem.objects.keys() else None


def places_of(trace: Trace, scene: Scene, init: str) -> Places | None:
    """What an episode shows; None where the thing was never lifted after fingers closed."""
    heights = trace.qpos[:, scene.thing + 2]
    lifted = np.flatnonzero(heights - heights[0] > LIFTED_M)
    closing = np.concatenate([[False], trace.actions[:, 6] > 0, [False]])
    began, ended = (np.flatnonzero(edge) for edge in (~closing[:-1] & closing[1:], closing[:-1] & ~closing[1:]))
    before = began[began < lifted[0]] if len(lifted) else began[:0]
    if not len(before):
        return None
    x, y = slice(scene.thing, scene.thing + 2), slice(scene.target, scene.target + 2)
    return Places(
        init=init,
        thing=trace.qpos[0, x].copy(),
        closed=scene.hand(trace.qpos[before[-1]]),
        target=trace.qpos[0, y].copy(),
        released=trace.qpos[ended[-1], x].copy(),
    )


@dataclass(frozen=True)
class Slope:
    """Of a straight line through deviations from tasks' means, with its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} – {self.high:.2f})"


def slope(groups: Iterable[tuple[NDArray[np.float64], NDArray[np.float64], list[str]]]) -> Slope | None:
    """Of y on x over the groups whose x varies; None where none does, or each has fewer than `FEWEST` init states.

    Args:
        groups: of each task x (n,) and y (n,) [m] and the n episodes' init states.
    """
    rng = np.random.default_rng(0)
    over, under = np.zeros(1 + DRAWS), np.zeros(1 + DRAWS)
    for x, y, inits in groups:
        names, which = np.unique(inits, return_inverse=True)
        if x.std() < VARIES_M or len(names) < FEWEST:
            continue
        given, done = x - x.mean(), y - y.mean()  # for the sums' precision
        sums = np.zeros((len(names), 5))
        np.add.at(sums, which, np.stack([np.ones_like(given), given, done, given * given, given * done], axis=1))
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)
        n, sx, sy, sxx, sxy = np.concatenate([sums.sum(axis=0)[None], drawn @ sums]).T
        over += sxy - sx * sy / n
        under += sxx - sx * sx / n
    if not under[0]:
        return None
    low, high = np.quantile(over[1:] / under[1:], [0.025, 0.975])
    return Slope(float(over[0] / under[0]), float(low), float(high))


def slopes(groups: Iterable[list[Places]]) -> list[str]:
    """Four numbers of episodes of one or more tasks: closing in x and y, letting go in x and y."""
    chosen = list(groups)
    row = []
    for given, done in (("thing", "closed"), ("target", "released")):
        for axis in range(2):
            found = slope(
                (
                    np.array([getattr(p, given)[axis] for p in group]),
                    np.array([getattr(p, done)[axis] for p in group]),
                    [p.init for p in group],
                )
                for group in chosen
            )
            row.append("–" if found is None else str(found))
    return row


def spreads(places: Iterable[NDArray[np.float64]]) -> str:
    """Standard deviations in x and y, in mm."""
    x, y = 1000 * np.stack(list(places)).std(axis=0)
    return f"{x:.0f}, {y:.0f}"


def read(run: RunDirectory) -> tuple[dict[str, list[Places]], Counter[str]]:
    """What the episodes of each task show, and how many there are: of tasks about two things that can move.

    Raises:
        ValueError: there is no run, or an episode or its trace is damaged.
    """
    run.manifest()
    seen: defaultdict[str, list[Places]] = defaultdict(list)
    scenes: dict[str, Scene | None] = {}
    counts: Counter[str] = Counter()
    for record in run.records():
        task = record.spec.task
        name = f"{task.suite} {task.index}"
        if name not in scenes:
            here = load_suite(task.suite)[task.index]  # the run may be another machine's
            scenes[name] = Scene(here) if things_of(here) is not None else None
        scene = scenes[name]
        if scene is None or not record.trace:
            continue
        counts[name] += 1
        places = places_of(read_trace(run.path / record.trace), scene, str(record.spec.init))
        if places is not None:
            seen[name].append(places)
    return dict(seen), counts


def tabulated(seen: Mapping[str, list[Places]], counts: Mapping[str, int]) -> Table:
    """A row per task, and one of all."""
    table = Table("task", "lifted", "thing's spread x, y [mm]", "target's", title="Slopes, and their 95 % intervals")
    for heading in ("closes, by the thing: x", "y", "lets go, by the target: x", "y"):
        table.add_column(heading)
    for name, group in sorted(seen.items()):
        spread = spreads(places.thing for places in group), spreads(places.target for places in group)
        table.add_row(name, f"{len(group)}/{counts[name]}", *spread, *slopes([group]))
    lifted = sum(map(len, seen.values()))
    table.add_row("all", f"{lifted}/{sum(counts.values())}", "", "", *slopes(seen.values()))
    return table


def main() -> None:
    """Read and print."""
    folder = tyro.cli(Arguments).run
    try:
        seen, counts = read(RunDirectory(folder))
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
    if not seen:
        raise SystemExit(
            f"{folder}: expected tasks about two things that can move, with traces, lifted in some episode; found none"
        )
    Console(width=170).print(tabulated(seen, counts))


if __name__ == "__main__":
    main()
