"""One way to read demonstrations, whatever they lie in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tasks.demonstrations.decoded_set import DecodedSetReader, is_decoded_set, read_decoded_set
from tasks.demonstrations.episodes import EpisodeReader
from tasks.demonstrations.lerobot import LeRobotDataset, LeRobotReader, is_lerobot_dataset
from tasks.demonstrations.selection import DemonstrationSource
from tasks.demonstrations.timing import ObservationTiming
from tasks.interface import ImageConvention

DemonstrationReader = EpisodeReader | DecodedSetReader | LeRobotReader
"""A context manager with `timing`, `demos` and `episode(demo)`."""


def open_source(
    source: DemonstrationSource,
    *,
    cameras: Sequence[str],
    convention: ImageConvention,
    timing: ObservationTiming | None,
) -> DemonstrationReader:
    """The demonstrations of a source, one at a time.

    Args:
        cameras: in the order wanted.
        convention: of the images wanted.
        timing: whether an observation was taken before or after the action beside it; None: found out, or as the format says.

    Raises:
        DemonstrationError: it is damaged, or a camera is missing.
    """
    if is_decoded_set(source.file):
        return DecodedSetReader(
            source.file, task=source.task, suite=source.suite, cameras=cameras, convention=convention
        )
    if is_lerobot_dataset(source.file):
        return LeRobotReader(
            source.file, instruction=source.recorded, cameras=cameras, convention=convention, timing=timing
        )
    return EpisodeReader(source.file, cameras=cameras, convention=convention, timing=timing)


def fingerprint(path: Path) -> str:
    """SHA-256 of what a source holds."""
    if is_decoded_set(path):
        return read_decoded_set(path).sha256
    if is_lerobot_dataset(path):
        return LeRobotDataset(path).sha256()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
