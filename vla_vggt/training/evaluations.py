"""Evaluation in the loop: `vla-eval` in a process of its own judges checkpoints while training goes on.

At most one evaluation runs at a time; of the checkpoints that become due meanwhile the newest waits. Whatever becomes of it, training
goes on: what went wrong is said, and its output is in `evaluations/STEP.log`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vla_vggt.training import beside

FOLDER, TERMS, LOGGED = "evaluations", "terms.json", "logged"
VIDEO_PX = 128
HARNESS = (sys.executable, "-m", "harness")
"""`vla-eval`, in this environment."""
UNREADABLE = (OSError, ValueError, KeyError, TypeError)
"""What reading a run's summary raises where the run is not whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """What is evaluated."""

    suites: tuple[str, ...]
    tasks: tuple[str, ...]
    """Only these, by index or name; empty for all."""
    episodes: int
    """Per task: the first official init states."""
    flags: tuple[str, ...] = ()
    """More for `vla-eval`, names and values in turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Successes of a suite or a task, with Wilson's 95 % interval, as `vla-eval` gives them."""

    name: str
    successes: int
    planned: int
    rate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.name} {self.successes}/{self.planned} = {self.rate:.1%} (95 % interval {self.low:.1%} – {self.high:.1%})"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """One checkpoint's."""

    step: int
    suites: tuple[Rate, ...]
    tasks: tuple[Rate, ...]
    failure: str
    """Id of a failed episode; empty for none."""
    video: Path | None
    """Of that episode, as MP4; None where there is none."""

    @property
    def rate(self) -> float:
        """Over all episodes."""
        return sum(suite.successes for suite in self.suites) / sum(suite.planned for suite in self.suites)


class Evaluations:
    """The evaluations of one training run.

    Args:
        folder: the training run's.
        plan: what to evaluate.
        say: told what became of each.
        command: that evaluates, `vla-eval`'s flags to be appended.
    """

    def __init__(
        self,
        folder: Path,
        plan: EvaluationPlan,
        *,
        say: Callable[[str], None],
        command: tuple[str, ...] = HARNESS,
    ) -> None:
        self._folder, self.plan, self._say, self._command = folder / FOLDER, plan, say, command
        self._running: _Running | None = None
        self._waiting: tuple[int, Path] | None = None

    @property
    def in_use(self) -> set[Path]:
        """Checkpoints that must not be removed yet."""
        waiting = {self._waiting[1]} if self._waiting else set()
        return waiting | ({self._running.checkpoint} if self._running else set())

    def submit(self, step: int, checkpoint: Path) -> None:
        """Evaluate a checkpoint, now or when the one being evaluated is done."""
        if self._running is None:
            self._start(step, checkpoint)
            return
        if self._waiting is not None:
            self._say(f"evaluation: step {self._waiting[0]} is passed over, step {self._running.step} is still running")
        self._waiting = (step, checkpoint)

    def collect(self) -> Iterator[EvaluationResult]:
        """The results that came since; never waits."""
        while self._running is not None and (status := self._running.process.poll()) is not None:
            ended, self._running = self._running, None
            result = self._take(ended, status)
            if result is not None:
                yield result
            if self._running is None and self._waiting is not None:
                (step, checkpoint), self._waiting = self._waiting, None
                self._start(step, checkpoint)

    def finish(self) -> Iterator[EvaluationResult]:
        """Wait for those that are running or waiting; their results."""
        while self._running is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._running.process.wait(timeout=1.0)
            yield from self.collect()

    def begin(self, *, anew: bool) -> None:
        """Look at what an interrupted run left; set it aside where it is another run's, or was to other terms.

        Args:
            anew: no step was taken yet.
        """
        terms = json.dumps({"suites": self.plan.suites, "tasks": self.plan.tasks, "episodes": self.plan.episodes})
        file = self._folder / TERMS
        if any(self._folder.glob("[0-9]*")) and (anew or not file.is_file() or file.read_text() != terms):
            number = next(n for n in itertools.count(1) if not self._aside(n).exists())
            self._folder.rename(self._aside(number))
            self._say(f"evaluations of another run, or to other terms, are in {self._aside(number)} now")
        self._folder.mkdir(parents=True, exist_ok=True)
        file.write_text(terms)

    def earlier(self) -> list[EvaluationResult]:
        """What an interrupted run had evaluated, in order."""
        found = []
        for run in sorted(self._folder.glob("[0-9]*/summary.json")):
            with contextlib.suppress(*UNREADABLE):
                found.append(_read(run.parent, int(run.parent.name), None))
        return found

    def was_logged(self, step: int) -> bool:
        """Whether this step's result is in the log."""
        return (self._run(step) / LOGGED).exists()

    def note_logged(self, step: int) -> None:
        """Remember that it is."""
        with contextlib.suppress(OSError):
            (self._run(step) / LOGGED).touch()

    def close(self) -> None:
        """Stop what is running; the episodes it has finished stay, and evaluating that step again goes on with them."""
        if self._running is not None:
            self._running.process.kill()
            self._running.process.wait()
            self._running = None
        self._waiting = None

    def _aside(self, number: int) -> Path:
        return self._folder.with_name(f"{FOLDER}.{number}")

    def _run(self, step: int) -> Path:
        return self._folder / f"{step:06d}"

    def _start(self, step: int, checkpoint: Path) -> None:
        tasks = ("--tasks", *self.plan.tasks) if self.plan.tasks else ()
        flags = (
            *("--checkpoint", str(checkpoint), "--suite", *self.plan.suites, *tasks),
            *("--episodes", str(self.plan.episodes)),
            *("--output-dir", str(self._run(step)), "--videos", "none", *self.plan.flags),
        )
        try:
            self._launch(_Stage(step=step, checkpoint=checkpoint, result=None), flags)
        except OSError as error:
            self._say(f"evaluation of step {step} cannot start: {error}. Training goes on.")

    def _launch(self, stage: _Stage, flags: tuple[str, ...]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not _of_torchrun(name)}
        with (self._folder / f"{stage.step:06d}.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, beside.__file__, *self._command, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        self._running = _Running(step=stage.step, checkpoint=stage.checkpoint, result=stage.result, process=process)

    def _take(self, ended: _Running, status: int) -> EvaluationResult | None:
        """The result of a process that ended; None where there is none (yet)."""
        log = self._folder / f"{ended.step:06d}.log"
        if ended.result is not None:  # it rendered the failure's video
            if status != 0:
                self._say(f"evaluation of step {ended.step}: no video of a failure (exit status {status}), see {log}")
            video = next(iter(sorted((self._run(ended.step) / "videos").rglob("*.mp4"))), None)
            return replace(ended.result, video=video)
        try:
            if status != 0:
                raise ValueError(f"vla-eval ended with exit status {status}")
            result = _read(self._run(ended.step), ended.step, None)
        except UNREADABLE as error:
            self._say(f"evaluation of step {ended.step} failed: {error}; see {log}. Training goes on.")
            return None
        self._say(f"evaluation of step {ended.step}: {'; '.join(map(str, result.suites))}")
        if not result.failure:
            return result
        flags = (
            *("--render", str(self._run(ended.step)), "--only", result.failure, "--video-size", str(VIDEO_PX)),
            *_only(self.plan.flags, ("--workers", "--mujoco-gl")),
        )
        try:
            self._launch(_Stage(step=ended.step, checkpoint=ended.checkpoint, result=result), flags)
        except OSError as error:
            self._say(f"evaluation of step {ended.step}: no video of a failure: {error}")
            return result
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """Rolling out, or then rendering a failure's video."""

    step: int
    checkpoint: Path
    result: EvaluationResult | None
    """Of the roll-out; None while it lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running(_Stage):
    process: subprocess.Popen[bytes]


def _read(run: Path, step: int, video: Path | None) -> EvaluationResult:
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    lost = sum(row["errors"] + row["missing"] for row in summary["suites"])
    if lost:
        raise ValueError(f"{lost} episodes have no result")
    return EvaluationResult(
        step=step,
        suites=tuple(_rate(row["suite"], row) for row in summary["suites"]),
        tasks=tuple(_rate(f"{row['suite']}/{row['task_index']:02d}", row) for row in summary["tasks"]),
        failure=_first_failure(run / "episodes.jsonl"),
        video=video,
    )


def _rate(name: str, row: dict[str, Any]) -> Rate:
    values = {key: float(row[field]) for key, field in (("rate", "rate"), ("low", "low_95"), ("high", "high_95"))}
    return Rate(name=name, successes=int(row["successes"]), planned=int(row["planned"]), **values)


def _first_failure(episodes: Path) -> str:
    for line in episodes.read_text().splitlines():
        record = json.loads(line)
        if record["outcome"] == "timeout":
            return str(record["spec"]["episode_id"])
    return ""


def _only(flags: tuple[str, ...], names: tuple[str, ...]) -> list[str]:
    """The flags of these names, with their values."""
    pairs = zip(flags[::2], flags[1::2], strict=True)
    return [part for name, value in pairs if name in names for part in (name, value)]


def _of_torchrun(name: str) -> bool:
    """Whether a variable tells a process that it is one of several: `vla-eval` is not."""
    return name in {
        "RANK",
        "LOCAL_RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
    } or name.startswith(("TORCHELASTIC_", "GROUP_", "ROLE_"))
