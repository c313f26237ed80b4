"""`vla-eval`: plan, roll out, record, summarise."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from harness.arguments import EvalArguments
from harness.execution import END_MEANINGS, keep_record, roll_out
from harness.policies.factory import VLA_VGGT
from harness.policies.replay import Recording, unequal_final_states
from harness.preparation import Evaluation, prepare_evaluation
from harness.progress import RunProgress
from harness.rollout.engine import EngineLimits, RunEnd
from harness.rollout.render_pool import RenderPoolError
from harness.sim.gl import GlError
from harness.terminal import Terminal
from harness.videos import render_run, videos_after_run
from results.manifest import RunManifest
from results.merge import merge_shards
from results.report import write_report
from results.run_directory import RunDirectory
from results.summary import write_summary
from results.table import print_incidents, print_results
from tasks.interface import EpisodeRecord
from tasks.suites import SUITES, load_suite

USER_ERRORS = (ValueError, OSError, GlError, RenderPoolError)
"""What is said in a line or two, without a traceback."""
EXIT_OK, EXIT_INCOMPLETE, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


def main() -> None:
    """The console command."""
    terminal = Terminal(out=Console(), errors=Console(stderr=True))
    sys.exit(run(tyro.cli(EvalArguments, prog="vla-eval"), terminal))


def run(arguments: EvalArguments, terminal: Terminal) -> int:
    """Run the command.

    Returns:
        The exit status: 0; 1 where an episode has no result, a replay differs or `--render` fails; 2 for wrong input; 130
        for Ctrl-C.
    """
    with contextlib.ExitStack() as stack:
        try:
            if arguments.list or arguments.merge or arguments.render is not None:
                return without_rollout(arguments, terminal)
            evaluation = prepare_evaluation(with_shipped_checkpoint(with_trained_suites(arguments)))
            stack.callback(evaluation.close)
            kept = begin(evaluation, arguments)
        except USER_ERRORS as error:
            terminal.complain(f"vla-eval: {error}")
            return EXIT_USAGE
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        return evaluate(evaluation, kept, arguments, terminal)


def with_trained_suites(arguments: EvalArguments) -> EvalArguments:
    """The arguments; where no suite is named and a VLA-VGGT checkpoint is, with the suites that was trained on.

    Raises:
        ValueError: it was trained on tasks of no suite, or is no checkpoint.
    """
    if arguments.suite or arguments.only or arguments.policy_name != VLA_VGGT or arguments.checkpoint is None:
        return arguments
    from vla_vggt.training.checkpoint import read_description  # torch: not for other policies

    tasks = read_description(arguments.checkpoint).tasks
    suites = tuple(dict.fromkeys(task.suite for task in tasks if task.suite))
    if not suites:
        raise ValueError(
            f"{arguments.checkpoint} was trained on tasks of no LIBERO suite ({', '.join(task.name for task in tasks)}): "
            f"name one with --suite. Valid suites: {', '.join(SUITES)}"
        )
    return dataclasses.replace(arguments, suite=suites)


def with_shipped_checkpoint(arguments: EvalArguments) -> EvalArguments:
    """The arguments; where no policy is named, with the checkpoint that ships for the suites.

    Raises:
        ValueError: none that ships was trained on them, or there is no such suite.
    """
    suites = arguments.suite or tuple(dict.fromkeys(episode_id.split("/")[0] for episode_id in arguments.only))
    if arguments.policy != "auto" or arguments.checkpoint is not None or not suites:
        return arguments
    from vla_vggt.pretrained import find_shipped  # torch: not for other policies

    return dataclasses.replace(arguments, checkpoint=find_shipped(suites))


def without_rollout(arguments: EvalArguments, terminal: Terminal) -> int:
    """`--list`, `--merge` and `--render`: returns the exit status."""
    if arguments.list:
        list_suites(terminal.out, arguments.suite)
        return EXIT_OK
    if arguments.merge:
        return merge(arguments, terminal)
    return EXIT_INCOMPLETE if render_run(arguments, terminal).failed else EXIT_OK


def merge(arguments: EvalArguments, terminal: Terminal) -> int:
    """`vla-eval --merge`: returns the exit status."""
    target = arguments.output_dir or Path("runs") / f"{datetime.datetime.now():%Y%m%d-%H%M%S}-merged"
    manifest, records, wall_s = merge_shards(arguments.merge, target)
    print_results(terminal.out, manifest, records, wall_s)
    _report(RunDirectory(target), manifest, terminal)
    terminal.say(f"Merged: {target}")
    planned = sum(manifest.planned_episodes.values())
    return EXIT_OK if len(records) == planned and not any(r.error for r in records) else EXIT_INCOMPLETE


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


def begin(evaluation: Evaluation, arguments: EvalArguments) -> list[EpisodeRecord]:
    """Make the output directory this run's, or resume the run in it; the episodes that need not be run again.

    Raises:
        ValueError: the directory holds another run, or is damaged.
        OSError: it cannot be written.
    """
    run_dir, manifest = evaluation.run, evaluation.manifest
    run_dir.begin(manifest)
    kept = [record for record in run_dir.records() if not (record.error and arguments.retry_errors)]
    run_dir.log.write(
        "session_started",
        pid=os.getpid(),
        host=socket.gethostname(),
        machine=manifest.machine,
        git_revision=manifest.git_revision,
        command_line=sys.argv,
        workers=evaluation.workers,
        episodes_finished=len(kept),
    )
    return kept


def evaluate(
    evaluation: Evaluation, kept: Sequence[EpisodeRecord], arguments: EvalArguments, terminal: Terminal
) -> int:
    """Run what is left of the plan, print and write the results, render videos; returns the exit status."""
    run_dir, plan = evaluation.run, evaluation.plan
    records = {record.spec.episode_id: record for record in kept}
    todo = [spec for spec in plan.episodes if spec.episode_id not in records]
    _announce(terminal, evaluation, len(kept))
    end = RunEnd(reason="crashed", detail="")
    try:
        with RunProgress(terminal.out, len(plan.episodes), kept) as progress:

            def on_record(record: EpisodeRecord) -> None:
                keep_record(run_dir, record)
                records[record.spec.episode_id] = record
                progress.add(record)

            end = roll_out(evaluation, todo, limits(arguments), on_record)
    finally:
        # An episode that was to be run again, and was not, still has its error.
        earlier = {record.spec.episode_id: record for record in run_dir.records()}
        results = list((earlier | records).values())
        _conclude(run_dir, evaluation.manifest, results, end, terminal)
    _print_errors(terminal, [record for record in results if record not in kept], end)
    if end.reason == "cannot_start" and not results:
        run_dir.abandon()
        return EXIT_USAGE
    replay_is_equal = evaluation.recording is None or _print_replay(
        terminal, evaluation.recording, results, run_dir.path
    )
    complete = len(results) == len(plan.episodes) and not any(record.error for record in results)
    status = EXIT_OK if complete and replay_is_equal else EXIT_INCOMPLETE
    interrupted = end.reason == "interrupted"
    status = EXIT_INTERRUPTED if interrupted else _videos(evaluation, results, arguments, terminal) or status
    _report(run_dir, evaluation.manifest, terminal)
    terminal.say(f"Episodes, traces, videos, summary and report: {run_dir.path}")
    terminal.say(f"To look at it: vla-review {run_dir.path}")
    if not complete:
        terminal.say(f"To go on: the same command with --output-dir {run_dir.path}")
    return status


def _announce(terminal: Terminal, evaluation: Evaluation, finished: int) -> None:
    plan, manifest = evaluation.plan, evaluation.manifest
    shard = f" (shard {manifest.shard})" if manifest.shard else ""
    terminal.say(
        f"{len(plan.episodes)} episodes of {len(manifest.planned_episodes)} tasks{shard}, protocol {plan.protocol.name}, "
        f"{evaluation.workers or 'no'} workers, {evaluation.drawn.renderer} → {evaluation.run.path}"
    )
    if finished:
        terminal.say(f"Resuming: {finished} are finished, {len(plan.episodes) - finished} are left to run.")


def limits(arguments: EvalArguments) -> EngineLimits:
    """When to give up, as the flags say."""
    return EngineLimits(worker_timeout_s=arguments.worker_timeout_s, max_errors=arguments.max_errors)


def _conclude(
    run_dir: RunDirectory, manifest: RunManifest, records: list[EpisodeRecord], end: RunEnd, terminal: Terminal
) -> None:
    """Log the session's end, write the summary, print the table. A full disk must not hide the table."""
    try:
        run_dir.log.write("session_ended", reason=end.reason, episodes=len(records))
        write_summary(run_dir.path, manifest, records, run_dir.log.wall_s())
    except OSError as error:
        terminal.complain(f"vla-eval: no summary was written: {error}")
    print_results(terminal.out, manifest, records, run_dir.log.wall_s())
    print_incidents(terminal.out, run_dir.log.events())


def _report(run_dir: RunDirectory, manifest: RunManifest, terminal: Terminal) -> None:
    """Write `report.md`, last: it names the videos. Whatever stops it, the results are there."""
    try:
        write_report(run_dir.path, manifest, run_dir.records(), run_dir.log.wall_s())
    except OSError as error:
        terminal.complain(f"vla-eval: no report was written: {error}\nLater: vla-report {run_dir.path}")


def _videos(evaluation: Evaluation, records: list[EpisodeRecord], arguments: EvalArguments, terminal: Terminal) -> int:
    """Render the videos asked for. Returns 0, or Ctrl-C's status: a video that fails is said, and changes no result."""
    again = f"vla-eval --render {evaluation.run.path} --videos {arguments.videos}"
    try:
        videos_after_run(evaluation.run, evaluation.manifest, records, arguments, terminal)
    except KeyboardInterrupt:
        terminal.complain(f"vla-eval: interrupted while rendering videos; go on with\n{again}")
        return EXIT_INTERRUPTED
    except (GlError, RenderPoolError, OSError) as error:
        terminal.complain(f"vla-eval: no videos: {error}\nLater: {again}")
    return EXIT_OK


def _print_replay(terminal: Terminal, recording: Recording, records: list[EpisodeRecord], run_dir: Path) -> bool:
    """Say how many replayed episodes ended as recorded; whether all did."""
    different = unequal_final_states(recording, records, run_dir)
    equal = len(records) - len(different)
    terminal.say(f"Replay: {equal} of {len(records)} final states equal the recorded ones bit for bit.")
    for episode_id in different:
        terminal.say(f"  differs: {episode_id}")
    return not different


def _print_errors(terminal: Terminal, records: list[EpisodeRecord], end: RunEnd) -> None:
    failed = [record for record in records if record.error]
    for record in failed[:3]:
        heading = f"{record.spec.episode_id} ended in an error, attempt {record.attempt}:"
        terminal.complain(f"{heading}\n{record.error}")
    if len(failed) > 3:
        terminal.complain(f"… and {len(failed) - 3} more, all in episodes.jsonl")
    if end.reason != "completed":
        terminal.complain(f"vla-eval: {END_MEANINGS[end.reason]}\n{end.detail}")
