"""Rolls a prepared run's episodes out, on worker processes or in this one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from harness.preparation import Evaluation
from harness.rollout.batcher import ExplainedPolicyError
from harness.rollout.engine import Engine, EngineLimits, FollowUp, Incident, RecordingError, RunEnd, nothing_more
from harness.rollout.in_process import run_in_process
from harness.sim.gl import set_environment
from harness.sim.settings import TraceWriteError
from results.run_directory import RunDirectory
from tasks.interface import EpisodeRecord, EpisodeSpec

END_MEANINGS = {
    "interrupted": "interrupted; what was finished is saved",
    "too_many_errors": "stopped: too many errors; what was finished is saved",
    "policy_error": "the policy failed; what was finished is saved",
    "cannot_start": "the workers cannot start",
    "cannot_write": "stopped; what was written before is safe",
}
"""A run's end other than completion, in words."""


def keep_record(run_dir: RunDirectory, record: EpisodeRecord) -> None:
    """Put a record on disk.

    Raises:
        RecordingError: it cannot be written; the run must stop.
    """
    try:
        run_dir.append(record)
        if record.error:
            run_dir.log.write(
                "episode_error", episode_id=record.spec.episode_id, attempt=record.attempt, why=record.error
            )
    except OSError as error:
        raise RecordingError(
            f"cannot write {run_dir.path}: {error.strerror or error}. Free some space there."
        ) from error


def roll_out(
    evaluation: Evaluation,
    todo: Sequence[EpisodeSpec],
    limits: EngineLimits,
    on_record: Callable[[EpisodeRecord], None],
    follow_up: FollowUp = nothing_more,
) -> RunEnd:
    """Run the episodes `todo` and what `follow_up` adds, each record handed to `on_record` as it ends; returns why it stopped."""
    if not todo:
        return RunEnd(reason="completed", detail="")
    if evaluation.workers == 0:
        if evaluation.needs.cameras:
            set_environment(evaluation.drawn.backend)
            if evaluation.drawn.egl_devices:
                os.environ["MUJOCO_EGL_DEVICE_ID"] = str(evaluation.drawn.egl_devices[0])
        os.environ.setdefault("MUJOCO_GL", "disable")  # nothing is rendered: look for no GL library
        try:
            run_in_process(todo, evaluation.policy, evaluation.settings, on_record, follow_up)
        except KeyboardInterrupt:
            return RunEnd(reason="interrupted", detail="interrupted by the user")
        except (RecordingError, TraceWriteError) as error:
            return RunEnd(reason="cannot_write", detail=str(error))
        except ExplainedPolicyError as error:
            return RunEnd(reason="policy_error", detail=str(error))
        return RunEnd(reason="completed", detail="")

    def on_incident(incident: Incident) -> None:
        try:
            evaluation.run.log.write(
                incident.kind, episode_id=incident.episode_id, attempt=incident.attempt, why=incident.why
            )
        except OSError as error:
            raise RecordingError(f"cannot write {evaluation.run.path}: {error.strerror or error}") from error

    engine = Engine(
        policy=evaluation.policy,
        settings=evaluation.settings,
        image_size_px=evaluation.plan.protocol.render_size_px,
        backend=evaluation.drawn.backend,
        egl_devices=evaluation.drawn.egl_devices,
        workers=evaluation.workers,
        limits=limits,
        on_record=on_record,
        on_incident=on_incident,
    )
    return engine.run(todo, follow_up)
