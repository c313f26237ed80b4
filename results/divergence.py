"""Where two runs of the same episode part."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from results.trace import Trace, TraceError, read_trace, trace_path

APART = 0.01
"""A coordinate of `Trace.qpos` that differs by more is elsewhere: a joint [rad], a finger, a drawer or an object [m], or an entry of
an object's quaternion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """The first control steps, from 0 on, at which two runs of one episode differ."""

    action: int | None
    """At which another action was executed, be it by the last bit; None: never while both lasted."""
    place: int | None
    """After which a joint or an object was elsewhere, by more than `APART`; None: never while both lasted."""

    def __str__(self) -> str:
        actions = (
            "the same actions while both lasted" if self.action is None else f"other actions from step {self.action}"
        )
        elsewhere = "never elsewhere" if self.place is None else f"elsewhere from step {self.place}"
        return f"{actions}, {elsewhere}"


def divergence(first: Trace, second: Trace) -> Divergence:
    """Compare two traces of one episode, step by step.

    Raises:
        TraceError: they are of different episodes or scenes.
    """
    if first.episode_id != second.episode_id or first.qpos.shape[1:] != second.qpos.shape[1:]:
        raise TraceError(
            f"expected two traces of one episode, got {first.episode_id} with {first.qpos.shape[1]} coordinates and "
            f"{second.episode_id} with {second.qpos.shape[1]}"
        )
    steps = min(len(first.actions), len(second.actions))
    others = np.any(first.actions[:steps] != second.actions[:steps], axis=1)
    apart = np.any(np.abs(first.qpos[1 : steps + 1] - second.qpos[1 : steps + 1]) > APART, axis=1)
    return Divergence(action=_first(others), place=_first(apart))


def divergences(first: Path, second: Path, episode_ids: Iterable[str]) -> dict[str, Divergence]:
    """Of two runs' episodes, as far as both have a readable trace of the same scene.

    Args:
        first: a run directory.
        second: another one.
    """
    found = {}
    for episode_id in episode_ids:
        try:
            found[episode_id] = divergence(*(read_trace(folder / trace_path(episode_id)) for folder in (first, second)))
        except TraceError:
            continue
    return found


def _first(differs: NDArray[np.bool_]) -> int | None:
    return int(differs.argmax()) if differs.any() else None
