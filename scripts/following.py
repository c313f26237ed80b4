#!/usr/bin/env python3
"""Whether a policy goes where things are, or where they are on average: from the traces of a run.

    python scripts/following.py runs/NAME

Things stand a little elsewhere in every episode of a task. Per task, the place where the fingers close is fitted to the place of the
thing that is picked up, and the place of that thing when it is let go to the place of what it is put on; each in the table's two
directions. A slope of 1: the policy follows. 0: it goes to the same place whatever it sees. All tasks together: deviations from each
task's mean. Only for tasks of one thing that is put on or into another, both of which stand elsewhere every time.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.sim.simulator import Simulator
from results.run_directory import RunDirectory
from results.trace import Trace, read_trace
from tasks.interface import TaskSpec
from tasks.protocols import find_protocol
from tasks.suites import load_suite

LIFTED_M = 0.03
Z_95 = 1.96


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Print how far a run's policy follows what stands elsewhere."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run of vla-eval, with its traces."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Of one episode, each [2] float64: x and y [m]."""

    thing: NDArray[np.float64]
    """Where what is picked up stands at first."""
    closed: NDArray[np.float64]
    """Where the hand is when the policy is first asked after the fingers began to close."""
    target: NDArray[np.float64]
    """Where what it is put on stands at first."""
    released: NDArray[np.float64]
    """Where the thing is when the fingers begin to open for the last time."""


@dataclass(frozen=True)
class Slope:
    """Of a straight line through deviations from means."""

    value: float
    half_width: float
    """Of its 95 % interval, by the residuals' variance."""

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.half_width:.2f}"


def things_of(task: TaskSpec) -> tuple[str, str] | None:
    """What is picked up and what it is put on, by name; None where the task is not about two things."""
    found = re.search(r"\(:obj_of_interest([^)]*)\)", Path(task.bddl_file).read_text())
    names = found[1].split() if found else []
    return (names[0], names[1]) if len(names) == 2 else None


def columns_of(task: TaskSpec) -> tuple[int, int] | None:
    """Where the x of the two things are in `Trace.qpos`; None where one of them cannot move, or is none or more than two."""
    things = things_of(task)
    if things is None:
        return None
    model = Simulator(task, find_protocol("openvla")).scene.model
    joints = {model.joint(number).name: int(model.jnt_qposadr[number]) for number in range(model.njnt)}
    thing, target = (joints.get(f"{name}_joint0") for name in things)
    return None if thing is None or target is None else (thing, target)


def places_of(trace: Trace, thing: int, target: int) -> Places | None:
    """What an episode shows; None where the thing was never lifted, or the policy never asked again after closing."""
    heights = trace.qpos[:, thing + 2]
    closing = trace.actions[:, 6] > 0
    if not closing.any() or heights.max() - heights[0] < LIFTED_M:
        return None
    query = int(np.searchsorted(trace.query_steps, closing.argmax()))
    if query == len(trace.query_steps):
        return None
    opening = np.flatnonzero(closing[:-1] & ~closing[1:])
    released = int(opening[-1]) + 1 if len(opening) else len(trace.qpos) - 1
    return Places(
        thing=trace.qpos[0, thing : thing + 2],
        closed=trace.query_proprio[query, :2].astype(np.float64),
        target=trace.qpos[0, target : target + 2],
        released=trace.qpos[released, thing : thing + 2],
    )


def deviations(places: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(n, 2) from their mean."""
    rows = np.stack(list(places))
    return rows - rows.mean(axis=0)


def spreads(places: Iterable[NDArray[np.float64]]) -> str:
    """Standard deviations in x and y, in mm."""
    x, y = 1000 * deviations(places).std(axis=0)
    return f"{x:.0f}, {y:.0f}"


def slope(x: NDArray[np.float64], y: NDArray[np.float64], *, groups: int = 1) -> Slope | None:
    """Of y on x, (n,) deviations from the means of `groups` groups; None where x does not vary, or there is too little."""
    freedom = len(x) - groups - 1
    spread = float(x @ x)
    if freedom < 1 or spread < 1e-9 * len(x):  # a standard deviation of 0.03 mm
        return None
    value = float(x @ y) / spread
    residual = y - value * x
    return Slope(value, Z_95 * float(np.sqrt(residual @ residual / freedom / spread)))


def slopes(groups: list[list[Places]]) -> list[str]:
    """Four numbers of episodes of one or more tasks: closing in x and y, letting go in x and y."""
    pairs = (("thing", "closed"), ("target", "released"))
    row = []
    for given, done in pairs:
        x, y = (
            np.concatenate([deviations(getattr(p, name) for p in group) for group in groups]) for name in (given, done)
        )
        found = (slope(x[:, axis], y[:, axis], groups=len(groups)) for axis in range(2))
        row += ["does not vary" if each is None else str(each) for each in found]
    return row


def read(run: RunDirectory) -> tuple[dict[str, list[Places]], Counter[str]]:
    """What the episodes of each task show, and how many there are: of tasks about two things that can move.

    Raises:
        ValueError: there is no run, or an episode or its trace is damaged.
    """
    run.manifest()
    seen: defaultdict[str, list[Places]] = defaultdict(list)
    columns: dict[str, tuple[int, int] | None] = {}
    counts: Counter[str] = Counter()
    for record in run.records():
        task = record.spec.task
        name = f"{task.suite} {task.index}"
        if name not in columns:
            columns[name] = columns_of(load_suite(task.suite)[task.index])  # its file is this machine's
        chosen = columns[name]
        if chosen is None or not record.trace:
            continue
        counts[name] += 1
        places = places_of(read_trace(run.path / record.trace), *chosen)
        if places is not None:
            seen[name].append(places)
    return dict(seen), counts


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
    table = Table("task", "lifted", "thing's spread x, y [mm]", "target's")
    for heading in ("closes, by the thing: x", "y", "lets go, by the target: x", "y"):
        table.add_column(heading)
    for name, group in sorted(seen.items()):
        spread = spreads(places.thing for places in group), spreads(places.target for places in group)
        table.add_row(name, f"{len(group)}/{counts[name]}", *spread, *slopes([group]))
    lifted = sum(map(len, seen.values()))
    table.add_row("all", f"{lifted}/{sum(counts[name] for name in seen)}", "", "", *slopes(list(seen.values())))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
