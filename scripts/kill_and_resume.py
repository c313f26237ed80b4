"""Kills workers and the command itself, `kill -9`, while an evaluation runs, resumes it, and compares with an undisturbed run.

Expected: the same episodes with the same outcomes and final states bit for bit, each recorded once, every trace readable,
no process left and no shared memory.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from results.manifest import machine_name
from results.records import from_json
from results.run_directory import RunDirectory
from results.trace import read_trace
from tasks.interface import EpisodeRecord

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Forty episodes, ten workers and three parents killed, unless told otherwise."""

    suite: str = "libero_spatial"
    tasks: tuple[str, ...] = ("0", "2", "4", "9")
    episodes: int = 10
    workers: int = 2
    worker_kills: int = 10
    parent_kills: int = 3
    policy: str = "expert"
    pause_s: tuple[float, float] = (2.0, 5.0)
    """Shortest and longest time between kills."""
    seed: int = 0


@dataclass(slots=True)
class Disturbed:
    """What was done to a run."""

    kills: Counter[str] = field(default_factory=Counter)
    sessions: int = 0
    pids: set[int] = field(default_factory=set)


def command(arguments: Arguments, run_dir: Path) -> list[str]:
    """The evaluation; the same every time."""
    return [
        *(sys.executable, "-m", "harness", "--suite", arguments.suite, "--tasks", *arguments.tasks),
        *("--episodes", str(arguments.episodes), "--workers", str(arguments.workers), "--policy", arguments.policy),
        *("--output-dir", str(run_dir), "--videos", "none"),
    ]


def start(arguments: Arguments, run_dir: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with (run_dir.parent / f"{run_dir.name}.log").open("ab") as log:
        return subprocess.Popen(command(arguments, run_dir), stdout=log, stderr=log, env=environment)


def children(pid: int) -> list[int]:
    """Its worker processes."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(p) for p in listed if b"harness.sim.worker" in Path(f"/proc/{p}/cmdline").read_bytes()]
    except OSError:  # gone while we looked
        return []


def disturb(arguments: Arguments, run_dir: Path) -> Disturbed:
    """Run to the end, killing on the way and repeating the command whenever it is dead."""
    generator = random.Random(arguments.seed)
    victims = ["worker"] * arguments.worker_kills + ["parent"] * arguments.parent_kills
    generator.shuffle(victims)
    done = Disturbed()
    process = start(arguments, run_dir)
    while True:
        done.sessions += 1
        done.pids.add(process.pid)
        while process.poll() is None:
            deadline = time.monotonic() + generator.uniform(*arguments.pause_s)
            while time.monotonic() < deadline and process.poll() is None:
                done.pids.update(children(process.pid))
                time.sleep(0.05)
            workers = children(process.pid)
            if victims and workers and process.poll() is None:
                victim = victims.pop()
                os.kill(generator.choice(workers) if victim == "worker" else process.pid, signal.SIGKILL)
                done.kills[victim] += 1
        if process.returncode == 0 or (process.returncode > 0 and done.sessions > arguments.parent_kills + 5):
            return done
        process = start(arguments, run_dir)


def differences(undisturbed: Path, disturbed: Path, done: Disturbed) -> list[str]:
    """What is not as it should be; empty when all is well."""
    found = []
    expected, got = (outcomes(RunDirectory(path).records()) for path in (undisturbed, disturbed))
    found += [f"{key}: {expected.get(key)} undisturbed, {got.get(key)} disturbed" for key in {**expected, **got}
              if expected.get(key) != got.get(key)]  # fmt: skip
    lines = [from_json(line) for line in (disturbed / "episodes.jsonl").read_text().splitlines()]
    finished = Counter(line.spec.episode_id for line in lines if not line.error)  # an error is tried again
    found += [f"{key} is finished {count} times" for key, count in finished.items() if count > 1]
    for record in RunDirectory(disturbed).records():
        if read_trace(disturbed / record.trace).state_sha256(-1) != record.final_state_sha256:
            found.append(f"{record.trace} does not end in the recorded state")
    found += [f"left behind: {file}" for file in disturbed.rglob("*.tmp")]
    time.sleep(1.0)
    found += [f"process {pid} is still there" for pid in sorted(done.pids) if is_ours(pid)]
    return found


def is_ours(pid: int) -> bool:
    """Whether a process seen earlier still runs (not another with its number)."""
    try:
        return b"harness" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def outcomes(records: list[EpisodeRecord]) -> dict[str, tuple[str, int, str]]:
    return {r.spec.episode_id: (r.outcome.value, r.steps, r.final_state_sha256) for r in records}


def shared_memory() -> set[str]:
    """Names in /dev/shm, and our anonymous memory held by any process."""
    names = {str(file) for file in Path("/dev/shm").glob("*")}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if "memfd:vla-eval" in target:
            names.add(f"{link.parts[2]} {target}")
    return names


def main(arguments: Arguments) -> None:
    folder = Path(tempfile.mkdtemp(prefix="kill-and-resume-"))
    memory_before = shared_memory()
    started = time.monotonic()
    assert start(arguments, folder / "undisturbed").wait() == 0, (folder / "undisturbed.log").read_text()
    undisturbed_s = time.monotonic() - started
    done = disturb(arguments, folder / "disturbed")
    found = differences(folder / "undisturbed", folder / "disturbed", done)
    found += [f"shared memory left: {name}" for name in sorted(shared_memory() - memory_before)]
    events = Counter(event.event for event in RunDirectory(folder / "disturbed").log.events())
    print(machine_name())
    print(f"{len(RunDirectory(folder / 'disturbed').records())} episodes; undisturbed {undisturbed_s:.0f} s")
    print(f"killed: {done.kills['worker']} workers, {done.kills['parent']} parents; {done.sessions} sessions")
    print(f"log.jsonl: {dict(events)}")
    if done.kills != Counter(worker=arguments.worker_kills, parent=arguments.parent_kills):
        found.append("the run ended before all kills: give it more --episodes")
    print(
        "\n".join(found) or "identical: outcomes, steps and final states; one record each; no process, no memory left"
    )
    if found:
        sys.exit(f"see {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
