#!/usr/bin/env python3
"""What parts of the policy are worth: each left out, trained from several seeds, evaluated on the same episodes.

    python scripts/ablations.py --data runs/reproduce/demonstrations/libero_spatial_cache --output runs/ablations
    … -- --preset compact --stem convolutions --lr 8e-4         # what follows goes to every vla-train

It goes on where it was interrupted. Every GPU trains one policy at a time and evaluates the one before beside it; CUDA_VISIBLE_DEVICES
says which GPUs; without any the CPU does it. A difference is shown with its 95 % interval over seeds, since episodes of one training
are no repeats of it: Student's for pairs where the same trainings are executed otherwise, else Welch's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from scipy.stats import ttest_ind, ttest_rel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.machine import count_workers
from results.run_directory import RunDirectory
from tasks.interface import Outcome
from vla_vggt.pretrained import INSTRUCTIONS

FULL = "full"
TRAINED: dict[str, tuple[str, ...]] = {
    FULL: (),
    "no graph": ("--neighbours", "0"),
    "no wrist camera": ("--cameras", "agentview"),
    "no proprioception": ("--no-proprioception",),
    "shifted less": ("--augment-shift", "0.01"),
}
"""What is trained → flags of vla-train."""
EXECUTED: dict[str, tuple[str, ...]] = {"temporal ensembling": ("--ensemble", "temporal", "--query-every", "4")}
"""What is evaluated once more, of the full policy → flags of vla-eval."""
CPU = ""
"""In place of a GPU's name, where there is none."""
Job = tuple[str, int]
"""An arm and a seed."""
SHARE = 5
"""The full budget is so many times larger."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train and evaluate; print a table."""

    data: Path
    """Demonstrations: a decoded set."""
    output: Path
    """Folder of all trainings and evaluations."""
    suite: str = "libero_spatial"
    tasks: tuple[str, ...] = ()
    """Only these, by index or name."""
    arms: tuple[str, ...] = (*TRAINED, *EXECUTED)
    """What to compare with the full policy."""
    seeds: int = 3
    """Trainings of each."""
    steps: int = 7000 // SHARE
    """Of each training."""
    episodes: int = 10
    """Per task."""
    workers: str = "auto"
    """Of one evaluation. auto: as many as the machine can do with, divided by its GPUs, since each may evaluate at once."""


def main() -> None:
    """Run, then print."""
    words = sys.argv[1:]
    place = words.index("--") if "--" in words else len(words)
    arguments, flags = tyro.cli(Arguments, args=words[:place]), words[place + 1 :]
    unknown = set(arguments.arms) - {*TRAINED, *EXECUTED}
    if unknown:
        raise SystemExit(
            f"--arms: expected some of {', '.join((*TRAINED, *EXECUTED))}, got {', '.join(sorted(unknown))}"
        )
    show(arguments, compare(arguments, flags))


def compare(arguments: Arguments, flags: list[str]) -> dict[str, list[float]]:
    """Train and evaluate everything, on every GPU at once; the success rates of each arm, one per seed."""
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for seed in range(arguments.seeds):
        for arm in TRAINED:
            if arm == FULL or arm in arguments.arms:
                jobs.put((arm, seed))
    gpus = visible_gpus()
    if not arguments.workers.isdecimal():
        shared = count_workers(arguments.workers, on_gpu=gpus != [CPU]) // len(gpus)
        arguments = dataclasses.replace(arguments, workers=str(max(1, shared)))
    with ThreadPoolExecutor(len(gpus)) as threads:
        ended = [threads.submit(work, arguments, flags, gpu, jobs) for gpu in gpus]
        try:
            wait(ended)
        finally:
            empty(jobs)  # Ctrl-C
    failures = [error for future in ended if (error := future.exception())]
    for other in failures[1:]:
        print(other, file=sys.stderr)
    if failures:
        raise failures[0]
    rates = {job: rate for future in ended for job, rate in future.result().items()}
    arms = [arm for arm in (*TRAINED, *EXECUTED) if (arm, 0) in rates]
    return {arm: [rates[arm, seed] for seed in range(arguments.seeds)] for arm in arms}


def visible_gpus() -> list[str]:
    """As CUDA_VISIBLE_DEVICES calls them; without any, the CPU alone."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        return [CPU]
    names = {torch.cuda.get_device_name(index) for index in range(count)}
    if len(names) > 1:
        raise SystemExit(
            f"expected GPUs of one kind, for a fair comparison, got {', '.join(sorted(names))}: choose some with CUDA_VISIBLE_DEVICES"
        )
    chosen = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return chosen[:count] or [str(index) for index in range(count)]


def work(arguments: Arguments, flags: list[str], gpu: str, jobs: queue.SimpleQueue[Job]) -> dict[Job, float]:
    """What one GPU does until no job is left; the success rates."""
    judged: dict[Job, Future[float]] = {}
    beside = ThreadPoolExecutor(1)
    try:
        while True:
            try:
                arm, seed = jobs.get_nowait()
            except queue.Empty:
                return {job: future.result() for job, future in judged.items()}
            checkpoint = train(arguments, gpu, arm, seed, [*flags, *TRAINED[arm]])
            ways = {arm: ()} | (EXECUTED if arm == FULL else {})
            for name, how in ways.items():
                if name == arm or name in arguments.arms:
                    judged[name, seed] = beside.submit(evaluate, arguments, gpu, checkpoint, name, how)
            for future in judged.values():
                if future.done():
                    future.result()  # what failed ends this now
    except BaseException:
        empty(jobs)  # nobody begins another
        raise
    finally:
        beside.shutdown(cancel_futures=True)


def empty(jobs: queue.SimpleQueue[Job]) -> None:
    """Take out what is left."""
    with contextlib.suppress(queue.Empty):
        while True:
            jobs.get_nowait()


def train(arguments: Arguments, gpu: str, arm: str, seed: int, flags: list[str]) -> Path:
    """Train one policy, go on, or find it there; returns its last checkpoint."""
    run = arguments.output / f"{arm.replace(' ', '-')}-{seed}"
    command = ["vla_vggt.cli", "--data-path", str(arguments.data), "--log-dir", str(run), "--seed", str(seed)]
    command += ["--language-model", str(INSTRUCTIONS), *flags, "--max-steps", str(arguments.steps)]
    call(command, gpu, f"{run.name}: training")
    return run / "checkpoints" / f"{arguments.steps:06d}"


def evaluate(arguments: Arguments, gpu: str, checkpoint: Path, name: str, flags: tuple[str, ...]) -> float:
    """The success rate of a checkpoint."""
    run = checkpoint.parents[1]
    folder = run / f"evaluation-{name.replace(' ', '-')}"
    command = ["harness", "--suite", arguments.suite, *(("--tasks", *arguments.tasks) if arguments.tasks else ())]
    command += ["--episodes", str(arguments.episodes), "--workers", arguments.workers, "--videos", "none"]
    command += ["--checkpoint", str(checkpoint), "--output-dir", str(folder), *flags]
    call(command, gpu, f"{run.name}: evaluation, {name}")
    outcomes = [record.outcome for record in RunDirectory(folder).records()]
    return outcomes.count(Outcome.SUCCESS) / len(outcomes)


def call(command: list[str], gpu: str, what: str) -> None:
    """Run one of the project's commands."""
    print(f"GPU {gpu}: {what}" if gpu else what, flush=True)
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})
    ended = subprocess.run(
        [sys.executable, "-m", *command], check=False, capture_output=True, text=True, env=environment
    )
    if ended.returncode:
        raise SystemExit(
            f"{' '.join(command)}\nended with {ended.returncode}:\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"
        )


def show(arguments: Arguments, rates: dict[str, list[float]]) -> None:
    """Every seed's rate, the means, and how sure their differences are."""
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    settings = f"{arguments.steps} steps, {arguments.episodes} episodes of each task of {arguments.suite}, {machine}"
    table = Table("", "success of each seed [%]", "mean", "minus full", "95 % interval", title=settings)
    for arm, values in rates.items():
        percent = [100 * value for value in values]
        row = [arm, "  ".join(f"{value:.0f}" for value in percent), f"{np.mean(percent):.1f}"]
        if arm != FULL:
            full = [100 * value for value in rates[FULL]]
            row.append(f"{np.mean(percent) - np.mean(full):+.1f}")
            if len(values) > 1:
                paired = arm in EXECUTED  # the same trainings
                test = ttest_rel(percent, full) if paired else ttest_ind(percent, full, equal_var=False)
                low, high = test.confidence_interval()
                row.append(f"{low:+.1f} – {high:+.1f}" if np.isfinite([low, high]).all() else "no spread")
        table.add_row(*row)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
