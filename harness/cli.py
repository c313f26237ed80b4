"""`vla-eval`: plan, roll out, record, summarise."""

from __future__ import annotations

import datetime
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from harness.arguments import EvalArguments
from harness.expert.pick_and_place import check_supported
from harness.machine import parse_workers
from harness.policies.factory import PolicyNameError, make_policy
from harness.policies.replay import Recording, ReplayPolicy, load_recording, unequal_final_states
from harness.progress import RunProgress
from harness.rollout.engine import Engine, EngineLimits, RecordingError, RunEnd
from harness.rollout.in_process import run_in_process
from harness.sim.gl import Backend, GlError, choose_backend, set_environment
from harness.sim.settings import RolloutSettings
from results.manifest import MANIFEST_VERSION, RunManifest, git_revision, installed_versions, machine_name, path_sha256
from results.run_directory import RunDirectory
from results.summary import write_summary
from results.table import print_results
from tasks.interface import EpisodeRecord, OpenLoopSpec, Policy, PolicyNeeds
from tasks.plan import Plan, plan_official
from tasks.protocols import find_protocol
from tasks.suites import SUITES, UnknownTaskError, load_suite, select_tasks

EXIT_OK, EXIT_INCOMPLETE, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
PRIVILEGED_NEEDS = PolicyNeeds(cameras=(), image_convention=None, batch_size=1, ensemble=OpenLoopSpec())


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Everything decided before the first episode."""

    plan: Plan
    policy: Policy | None
    """None: a worker policy."""
    needs: PolicyNeeds
    recording: Recording | None
    backend: Backend
    renderer: str
    workers: int
    settings: RolloutSettings
    run: RunDirectory
    manifest: RunManifest


def main() -> None:
    """The console command."""
    sys.exit(run(tyro.cli(EvalArguments, prog="vla-eval"), Console(), Console(stderr=True)))


def run(arguments: EvalArguments, console: Console, errors: Console) -> int:
    """Run the command; returns the exit status: 0, or 1 where an episode has no result, 2 for wrong input, 130 for Ctrl-C."""
    if arguments.list:
        list_suites(console, arguments.suite)
        return EXIT_OK
    try:
        evaluation = prepare_evaluation(arguments)
    except (ValueError, OSError, GlError) as error:
        errors.print(f"[bold red]vla-eval:[/bold red] {type(error).__name__}", highlight=False)
        errors.print(str(error), highlight=False, markup=False, soft_wrap=True)
        return EXIT_USAGE
    return evaluate(evaluation, arguments, console, errors)


def list_suites(console: Console, suites: tuple[str, ...]) -> None:
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


# --- before the first episode ------------------------------------------------------------------------


def prepare_evaluation(arguments: EvalArguments) -> Evaluation:
    """Decide everything and check every input.

    Raises:
        ValueError: an input is wrong; the message says which and what to do.
        GlError: images are needed and cannot be rendered.
    """
    workers = parse_workers(arguments.workers)
    plan, policy, recording = _plan_and_policy(arguments)
    needs = policy.needs if policy is not None else PRIVILEGED_NEEDS
    ensemble = arguments.ensemble_spec(needs.ensemble)
    run_dir = RunDirectory.reserve(arguments.output_dir or default_run_dir(arguments, plan))
    backend: Backend = "osmesa"
    renderer = "nothing rendered"
    if needs.cameras:
        backend, device = choose_backend(arguments.mujoco_gl)
        renderer = f"{backend}: {device}"
    settings = RolloutSettings(
        protocol=plan.protocol.name,
        cameras=needs.cameras,
        image_convention=needs.image_convention or plan.protocol.image_convention,
        ensemble=ensemble,
        worker_policy="expert" if policy is None else "",
        run_dir=run_dir.path.resolve(),
    )
    planned: dict[str, int] = {}
    for spec in plan.episodes:
        planned[str(spec.task)] = planned.get(str(spec.task), 0) + 1
    manifest = RunManifest(
        version=MANIFEST_VERSION,
        plan_sha256=plan.sha256,
        planned_episodes=planned,
        protocol=asdict(plan.protocol),
        instructions={str(spec.task): plan.protocol.instruction(spec.task) for spec in plan.episodes},
        policy=arguments.policy,
        checkpoint=str(arguments.checkpoint or ""),
        checkpoint_sha256=path_sha256(arguments.checkpoint) if arguments.checkpoint else "",
        dtype=str(getattr(policy, "dtype", "not stated")),
        ensemble="one action per step" if policy is None else str(ensemble),
        seed=arguments.seed,
        batch_size=needs.batch_size,
        versions=installed_versions(),
        renderer=renderer,
        git_revision=git_revision(Path(__file__).parent),
        command_line=sys.argv,
        machine=machine_name(),
        started_utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return Evaluation(
        plan=plan,
        policy=policy,
        needs=needs,
        recording=recording,
        backend=backend,
        renderer=renderer,
        workers=workers,
        settings=settings,
        run=run_dir,
        manifest=manifest,
    )


def _plan_and_policy(arguments: EvalArguments) -> tuple[Plan, Policy | None, Recording | None]:
    protocol = find_protocol(arguments.protocol)
    if arguments.policy.startswith("replay:"):
        path = Path(arguments.policy.removeprefix("replay:"))
        recording = load_recording(path, protocol, arguments.suite)
        plan = _restrict(recording.plan, arguments)
        return plan, ReplayPolicy(recording.actions), recording
    if not arguments.suite:
        raise UnknownTaskError(
            f"name at least one suite, such as --suite libero_spatial. Valid suites: {', '.join(SUITES)}"
        )
    tasks = [task for suite in dict.fromkeys(arguments.suite) for task in select_tasks(suite, arguments.tasks)]
    plan = plan_official(tasks, protocol, episodes=arguments.episodes, repeats=arguments.repeats)
    if arguments.only:
        plan = plan.only(arguments.only)
    if arguments.policy == "expert":
        if arguments.checkpoint is not None:
            raise PolicyNameError(
                "--checkpoint needs a --policy that loads it, as module:name; the scripted expert loads none"
            )
        for task in tasks:
            check_supported(task)
        return plan, None, None
    return plan, make_policy(arguments.policy, checkpoint=arguments.checkpoint, seed=arguments.seed), None


def _restrict(plan: Plan, arguments: EvalArguments) -> Plan:
    """The recorded episodes that the flags name."""
    chosen = {
        (task.suite, task.index)
        for suite in arguments.suite or {spec.task.suite for spec in plan.episodes}
        for task in select_tasks(suite, arguments.tasks)
    }
    counts: dict[str, int] = {}
    episodes = []
    for spec in plan.episodes:
        counts[str(spec.task)] = counts.get(str(spec.task), 0) + 1
        if (spec.task.suite, spec.task.index) in chosen and (
            arguments.episodes is None or counts[str(spec.task)] <= arguments.episodes
        ):
            episodes.append(spec)
    if not episodes:
        raise UnknownTaskError("the recording has no episode of the suites and tasks asked for")
    restricted = Plan(protocol=plan.protocol, episodes=tuple(episodes))
    return restricted.only(arguments.only) if arguments.only else restricted


def default_run_dir(arguments: EvalArguments, plan: Plan) -> Path:
    """runs/DATE-TIME-SUITE-POLICY below the working directory."""
    suites = list(dict.fromkeys(spec.task.suite for spec in plan.episodes))
    policy = "replay" if arguments.policy.startswith("replay:") else arguments.policy.replace(":", "-")
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{stamp}-{'+'.join(suites)}-{policy}"


# --- the run -----------------------------------------------------------------------------------------


def evaluate(evaluation: Evaluation, arguments: EvalArguments, console: Console, errors: Console) -> int:
    """Run the plan, print and write the results; returns the exit status."""
    run_dir, plan = evaluation.run, evaluation.plan
    run_dir.begin(evaluation.manifest)
    console.print(
        f"{len(plan.episodes)} episodes of {len(evaluation.manifest.planned_episodes)} tasks, protocol {plan.protocol.name}, "
        f"{evaluation.workers or 'no'} workers, {evaluation.renderer} → {run_dir.path}",
        highlight=False,
        soft_wrap=True,
    )
    started = time.monotonic()
    records: list[EpisodeRecord] = []
    end = RunEnd(reason="interrupted", detail="")
    with RunProgress(console, len(plan.episodes)) as progress:

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
            end = _roll_out(evaluation, arguments, on_record)
        finally:
            wall_s = time.monotonic() - started
            progress.__exit__(None, None, None)
            _try_to_summarise(errors, run_dir, evaluation.manifest, records, wall_s)
            print_results(console, evaluation.manifest, records, wall_s)
    if evaluation.recording is not None:
        _print_replay(console, evaluation.recording, records, run_dir.path)
    _print_errors(errors, records, end)
    console.print(f"Episodes, traces and summary: {run_dir.path}", highlight=False, soft_wrap=True)
    if end.reason == "interrupted":
        return EXIT_INTERRUPTED
    if end.reason == "cannot_start":
        return EXIT_USAGE
    complete = len(records) == len(plan.episodes) and not any(record.error for record in records)
    return EXIT_OK if complete else EXIT_INCOMPLETE


def _try_to_summarise(
    errors: Console, run_dir: RunDirectory, manifest: RunManifest, records: list[EpisodeRecord], wall_s: float
) -> None:
    """Write the summary; a full disk must not hide the table."""
    try:
        write_summary(run_dir.path, manifest, records, wall_s)
    except OSError as error:
        errors.print(f"vla-eval: no summary was written: {error}", highlight=False, markup=False)


def _roll_out(evaluation: Evaluation, arguments: EvalArguments, on_record: Callable[[EpisodeRecord], None]) -> RunEnd:
    if evaluation.workers == 0:
        if evaluation.needs.cameras:
            set_environment(evaluation.backend)
        os.environ.setdefault("MUJOCO_GL", "disable")  # nothing is rendered: look for no GL library
        run_in_process(evaluation.plan.episodes, evaluation.policy, evaluation.settings, on_record)
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


def _print_replay(console: Console, recording: Recording, records: list[EpisodeRecord], run_dir: Path) -> None:
    different = unequal_final_states(recording, records, run_dir)
    equal = len(records) - len(different)
    console.print(
        f"Replay: {equal} of {len(records)} final states equal the recorded ones bit for bit.", highlight=False
    )
    for episode_id in different:
        console.print(f"  differs: {episode_id}", highlight=False)


def _print_errors(errors: Console, records: list[EpisodeRecord], end: RunEnd) -> None:
    failed = [record for record in records if record.error]
    for record in failed[:3]:
        heading = f"{record.spec.episode_id} ended in an error after {record.attempt} attempts:"
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
