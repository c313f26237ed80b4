"""Replays recorded actions: a LIBERO HDF5 demonstration file, or the traces of an earlier run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.policies.simple import CHUNK_STEPS, BlindPolicy
from results.run_directory import RunDirectory
from results.trace import read_trace
from tasks.demonstrations import DemonstrationError, DemonstrationFile
from tasks.interface import ACTION_DIM, ActionChunk, EpisodeRecord, InitState, Observation, Official, Recorded, Sampled
from tasks.plan import Plan, local_episode, make_episode
from tasks.protocols import Protocol, find_protocol
from tasks.suites import SUITES, load_suite


class ReplayPolicy(BlindPolicy):
    """Returns the rest of an episode's recorded actions, and after them holds still.

    An exact replay never gets that far; one that differs may, and is then reported, not broken off.

    Args:
        actions: episode id → (T, 7).
    """

    def __init__(self, actions: dict[str, NDArray[np.float64]]) -> None:
        self._actions = actions

    def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
        return [ActionChunk(actions=self._rest(o.episode_id, o.step)) for o in observations]

    def _rest(self, episode_id: str, step: int) -> NDArray[np.float64]:
        recorded = self._actions[episode_id]
        if step < len(recorded):
            return recorded[step:]
        hold = np.zeros((CHUNK_STEPS, ACTION_DIM))
        hold[:, -1] = recorded[-1, -1]
        return hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Recorded episodes, ready to be replayed."""

    plan: Plan
    actions: dict[str, NDArray[np.float64]]
    """Episode id → (T, 7)."""
    final_states: dict[str, str]
    """Episode id → SHA-256 of the final state, as `EpisodeRecord.final_state_sha256`; of a file: of its last recorded state."""


def load_recording(path: Path, protocol: Protocol, suites: Sequence[str]) -> Recording:
    """Read a run directory or an HDF5 file.

    Args:
        protocol: for a file; a run is replayed under its own.
        suites: for a file: where to look for its task; empty: everywhere, original suites first.

    Raises:
        ValueError: there is nothing to replay at `path`.
    """
    if path.is_dir():
        return _from_run(RunDirectory(path))
    if path.suffix in (".hdf5", ".h5"):
        return _from_file(path, protocol, suites)
    raise ValueError(
        f"replay:{path}: expected a run directory or a .hdf5 file, there is {'another file' if path.exists() else 'nothing'}"
    )


def _from_run(run: RunDirectory) -> Recording:
    protocol = find_protocol(run.manifest().protocol["name"])
    finished = [record for record in run.records() if record.trace]
    if not finished:
        raise ValueError(f"{run.path}: no finished episode to replay")
    specs = {record.spec.episode_id: local_episode(record.spec) for record in finished}
    actions = {record.spec.episode_id: read_trace(run.path / record.trace).actions for record in finished}
    return Recording(
        plan=Plan(protocol=protocol, episodes=tuple(specs[key] for key in sorted(specs))),
        actions=actions,
        final_states={record.spec.episode_id: record.final_state_sha256 for record in finished},
    )


def _from_file(path: Path, protocol: Protocol, suites: Sequence[str]) -> Recording:
    path = path.resolve()
    specs, actions, final_states = [], {}, {}
    with DemonstrationFile(path) as file:
        tasks = [task for suite in suites or SUITES for task in load_suite(suite) if task.name == file.task_name]
        if not tasks:
            raise DemonstrationError(f"{path}: its task {file.task_name!r} is in none of {', '.join(suites or SUITES)}")
        said = {demo: file.episode(demo) for demo in file.demos}
        for demo in file.demos:
            if said[demo]:
                protocol = find_protocol(said[demo]["protocol"])
            spec = make_episode(tasks[0], _init(path, demo, said[demo]), protocol)
            specs.append(spec)
            actions[spec.episode_id] = file.demonstration(demo).executed_actions
            final_states[spec.episode_id] = said[demo].get("final_state_sha256") or file.final_state_sha256(demo)
    return Recording(plan=Plan(protocol=protocol, episodes=tuple(specs)), actions=actions, final_states=final_states)


def _init(path: Path, demo: str, said: Mapping[str, Any]) -> InitState:
    """How the episode begins: as it did, where the file says how; else from the recorded model and state."""
    if not said:
        return Recorded(file=path, demo=demo)
    init = said["init"]
    if init["kind"] == "sampled":
        return Sampled(seed=init["seed"], spread=init.get("spread", 1.0))
    return Official(index=init["index"])


def unequal_final_states(recording: Recording, records: Sequence[EpisodeRecord], run_dir: Path) -> list[str]:
    """Episodes whose replay did not end in the recorded state, bit for bit, or did not end at all."""
    different = []
    for record in records:
        expected = recording.final_states[record.spec.episode_id]
        reached = record.final_state_sha256
        if isinstance(record.spec.init, Recorded) and record.trace:
            reached = read_trace(run_dir / record.trace).state_sha256(
                -2
            )  # a file's states are those before its actions
        if reached != expected:
            different.append(record.spec.episode_id)
    return different
