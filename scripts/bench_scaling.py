#!/usr/bin/env python3
"""What several GPUs gain, and what an evaluation beside training costs, by the real commands.

    python scripts/bench_scaling.py processes demos/libero_spatial_cache --count 2
    python scripts/bench_scaling.py evaluation demos/libero_spatial_cache --suite libero_spatial --gl egl osmesa
    … -- --language-model FOLDER --batch-size 256            # what follows goes to vla-train

`processes` trains with one process and with several in turns, `evaluation` compares the steps of one run while it is evaluated beside
with those while it is not. Speeds are those the run itself logs, data included, without the intervals in which it compiled.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

LOG_EVERY = 10
WARM_UP_STEPS = 40


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Train with one process and with several, in turns."""

    data: tyro.conf.Positional[Path]
    """Demonstrations."""
    count: int = 2
    """Processes to compare with one."""
    steps: int = 140
    """Of each run."""
    rounds: int = 2
    """How often each is measured."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Train, and evaluate beside it for a while."""

    data: tyro.conf.Positional[Path]
    """Demonstrations."""
    suite: str = "libero_spatial"
    """To evaluate."""
    episodes: int = 5
    """Per task."""
    gl: tuple[Literal["software", "egl"], ...] = ("software", "egl")
    """Ways to render, one run each."""
    workers: str = "half"
    """Of the evaluation; the default is that of training."""
    first: int = 400
    """Steps before the evaluation. There are twice as many, less one, in all, so that no other falls due before the end."""


def main() -> None:
    """Run and print."""
    given, flags = _split(sys.argv[1:])
    arguments = tyro.cli(
        Annotated[Processes, tyro.conf.subcommand("processes")]
        | Annotated[Evaluation, tyro.conf.subcommand("evaluation")],
        args=given,
    )
    console = Console(width=110)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    console.print(f"{torch.cuda.device_count()} × {device}, torch {torch.__version__}")
    if isinstance(arguments, Processes):
        compare_processes(arguments, flags, console)
    else:
        compare_evaluated(arguments, flags, console)


def compare_processes(arguments: Processes, flags: list[str], console: Console) -> None:
    """One and several, in turns."""
    speeds: dict[int, list[float]] = {1: [], arguments.count: []}
    memory: dict[int, float] = {}
    for _ in range(arguments.rounds):
        for count, measured in speeds.items():
            with tempfile.TemporaryDirectory() as folder:
                train(arguments.data, Path(folder) / "run", arguments.steps, flags, processes=count)
                entries = logged_speeds(Path(folder) / "run")
                memory[count] = logged_memory(Path(folder) / "run")
            measured.append(statistics.median(speed for step, _, speed in entries if step > WARM_UP_STEPS))
    table = Table("processes", "samples/s", "of one process", "memory of a GPU [GiB]")
    one = statistics.mean(speeds[1])
    for count, values in speeds.items():
        runs = " and ".join(f"{value:.0f}" for value in values)
        table.add_row(str(count), runs, f"{statistics.mean(values) / one:.3f}", f"{memory[count]:.1f}")
    console.print(table)


def compare_evaluated(arguments: Evaluation, flags: list[str], console: Console) -> None:
    """Steps with and without an evaluation beside them."""
    table = Table(
        "rendering", "samples/s alone", "beside an evaluation", "slower by", "evaluation [s]", "steps beside it"
    )
    for gl in arguments.gl:
        more = ["--eval-every", str(arguments.first), "--eval-suite", arguments.suite, "--eval-gl", gl]
        more += ["--eval-episodes", str(arguments.episodes), "--eval-workers", arguments.workers]
        with tempfile.TemporaryDirectory() as name:
            run = Path(name) / "run"
            output = train(arguments.data, run, 2 * arguments.first - 1, [*flags, *more])
            console.print("\n".join(line for line in output.splitlines() if line.startswith("evaluation")))
            entries = logged_speeds(run)
            started = next(at for step, at, _ in entries if step == arguments.first)
            ended = evaluation_end(run)
        if entries[-1][1] < ended:
            console.print("the evaluation outlasted the steps: a larger --first leaves more of them alone")
        beside = [speed for step, at, speed in entries if step > arguments.first and at <= ended]
        alone = [speed for step, at, speed in entries if WARM_UP_STEPS < step <= arguments.first or at > ended + 5.0]
        ratio = statistics.mean(alone) / statistics.mean(beside) - 1.0
        row = (
            f"{statistics.mean(alone):.0f}",
            f"{statistics.mean(beside):.0f}",
            f"{ratio:.1%}",
            f"{ended - started:.0f}",
        )
        table.add_row(gl, *row, str(len(beside) * LOG_EVERY))
    console.print(table)


def train(data: Path, run: Path, steps: int, flags: list[str], *, processes: int = 1) -> str:
    """Run `vla-train`; returns what it printed."""
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command = [sys.executable, "-m", *(torchrun if processes > 1 else []), "vla_vggt.cli"]
    command += [
        "--data-path",
        str(data),
        "--log-dir",
        str(run),
        "--max-steps",
        str(steps),
        "--log-every",
        str(LOG_EVERY),
    ]
    command += ["--save-every", "1000000", "--validation-fraction", "0", *flags]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(
            f"{' '.join(command)}\nended with {ended.returncode}:\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"
        )
    return ended.stdout


def logged_memory(run: Path) -> float:
    """What the main process's GPU held at most [GiB]; 0 without one."""
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    name = "speed/gpu_memory_gib"
    return float(events.Scalars(name)[-1].value) if name in events.Tags()["scalars"] else 0.0


def logged_speeds(run: Path) -> list[tuple[int, float, float]]:
    """(step, wall time [s], samples/s since the entry before) of a run's log."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.wall_time, event.value) for event in events.Scalars("speed/samples_per_s")]


def evaluation_end(run: Path) -> float:
    """When the first evaluation had ended [s], the video of a failure included."""
    folder = min((run / "evaluations").glob("*/summary.json")).parent
    return max(file.stat().st_mtime for file in (folder / "summary.json", *folder.rglob("*.mp4")))


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """What is before and after `--`."""
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


if __name__ == "__main__":
    main()
