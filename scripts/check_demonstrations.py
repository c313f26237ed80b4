#!/usr/bin/env python3
"""How decisive demonstrations are: how long the hand stays before it closes, and how often it lets go again soon.

python scripts/check_demonstrations.py demos            # a folder of vla-collect, attempts that failed included

A policy that sees one picture at a time cannot learn from a hand that hovers, or that opens where others close.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from results.run_directory import RunDirectory
from results.trace import read_trace

NEAR_M = 0.010
"""The hand hovers while it is within this distance of where it closes."""
SOON_STEPS = 45
"""A grasp that is let go of sooner was none."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Look at demonstrations."""

    folder: tyro.conf.Positional[Path]
    """What vla-collect wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """What the hand did in one attempt."""

    hovered: int
    """Steps near the place of the first grasp before it."""
    grasps: int
    missed: int
    """Grasps that were let go of within SOON_STEPS."""


def hand_of(labels: NDArray[np.float64], positions: NDArray[np.floating]) -> Hand:
    """From the expert's actions (T, 7) and the hand's positions (T, 3) [m]."""
    closed = labels[:, 6] > 0
    closings = np.flatnonzero(closed[1:] & ~closed[:-1]) + 1
    openings = np.flatnonzero(~closed[1:] & closed[:-1]) + 1
    missed = sum(bool(np.any((openings > step) & (openings < step + SOON_STEPS))) for step in closings[:-1])
    if not len(closings):
        return Hand(hovered=0, grasps=0, missed=0)
    away = np.linalg.norm(positions[: closings[0]] - positions[closings[0]], axis=1) >= NEAR_M
    return Hand(hovered=int(np.argmax(away[::-1])) if away.any() else len(away), grasps=len(closings), missed=missed)


def main() -> None:
    """Read all traces and print a table."""
    run = RunDirectory(tyro.cli(Arguments).folder)
    hands: dict[str, list[Hand]] = defaultdict(list)
    for record in run.records():
        if record.trace:
            trace = read_trace(run.path / record.trace)
            hands[str(record.spec.task)].append(hand_of(trace.labels, trace.query_proprio[: len(trace.labels), :3]))
    table = Table(
        "task", "attempts", "hovered before the first grasp", "grasps", f"let go of within {SOON_STEPS} steps"
    )
    everything = [hand for task in hands.values() for hand in task]
    for task, found in [*sorted(hands.items()), ("all", everything)]:
        means = (np.mean([hand.hovered for hand in found]), np.mean([hand.grasps for hand in found]))
        table.add_row(
            task, str(len(found)), f"{means[0]:.1f} steps", f"{means[1]:.2f}", str(sum(hand.missed for hand in found))
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
