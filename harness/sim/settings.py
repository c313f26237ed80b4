"""What a worker is told once; plain data, imported by the parent too (no simulator here)."""

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
