"""`vla-eval`: plan, roll out, record, summarise."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from harness.arguments import EvalArguments
from harness.policies.replay import Recording, unequal_final_states
from harness.preparation import Evaluation, prepare_evaluation
from harness.progress import RunProgress
from harness.rollout.engine import Engine, EngineLimits, RecordingError, RunEnd
from harness.rollout.in_process import run_in_process
from harness.sim.gl import GlError, set_environment
from results.manifest import RunManifest
from results.run_directory import RunDirectory
from results.summary import write_summary
from results.table import print_results
from tasks.interface import EpisodeRecord
from tasks.suites import SUITES, load_suite

EXIT_OK, EXIT_INCOMPLETE, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


def main() -> None:
    """The console command."""
    sys.exit(run(tyro.cli(EvalArguments, prog="vla-eval"), Console(), Console(stderr=True)))


def run(arguments: EvalArguments, console: Console, errors: Console) -> int:
    """Run the command.

    Returns:
        The exit status: 0; 1 where an episode has no result or a replay differs; 2 for wrong input; 130 for Ctrl-C.
    """
    try:
        if arguments.list:
            list_suites(console, arguments.suite)
            return EXIT_OK
        evaluation = prepare_evaluation(arguments)
        evaluation.run.begin(evaluation.manifest)
    except (ValueError, OSError, GlError, subprocess.TimeoutExpired) as error:
        errors.print(f"vla-eval: {error}", highlight=False, markup=False, soft_wrap=True)
        return EXIT_USAGE
    return evaluate(evaluation, arguments, console, errors)


def list_suites(console: Console, suites: Sequence[str]) -> None:
    """Print every suite, or the named ones' tasks."""
    for name in suites:
        table = Table("task", "name", "instruction (file name)", "instruction (BDDL)", title=name, title_justify="left")
        for task in load_suite(name):
            table.add_row(str(task.index), task.name, task.instruction_file_name, task.instruction_bddl)
        console.print(table)
    if not suites:
        table = Table("suite", "tasks", "episodes", "of")
        for suite in SUITES.values():
            tasks = load_suite(suite.name)
            episodes = sum(task.num_init_states for task in tasks)
            table.add_row(suite.name, str(len(tasks)), str(episodes), "LIBERO-PRO" if suite.perturbation else "LIBERO")
        console.print(table)
        console.print("`vla-eval --list --suite NAME` shows a suite's tasks.")


def evaluate(evaluation: Evaluation, arguments: EvalArguments, console: Console, errors: Console) -> int:
    """Run the plan, print and write the results; returns the exit status."""
    run_dir, plan = evaluation.run, evaluation.plan
    console.print(
        f"{len(plan.episodes)} episodes of {len(evaluation.manifest.planned_episodes)} tasks, "
        f"protocol {plan.protocol.name}, {evaluation.workers or 'no'} workers, {evaluation.renderer} → {run_dir.path}",
        highlight=False,
        soft_wrap=True,
    )
    started = time.monotonic()
    records: list[EpisodeRecord] = []
    progress = RunProgress(console, len(plan.episodes))

    def on_record(record: EpisodeRecord) -> None:
        try:
            run_dir.append(record)
        except OSError as error:
            raise RecordingError(
                f"cannot write {run_dir.path}: {error.strerror or error}. Free some space there."
            ) from error
        records.append(record)
        progress.add(record)

    try:
        with progress:
            end = _roll_out(evaluation, arguments, on_record)
    finally:
        wall_s = time.monotonic() - started
        _try_to_summarise(errors, run_dir, evaluation.manifest, records, wall_s)
        print_results(console, evaluation.manifest, records, wall_s)
    _print_errors(errors, records, end)
    if end.reason == "cannot_start" and not records:
        run_dir.abandon()
        return EXIT_USAGE
    replay_is_equal = evaluation.recording is None or _print_replay(
        console, evaluation.recording, records, run_dir.path
    )
    console.print(f"Episodes, traces and summary: {run_dir.path}", highlight=False, soft_wrap=True)
    if end.reason == "interrupted":
        return EXIT_INTERRUPTED
    complete = len(records) == len(plan.episodes) and not any(record.error for record in records)
    return EXIT_OK if complete and replay_is_equal else EXIT_INCOMPLETE


def _roll_out(evaluation: Evaluation, arguments: EvalArguments, on_record: Callable[[EpisodeRecord], None]) -> RunEnd:
    if evaluation.workers == 0:
        if evaluation.needs.cameras:
            set_environment(evaluation.backend)
        os.environ.setdefault("MUJOCO_GL", "disable")  # nothing is rendered: look for no GL library
        try:
            run_in_process(evaluation.plan.episodes, evaluation.policy, evaluation.settings, on_record)
        except KeyboardInterrupt:
            return RunEnd(reason="interrupted", detail="interrupted by the user")
        return RunEnd(reason="completed", detail="")
    engine = Engine(
        policy=evaluation.policy,
        settings=evaluation.settings,
        image_size_px=evaluation.plan.protocol.render_size_px,
        backend=evaluation.backend,
        workers=evaluation.workers,
        limits=EngineLimits(worker_timeout_s=arguments.worker_timeout_s, max_errors=arguments.max_errors),
        on_record=on_record,
    )
    return engine.run(evaluation.plan.episodes)


def _try_to_summarise(
    errors: Console, run_dir: RunDirectory, manifest: RunManifest, records: list[EpisodeRecord], wall_s: float
) -> None:
    """Write the summary; a full disk must not hide the table."""
    try:
        write_summary(run_dir.path, manifest, records, wall_s)
    except OSError as error:
        errors.print(f"vla-eval: no summary was written: {error}", highlight=False, markup=False)


def _print_replay(console: Console, recording: Recording, records: list[EpisodeRecord], run_dir: Path) -> bool:
    """Say how many replayed episodes ended as recorded; whether all did."""
    different = unequal_final_states(recording, records, run_dir)
    equal = len(records) - len(different)
    console.print(
        f"Replay: {equal} of {len(records)} final states equal the recorded ones bit for bit.", highlight=False
    )
    for episode_id in different:
        console.print(f"  differs: {episode_id}", highlight=False)
    return not different


def _print_errors(errors: Console, records: list[EpisodeRecord], end: RunEnd) -> None:
    failed = [record for record in records if record.error]
    for record in failed[:3]:
        heading = f"{record.spec.episode_id} ended in an error, attempt {record.attempt}:"
        errors.print(f"{heading}\n{record.error}", highlight=False, markup=False)
    if len(failed) > 3:
        errors.print(f"… and {len(failed) - 3} more, all in episodes.jsonl", highlight=False)
    if end.reason != "completed":
        meaning = {
            "interrupted": "interrupted; what was finished is saved",
            "too_many_errors": "stopped: too many errors; what was finished is saved",
            "policy_error": "the policy failed; what was finished is saved",
            "cannot_start": "the workers cannot start",
            "cannot_write": "stopped; what was written before is safe",
        }[end.reason]
        errors.print(f"vla-eval: {meaning}\n{end.detail}", highlight=False, markup=False, soft_wrap=True)
