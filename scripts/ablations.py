#!/usr/bin/env python3
"""What parts of the policy are worth: each left out, trained from several seeds, evaluated on the same episodes.

    python scripts/ablations.py --data runs/reproduce/demonstrations/libero_spatial_cache --output runs/ablations
    … -- --preset compact --stem convolutions --lr 8e-4         # what follows goes to every vla-train

It goes on where it was interrupted. One training is evaluated while the next one trains. A difference is shown with its 95 %
interval over seeds, since episodes of one training are no repeats of it: Student's for pairs where the same trainings are executed
otherwise, else Welch's.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from scipy.stats import ttest_ind, ttest_rel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from results.run_directory import RunDirectory
from tasks.interface import Outcome
from vla_vggt.pretrained import INSTRUCTIONS

FULL = "full"
TRAINED: dict[str, tuple[str, ...]] = {
    FULL: (),
    "no graph": ("--neighbours", "0"),
    "no wrist camera": ("--cameras", "agentview"),
}
"""What is trained → flags of vla-train."""
EXECUTED: dict[str, tuple[str, ...]] = {"temporal ensembling": ("--ensemble", "temporal", "--query-every", "4")}
"""What is evaluated once more, of the full policy → flags of vla-eval."""
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
    """Of the evaluations."""


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
    evaluations: dict[str, list[Future[float]]] = {}
    beside = ThreadPoolExecutor(max_workers=1)

    def judge(name: str, checkpoint: Path, how: tuple[str, ...]) -> None:
        evaluations.setdefault(name, []).append(beside.submit(evaluate, arguments, checkpoint, name, how))

    try:
        for seed in range(arguments.seeds):
            for arm, changes in TRAINED.items():
                if arm == FULL or arm in arguments.arms:
                    checkpoint = train(arguments, arm, seed, [*flags, *changes])
                    judge(arm, checkpoint, ())
                    for name, how in EXECUTED.items() if arm == FULL else ():
                        if name in arguments.arms:
                            judge(name, checkpoint, how)
                for future in (future for futures in evaluations.values() for future in futures if future.done()):
                    future.result()  # what failed ends this now
        rates = {arm: [future.result() for future in futures] for arm, futures in evaluations.items()}
    finally:
        beside.shutdown(cancel_futures=True)
    show(arguments, rates)


def train(arguments: Arguments, arm: str, seed: int, flags: list[str]) -> Path:
    """Train one policy, go on, or find it there; returns its last checkpoint."""
    run = arguments.output / f"{arm.replace(' ', '-')}-{seed}"
    command = ["vla_vggt.cli", "--data-path", str(arguments.data), "--log-dir", str(run), "--seed", str(seed)]
    command += ["--language-model", str(INSTRUCTIONS), *flags, "--max-steps", str(arguments.steps)]
    call(command, f"{run.name}: training")
    return run / "checkpoints" / f"{arguments.steps:06d}"


def evaluate(arguments: Arguments, checkpoint: Path, name: str, flags: tuple[str, ...]) -> float:
    """The success rate of a checkpoint."""
    run = checkpoint.parents[1]
    folder = run / f"evaluation-{name.replace(' ', '-')}"
    command = ["harness", "--suite", arguments.suite, *(("--tasks", *arguments.tasks) if arguments.tasks else ())]
    command += ["--episodes", str(arguments.episodes), "--workers", arguments.workers, "--videos", "none"]
    command += ["--checkpoint", str(checkpoint), "--output-dir", str(folder), *flags]
    call(command, f"{run.name}: evaluation, {name}")
    outcomes = [record.outcome for record in RunDirectory(folder).records()]
    return outcomes.count(Outcome.SUCCESS) / len(outcomes)


def call(command: list[str], what: str) -> None:
    """Run one of the project's commands."""
    print(what, flush=True)
    ended = subprocess.run([sys.executable, "-m", *command], check=False, capture_output=True, text=True)
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
