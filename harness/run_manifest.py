"""What a command writes down about a run before its first episode."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.drawing import Drawing
from harness.policies.factory import checkpoint_fingerprint, policy_code_sha256
from harness.sim.settings import RolloutSettings
from harness.sim.subprocess_environment import PACKAGE_ROOT
from results.manifest import MANIFEST_VERSION, RunManifest, git_revision, installed_versions, machine_name
from tasks.interface import Policy
from tasks.plan import Plan


def describe_run(
    *,
    whole: Plan,
    shard: str,
    planned_episodes: Mapping[str, int],
    policy: Policy | None,
    policy_name: str,
    policy_metadata: Mapping[str, Any],
    checkpoint: Path | None,
    seed: int,
    settings: RolloutSettings,
    drawn: Drawing,
) -> RunManifest:
    """The manifest of a run that begins now, on this machine, by this command line.

    Args:
        whole: every episode, those of other shards too.
        shard: which part of it runs here; empty for all of it.
        planned_episodes: task → how many run here.
        policy: None for the expert.
        policy_name: as `--policy` says.
        policy_metadata: what is worth knowing about it beside.
        checkpoint: as `--checkpoint` says.
    """
    return RunManifest(
        version=MANIFEST_VERSION,
        plan_sha256=whole.sha256,
        shard=shard,
        planned_episodes=dict(planned_episodes),
        protocol=asdict(whole.protocol),
        instructions={str(spec.task): whole.protocol.instruction(spec.task) for spec in whole.episodes},
        cameras=settings.cameras,
        image_convention=settings.image_convention,
        policy=policy_name,
        policy_code_sha256=policy_code_sha256(policy_name),
        checkpoint=str(checkpoint or ""),
        checkpoint_sha256=checkpoint_fingerprint(policy, checkpoint),
        policy_metadata=dict(policy_metadata),
        dtype=str(getattr(policy, "dtype", "not stated")),
        ensemble="one action per step" if policy is None else str(settings.ensemble),
        seed=seed,
        batch_size=1 if policy is None else policy.needs.batch_size,
        versions=installed_versions(),
        renderer=drawn.renderer,
        egl_devices=drawn.egl_devices,
        git_revision=git_revision(PACKAGE_ROOT),
        command_line=sys.argv,
        machine=machine_name(),
        started_utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
