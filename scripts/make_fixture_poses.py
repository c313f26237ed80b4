#!/usr/bin/env python
"""Makes the table of fixture poses that ships in tasks/data: replays every task's resets, once per seed.

    python scripts/make_fixture_poses.py --processes 2

Only `sequence` protocols need it: under a `per_episode` protocol an episode is its seed's first reset.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
from pathlib import Path

import tyro

from tasks.fixture_poses import TABLE_FILE, TaskResets, write_table
from tasks.protocols import PROTOCOLS
from tasks.suites import SUITES, load_suite


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Replay resets and write the table."""

    suites: tuple[str, ...] = tuple(SUITES)
    """Suites to tabulate."""
    output: Path = TABLE_FILE
    """Where to write."""
    processes: int = 1
    """Processes to use."""


def task_resets(job: tuple[str, int]) -> dict[tuple[str, int], TaskResets]:
    """All sequences of one task: {(task, seed): resets}."""
    from harness.sim.scene import Scene, replay_resets

    suite, index = job
    task = load_suite(suite)[index]
    scene = Scene(task)
    lengths: dict[int, int] = {}
    for protocol in PROTOCOLS.values():
        if protocol.reset_stream == "sequence":
            lengths[protocol.reset_seed] = max(lengths.get(protocol.reset_seed, 0), protocol.episodes_per_task)
    return {(str(task), seed): replay_resets(scene, seed, length) for seed, length in lengths.items()}


def main(arguments: Arguments) -> None:
    jobs = [(task.suite, task.index) for suite in arguments.suites for task in load_suite(suite)]
    resets: dict[tuple[str, int], TaskResets] = {}
    with multiprocessing.get_context("spawn").Pool(arguments.processes, maxtasksperchild=10) as pool:
        for done, result in enumerate(pool.imap(task_resets, jobs), start=1):
            resets |= result
            if done % 10 == 0:
                print(f"{done} of {len(jobs)} tasks", flush=True)
    write_table(arguments.output, resets)
    moved = {
        task for (task, _), entry in resets.items() if len(entry.poses) > 1 and (entry.poses != entry.poses[0]).any()
    }
    for suite in arguments.suites:
        names = [name for name in moved if name.rsplit("/", 1)[0] == suite]
        print(f"{suite}: fixtures move from reset to reset in {len(names)} of {SUITES[suite].num_tasks} tasks")
    print(f"wrote {arguments.output}, {arguments.output.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
