"""The second stage: demonstrations with images from a folder of traces, one HDF5 file per task."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from harness.collecting.arguments import CollectArguments
from harness.machine import count_workers
from harness.preparation import drawing
from harness.progress import LINE_EVERY_S
from harness.rollout.messages import RenderDemonstration
from harness.rollout.render_pool import RenderPool, RenderResult
from harness.sim.settings import RolloutSettings
from harness.terminal import Terminal
from results.manifest import RunManifest
from results.run_directory import RunDirectory
from tasks.demonstrations.hdf5 import DemonstrationError, DemonstrationFile
from tasks.demonstrations.hdf5_writer import join_demonstrations
from tasks.demonstrations.lerobot_writer import LeRobotSource, write_lerobot
from tasks.interface import EpisodeRecord, OpenLoopSpec
from tasks.plan import local_episode

PARTS = "parts"
"""Below the output folder: files of one demonstration each, until their task is complete."""


def task_file(output: Path, record: EpisodeRecord) -> Path:
    """Where a task's demonstrations are: LIBERO's names."""
    return output / record.spec.task.suite / f"{record.spec.task.name}_demo.hdf5"


def _part(output: Path, record: EpisodeRecord) -> Path:
    return output / PARTS / f"{record.spec.episode_id}.hdf5"


def render_demonstrations(
    run: RunDirectory, kept: Sequence[EpisodeRecord], arguments: CollectArguments, terminal: Terminal
) -> list[Path]:
    """Write the files of all tasks; returns those that are complete. A task whose file holds its demonstrations is left alone.

    Args:
        run: holds the traces.
        kept: the episodes that become demonstrations, in the order they are to have.

    Raises:
        GlError: nothing can be rendered on this machine.
        RenderPoolError: likewise, by a worker.
        OSError: a file cannot be written.
        KeyboardInterrupt: Ctrl-C; whole parts are kept.
    """
    tasks: dict[Path, list[EpisodeRecord]] = defaultdict(list)
    for record in kept:
        local = dataclasses.replace(record, spec=local_episode(record.spec))
        tasks[task_file(run.path, local)].append(local)
    complete = [file for file, records in tasks.items() if _holds(file, records, arguments.size)]
    open_tasks = {file: records for file, records in tasks.items() if file not in complete}
    todo = [r for records in open_tasks.values() for r in records if not _part(run.path, r).is_file()]
    failed = _render(run, todo, arguments, terminal) if todo else set()
    for file, records in open_tasks.items():
        if failed & {record.spec.episode_id for record in records}:
            continue
        parts = [_part(run.path, record) for record in records]
        join_demonstrations(parts, file)
        for part in parts:
            _remove(part, up_to=run.path)
        complete.append(file)
        terminal.say(f"{file}: {len(records)} demonstrations, {file.stat().st_size / 1e6:.0f} MB")
    return complete


def write_lerobot_sets(output: Path, kept: Sequence[EpisodeRecord], terminal: Terminal) -> None:
    """A LeRobot dataset per suite, from the files of its tasks; one that is there is left alone.

    Raises:
        LeRobotWriteError: the images have an odd size.
        OSError: it cannot be written.
    """
    suites: dict[str, dict[Path, str]] = defaultdict(dict)
    for record in kept:
        task = local_episode(record.spec).task
        suites[task.suite][task_file(output, record)] = task.instruction_file_name
    for suite, files in suites.items():
        folder = output / f"{suite}_lerobot"
        if not folder.exists():
            write_lerobot([LeRobotSource(file=file, instruction=text) for file, text in files.items()], folder)
            terminal.say(f"{folder}: LeRobot dataset of {len(files)} tasks")


def _remove(part: Path, *, up_to: Path) -> None:
    """Delete a part, and the folders that are empty then."""
    part.unlink()
    for folder in part.parents:
        if folder == up_to or any(folder.iterdir()):
            return
        folder.rmdir()


def _holds(file: Path, records: Sequence[EpisodeRecord], size: int) -> bool:
    """Whether a file holds these demonstrations, with images of this size.

    Raises:
        DemonstrationError: it holds others.
    """
    if not file.is_file():
        return False
    with DemonstrationFile(file) as there:
        ends = [there.episode(demo).get("final_state_sha256") for demo in there.demos]
        found = there.group(there.demos[0])["obs/agentview_rgb"].shape[1]
    if ends != [record.final_state_sha256 for record in records] or found != size:
        raise DemonstrationError(
            f"{file} holds {len(ends)} demonstrations of {found} px, and they are not the {len(records)} of {size} px asked for. "
            "Remove it, or choose another --output."
        )
    return True


def _render(
    run: RunDirectory, records: Sequence[EpisodeRecord], arguments: CollectArguments, terminal: Terminal
) -> set[str]:
    """Render parts; the ids of those that failed."""
    manifest: RunManifest = run.manifest()
    drawn = drawing(arguments.mujoco_gl)
    workers = min(max(1, count_workers(arguments.workers, on_gpu=drawn.on_gpu)), len(records))
    terminal.say(f"Rendering {len(records)} demonstrations, {workers} workers, {drawn.renderer}")
    pool = RenderPool(
        settings=RolloutSettings(
            protocol=manifest.protocol["name"],
            cameras=("agentview",),  # any: a GL context is wanted
            image_convention="raw",
            ensemble=OpenLoopSpec(),
            worker_policy="",
            run_dir=run.path.resolve(),
        ),
        backend=drawn.backend,
        egl_devices=drawn.egl_devices,
        workers=workers,
        request=lambda record: RenderDemonstration(
            spec=record.spec, file=_part(run.path, record).resolve(), size_px=arguments.size
        ),
        timeout_s=arguments.worker_timeout_s,
    )
    failed: set[str] = set()
    done, last_line = 0, time.monotonic()

    def add(result: RenderResult) -> None:
        nonlocal done, last_line
        done += 1
        if result.error:
            failed.add(result.record.spec.episode_id)
            terminal.complain(f"no demonstration of {result.record.spec.episode_id}: {result.error}")
        if time.monotonic() - last_line > LINE_EVERY_S or done == len(records):
            last_line = time.monotonic()
            terminal.say(f"{done}/{len(records)} demonstrations rendered")

    pool.render(records, add)
    return failed
