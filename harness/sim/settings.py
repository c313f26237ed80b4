"""What a worker is told once, and what it may answer; imported by the parent too (no simulator here)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.interface import EnsembleSpec, ImageConvention


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
    run_dir: Path
    """Traces are written below it."""


class TraceWriteError(Exception):
    """An episode's trace cannot be kept: the disk is full, or the run directory is gone. No other episode's could."""
