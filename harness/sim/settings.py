"""What a worker is told once, and what it may answer; imported by the parent too (no simulator here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from results.manifest import RunManifest
from tasks.interface import EnsembleSpec, ImageConvention, OpenLoopSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstrating:
    """How demonstrations are made of episodes."""

    noise: float
    """Strength of the disturbance; 0 for none."""
    misplaced: float = 0.0
    """Probability that something is put down beside its place, once."""
    expert_share: float
    """How often the expert drives, rather than the parent's policy; 1 without a policy."""
    seed: int
    """Of the disturbance, and of who drives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSettings:
    """How every episode of a run is rolled out."""

    protocol: str
    cameras: tuple[str, ...]
    """Rendered at each query, in this order; empty: no GL context is made."""
    image_convention: ImageConvention
    ensemble: EnsembleSpec
    worker_policy: str
    """Name of a policy that runs inside the worker with privileged state; empty: the parent's policy is queried."""
    demonstrating: Demonstrating | None = None
    """Record the scripted expert's answer to every state; None: an evaluation."""
    recorded_steps: Mapping[str, int] = field(default_factory=dict)
    """Episode id → control steps of a recorded episode, which is replayed to its end, also beyond success."""
    run_dir: Path
    """Traces are written below it."""


def video_settings(run_dir: Path, manifest: RunManifest, *, policy_view: bool) -> RolloutSettings:
    """What drawing videos of a finished run takes: its cameras and convention, where they are to show what the policy saw.

    Args:
        run_dir: absolute.
    """
    return RolloutSettings(
        protocol=manifest.protocol["name"],
        cameras=manifest.cameras if policy_view else ("agentview",),
        image_convention=manifest.image_convention,  # type: ignore[arg-type]
        ensemble=OpenLoopSpec(),
        worker_policy="",
        run_dir=run_dir,
    )


class TraceWriteError(Exception):
    """An episode's trace cannot be kept: the disk is full, or the run directory is gone. No other episode's could."""


class WorkerPolicyError(Exception):
    """A policy inside the worker raised. It is not retried; the cause has the traceback."""
