"""`vla-collect`: demonstrations out of nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Sequence

import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from harness.collecting.arguments import CollectArguments
from harness.collecting.attempts import Attempts, Queue
from harness.collecting.preparation import prepare_collection
from harness.collecting.rendering import render_decoded_sets, render_demonstrations, write_lerobot_sets
from harness.execution import END_MEANINGS, keep_record, roll_out
from harness.preparation import Evaluation
from harness.progress import RunProgress
from harness.rollout.engine import EngineLimits, RunEnd
from harness.rollout.render_pool import RenderPoolError
from harness.sim.gl import GlError
from harness.terminal import Terminal
from results.run_directory import RunDirectory
from tasks.interface import EpisodeRecord, EpisodeSpec, Outcome

USER_ERRORS = (ValueError, OSError, GlError, RenderPoolError)
EXIT_OK, EXIT_INCOMPLETE, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


def main() -> None:
    """The console command."""
    terminal = Terminal(out=Console(), errors=Console(stderr=True))
    sys.exit(run(tyro.cli(CollectArguments, prog="vla-collect"), terminal))


def run(arguments: CollectArguments, terminal: Terminal) -> int:
    """Run the command.

    Returns:
        The exit status: 0; 1 where a task has fewer demonstrations than asked for; 2 for wrong input; 130 for Ctrl-C.
    """
    try:
        if arguments.stage == "images":
            return _images(arguments, terminal)
        with contextlib.ExitStack() as stack:
            evaluation, attempts = prepare_collection(arguments)
            stack.callback(evaluation.close)
            return _collect(evaluation, attempts, arguments, terminal)
    except USER_ERRORS as error:
        terminal.complain(f"vla-collect: {error}")
        return EXIT_USAGE
    except KeyboardInterrupt:
        terminal.complain("vla-collect: interrupted; what was finished is saved, the same command goes on")
        return EXIT_INTERRUPTED


def _collect(
    evaluation: Evaluation, attempts: Sequence[Attempts], arguments: CollectArguments, terminal: Terminal
) -> int:
    """Simulate what is missing, then render; returns the exit status."""
    run_dir = evaluation.run
    run_dir.begin(evaluation.manifest)
    records = {record.spec.episode_id: record for record in run_dir.records() if not record.error}
    run_dir.log.write(
        "session_started",
        pid=os.getpid(),
        host=socket.gethostname(),
        machine=evaluation.manifest.machine,
        git_revision=evaluation.manifest.git_revision,
        command_line=sys.argv,
        workers=evaluation.workers,
        episodes_finished=len(records),
    )
    terminal.say(
        f"{arguments.demos_per_task} demonstrations of each of {len(attempts)} tasks, protocol {evaluation.plan.protocol.name}, "
        f"{evaluation.workers or 'no'} workers → {run_dir.path}"
    )
    end = RunEnd(reason="crashed", detail="")
    try:
        end = _simulate(evaluation, attempts, records, arguments, terminal)
    finally:
        run_dir.log.write("session_ended", reason=end.reason, episodes=len(records))
        print_attempts(terminal.out, attempts, records)
    if end.reason != "completed":
        terminal.complain(f"vla-collect: {END_MEANINGS[end.reason]}\n{end.detail}")
        return EXIT_INTERRUPTED if end.reason == "interrupted" else EXIT_INCOMPLETE
    kept = [record for task in attempts for record in task.kept(records)]
    wanted = arguments.demos_per_task * len(attempts)
    (run_dir.path / KEPT).write_text("".join(f"{record.spec.episode_id}\n" for record in kept))
    if arguments.stage == "traces":
        terminal.say(f"Traces: {run_dir.path}. With images: vla-collect --stage images --output {run_dir.path}")
        return EXIT_OK if len(kept) == wanted else EXIT_INCOMPLETE
    return EXIT_OK if _write_files(run_dir, kept, arguments, terminal) and len(kept) == wanted else EXIT_INCOMPLETE


def _write_files(
    run_dir: RunDirectory, kept: Sequence[EpisodeRecord], arguments: CollectArguments, terminal: Terminal
) -> bool:
    """The second stage; whether everything is there."""
    if arguments.format == "cache":
        return render_decoded_sets(run_dir, kept, arguments, terminal)
    complete = render_demonstrations(run_dir, kept, arguments, terminal)
    if len(complete) < len({str(record.spec.task) for record in kept}):
        return False
    if arguments.format == "lerobot":
        write_lerobot_sets(run_dir.path, kept, terminal)
    return True


KEPT = "demonstrations.txt"
"""In the output folder: the episodes that are demonstrations, in their order."""


def _simulate(
    evaluation: Evaluation,
    attempts: Sequence[Attempts],
    records: dict[str, EpisodeRecord],
    arguments: CollectArguments,
    terminal: Terminal,
) -> RunEnd:
    """Attempt, and attempt again what failed, until all demonstrations are there or a task is given up."""
    limits = EngineLimits(worker_timeout_s=arguments.worker_timeout_s, max_errors=arguments.max_errors)
    queue = Queue(attempts, records)
    with RunProgress(terminal.out, len(queue.first)) as progress:

        def on_record(record: EpisodeRecord) -> None:
            keep_record(evaluation.run, record)
            records[record.spec.episode_id] = record
            progress.add(record)

        def follow_up(record: EpisodeRecord) -> Sequence[EpisodeSpec]:
            more = queue.after(record)
            progress.expect(len(more))
            return more

        return roll_out(evaluation, queue.first, limits, on_record, follow_up)


def print_attempts(console: Console, attempts: Sequence[Attempts], records: dict[str, EpisodeRecord]) -> None:
    """How it went, per task."""
    table = Table("task", "demonstrations", "attempts", "failed", "errors", "steps", box=box.SIMPLE)
    for task in attempts:
        tried = [r for n in range(task.limit) if (r := records.get(task.spec(n).episode_id)) is not None]
        kept = task.kept(records)
        outcomes = [record.outcome for record in tried]
        steps = f"{np.mean([record.steps for record in kept]):.0f}" if kept else "–"
        counts = (len(kept), len(tried), outcomes.count(Outcome.TIMEOUT), outcomes.count(Outcome.ERROR))
        table.add_row(str(task.task), *map(str, counts), steps)
    console.print(table)


def _images(arguments: CollectArguments, terminal: Terminal) -> int:
    """`--stage images`: returns the exit status."""
    arguments.check()
    if not (arguments.output / KEPT).is_file():
        raise ValueError(
            f"{arguments.output}: no traces of demonstrations; make them with `vla-collect --stage traces`"
        )
    run_dir = RunDirectory.reserve(arguments.output)
    try:
        records = {record.spec.episode_id: record for record in run_dir.records()}
        kept = [records[name] for name in (arguments.output / KEPT).read_text().split()]
        return EXIT_OK if _write_files(run_dir, kept, arguments, terminal) else EXIT_INCOMPLETE
    finally:
        run_dir.release()


if __name__ == "__main__":
    main()
