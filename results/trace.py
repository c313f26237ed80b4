"""Traces: the states of an episode, small enough to keep for every one, exact enough to render any frame again."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.files import write_atomically
from tasks.interface import ACTION_DIM, state_sha256

TRACE_VERSION = 1
UNREADABLE = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile)


class TraceError(ValueError):
    """A trace is missing, truncated or of another version."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """One episode. T control steps, Q queries; row 0 of the states is the start, after settling."""

    episode_id: str
    protocol: str
    time_s: NDArray[np.float64]
    """(T + 1,) simulated time."""
    qpos: NDArray[np.float64]
    """(T + 1, nq)"""
    qvel: NDArray[np.float64]
    """(T + 1, nv)"""
    site_alpha: NDArray[np.float32]
    """(T + 1, nsite) opacity of every site: a lit stove burner lives here, outside qpos."""
    actions: NDArray[np.float64]
    """(T, 7) as executed, before clipping."""
    fixtures: tuple[str, ...]
    fixture_poses: NDArray[np.float64]
    """(fixtures, 7): position [m] and quaternion wxyz of each fixture's root body."""
    query_steps: NDArray[np.int32]
    """(Q,) the control step each observation was made for."""
    query_qpos: NDArray[np.float64]
    """(Q, nq) positions at the substep each observation was sampled at."""
    query_site_alpha: NDArray[np.float32]
    """(Q, nsite)"""
    query_proprio: NDArray[np.float32]
    """(Q, 8)"""
    labels: NDArray[np.float64]
    """(T, 7) the scripted expert's answer to the state before each action, in a demonstration; (0, 7) otherwise."""

    def state_sha256(self, row: int) -> str:
        """The fingerprint of the state in `row`; see `tasks.interface.state_sha256`."""
        return state_sha256(np.concatenate([[self.time_s[row]], self.qpos[row], self.qvel[row]]))


_ARRAYS = (
    "time_s",
    "qpos",
    "qvel",
    "site_alpha",
    "actions",
    "fixture_poses",
    "query_steps",
    "query_qpos",
    "query_site_alpha",
    "query_proprio",
)


def trace_path(episode_id: str) -> str:
    """The trace's path relative to the run directory."""
    suite, task, init, repeat = episode_id.split("/")
    return f"traces/{suite}/{task}/{init}-{repeat}.npz"


def write_trace(file: Path, trace: Trace) -> None:
    """Write whole or not at all; it is on disk when this returns.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    head = {
        "version": TRACE_VERSION,
        "episode_id": trace.episode_id,
        "protocol": trace.protocol,
        "fixtures": list(trace.fixtures),
    }
    arrays = {name: getattr(trace, name) for name in _ARRAYS}
    if len(trace.labels):
        arrays["labels"] = trace.labels
    arrays["head"] = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, buffer.getvalue())


def read_trace(file: Path) -> Trace:
    """Read a trace.

    Raises:
        TraceError: the file is missing, truncated or of another version.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            head = _read_head(archive, file)
            arrays = {name: archive[name] for name in _ARRAYS}
            arrays["labels"] = archive["labels"] if "labels" in archive else np.empty((0, ACTION_DIM))
    except TraceError:
        raise
    except UNREADABLE as error:
        raise TraceError(f"{file}: not a readable trace: {error}") from error
    return Trace(episode_id=head["episode_id"], protocol=head["protocol"], fixtures=tuple(head["fixtures"]), **arrays)


def read_actions(file: Path) -> NDArray[np.float64]:
    """A trace's actions alone, (T, 7).

    Raises:
        TraceError: the file is missing, truncated or of another version.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            _read_head(archive, file)
            return archive["actions"]
    except TraceError:
        raise
    except UNREADABLE as error:
        raise TraceError(f"{file}: not a readable trace: {error}") from error


def _read_head(archive: Any, file: Path) -> dict[str, Any]:
    head: dict[str, Any] = json.loads(bytes(archive["head"]).decode())
    if head["version"] != TRACE_VERSION:
        raise TraceError(f"{file}: expected trace version {TRACE_VERSION}, got {head['version']}")
    return head
