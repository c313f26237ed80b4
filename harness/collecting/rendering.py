"""The second stage: demonstrations with images from a folder of traces, as HDF5, LeRobot datasets, or decoded sets."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.collecting.arguments import CollectArguments
from harness.drawing import find_drawing
from harness.machine import count_workers
from harness.progress import LINE_EVERY_S
from harness.rollout.messages import RenderDemonstration
from harness.rollout.render_pool import RenderPool, RenderResult
from harness.sim.settings import RolloutSettings
from harness.terminal import Terminal
from results.manifest import RunManifest
from results.run_directory import RunDirectory
from tasks.demonstrations.decoded_set import EpisodeRange
from tasks.demonstrations.hdf5 import DemonstrationError, DemonstrationFile
from tasks.demonstrations.hdf5_writer import join_demonstrations
from tasks.demonstrations.lerobot_writer import LeRobotSource, write_lerobot
from tasks.demonstrations.planned_set import PlannedEpisode, PlannedSet
from tasks.interface import CAMERAS, EpisodeRecord, ImageConvention, OpenLoopSpec
from tasks.plan import local_episode

SEEN_BY_POLICIES: ImageConvention = "rotated_180"
"""How images lie in a decoded set: as vla-train wants them unless told otherwise."""
PARTS = "parts"
"""Below the output folder: files of one demonstration each, until their task is complete."""


def task_file(output: Path, record: EpisodeRecord) -> Path:
    """Where a task's demonstrations are: LIBERO's names."""
    return output / record.spec.task.suite / f"{record.spec.task.name}_demo.hdf5"


def _local(record: EpisodeRecord) -> EpisodeRecord:
    """The record with this machine's paths."""
    return dataclasses.replace(record, spec=local_episode(record.spec))


def _part(output: Path, record: EpisodeRecord, size: int) -> Path:
    return output.resolve() / PARTS / f"{size}px" / f"{record.spec.episode_id}.hdf5"


def render_demonstrations(
    run: RunDirectory, kept: Sequence[EpisodeRecord], arguments: CollectArguments, terminal: Terminal
) -> list[Path]:
    """Write the HDF5 files of all tasks; returns those that are complete. A task whose file holds its demonstrations is left alone.

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
        local = _local(record)
        tasks[task_file(run.path, local)].append(local)
    complete = [file for file, records in tasks.items() if _holds(file, records, arguments.size)]
    open_tasks = {file: records for file, records in tasks.items() if file not in complete}
    parts = {r.spec.episode_id: _part(run.path, r, arguments.size) for records in open_tasks.values() for r in records}
    todo = [r for records in open_tasks.values() for r in records if not parts[r.spec.episode_id].is_file()]
    failed = _render(run, todo, parts, arguments, terminal) if todo else set()
    for file, records in open_tasks.items():
        if failed & {record.spec.episode_id for record in records}:
            continue
        own = [parts[record.spec.episode_id] for record in records]
        join_demonstrations(own, file)
        for part in own:
            _remove(part, up_to=run.path.resolve())
        complete.append(file)
        terminal.say(f"{file}: {len(records)} demonstrations, {file.stat().st_size / 1e6:.0f} MB")
    return complete


def render_decoded_sets(
    run: RunDirectory, kept: Sequence[EpisodeRecord], arguments: CollectArguments, terminal: Terminal
) -> bool:
    """Draw into a decoded set per suite; whether all are whole. One that is there is left alone.

    Raises:
        DemonstrationError: something else is in a set's place.
        GlError, RenderPoolError, OSError, KeyboardInterrupt: as `render_demonstrations`.
    """
    suites: dict[str, list[EpisodeRecord]] = defaultdict(list)
    for record in kept:
        local = _local(record)
        suites[local.spec.task.suite].append(local)
    sets = {
        suite: _plan(run.path.resolve() / f"{suite}_cache", records, arguments) for suite, records in suites.items()
    }
    whole = True
    for suite, planned in sets.items():
        if planned.is_whole():
            continue
        todo = {episode.place.name: episode for episode in planned.begin()}
        drawn = [record for record in suites[suite] if record.spec.episode_id in todo]
        if drawn and _render(run, drawn, todo, arguments, terminal):
            whole = False
            continue
        planned.finish()
        terminal.say(
            f"{planned.place}: {len(planned.episodes)} demonstrations. Train: vla-train --data-path {planned.place}"
        )
    return whole


def _plan(place: Path, records: Sequence[EpisodeRecord], arguments: CollectArguments) -> PlannedSet:
    every = arguments.image_every
    ends = list(itertools.accumulate(record.steps for record in records))
    image_ends = list(itertools.accumulate(-(-record.steps // every) for record in records))
    episodes = [
        (
            EpisodeRange(
                name=record.spec.episode_id,
                task=record.spec.task.name,
                suite=record.spec.task.suite,
                instruction=record.spec.task.instruction_bddl,
                first=end - record.steps,
                end=end,
                first_image=image_end - -(-record.steps // every),
                image_every=every,
                init_state_sha256="",
            ),
            record.final_state_sha256,
        )
        for record, end, image_end in zip(records, ends, image_ends, strict=True)
    ]
    return PlannedSet(place, episodes, cameras=CAMERAS, size_px=arguments.size, convention=SEEN_BY_POLICIES)


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
    run: RunDirectory,
    records: Sequence[EpisodeRecord],
    into: Mapping[str, Path | PlannedEpisode],
    arguments: CollectArguments,
    terminal: Terminal,
) -> set[str]:
    """Render demonstrations, each to where its id leads; the ids of those that failed."""
    manifest: RunManifest = run.manifest()
    drawn = find_drawing(arguments.mujoco_gl)
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
            spec=record.spec, into=into[record.spec.episode_id], size_px=arguments.size
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
