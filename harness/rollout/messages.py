"""What parent and worker say to each other. Images do not travel here; they lie in shared memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.demonstrations.planned_set import PlannedEpisode
from tasks.interface import EpisodeRecord, EpisodeSpec, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Worker → parent: the simulation stack is imported, the GL context works."""

    renderer: str
    """OpenGL's renderer string; empty where nothing is rendered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CannotStart:
    """Worker → parent: something is missing; no worker will do better."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEpisode:
    """Parent → worker."""

    spec: EpisodeSpec
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderVideo:
    """Parent → worker: render a finished episode's video from its trace."""

    spec: EpisodeSpec
    outcome: Outcome
    size_px: int
    policy_view: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderDemonstration:
    """Parent → worker: write a demonstration, with its images, from its trace."""

    spec: EpisodeSpec
    into: Path | PlannedEpisode
    """A file of LIBERO's HDF5, or a place in a decoded set."""
    size_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """Worker → parent: the video, or the demonstration, is on disk."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Query:
    """Worker → parent: an observation is ready; its images lie in the worker's slot of the shared memory."""

    proprio: NDArray[np.float32]
    instruction: str
    step: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunk:
    """Parent → worker: the answer to a `Query`."""

    actions: NDArray[np.float64]
    took_s: float
    """Wall time of the policy's call that computed it [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Worker → parent: the episode ended."""

    record: EpisodeRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Worker → parent: the episode, or the rendering of it, raised."""

    error: str
    """The traceback, or a message that needs none."""
    kind: Literal["policy", "storage", "simulation", "other"]
    """`policy`: a worker policy raised, which ends the run. `storage`: a file cannot be written, which ends a run (and
    one video). `simulation`: the simulation says that this episode cannot be run; it would say so again. `other`: worth another
    try."""
