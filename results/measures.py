"""How a policy moved, beside whether it succeeded: from the actions in the traces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from results.trace import TraceError, read_actions
from tasks.interface import EpisodeRecord

MOTION_ENTRIES = 6
"""Of an action: translation and rotation; the seventh is the gripper's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """Of one episode's executed actions."""

    action_change: float
    """Mean absolute change of the six motion entries from one action to the next, of a range of 2; nan below 2 actions."""
    gripper_switches: int
    """How often the gripper's command changed sign."""


def measure_motion(actions: NDArray[np.float64]) -> Motion:
    """From actions (T, 7), as executed; what the simulator would clip is clipped to [-1, 1] first."""
    clipped = np.clip(actions, -1.0, 1.0)
    change = np.abs(np.diff(clipped[:, :MOTION_ENTRIES], axis=0))
    closing = clipped[:, MOTION_ENTRIES] > 0
    return Motion(
        action_change=float(change.mean()) if len(change) else float("nan"),
        gripper_switches=int((closing[1:] != closing[:-1]).sum()),
    )


def motions(run: Path, records: Iterable[EpisodeRecord]) -> dict[str, Motion]:
    """Of every episode whose trace can be read, by id.

    Args:
        run: the run directory.
    """
    found = {}
    for record in records:
        if not record.trace:
            continue
        try:
            found[record.spec.episode_id] = measure_motion(read_actions(run / record.trace))
        except TraceError:
            continue  # a missing trace hides no result; `vla-eval --render` names it
    return found
