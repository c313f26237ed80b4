"""Reads the demonstrations in a LIBERO HDF5 file for replay.

The layout: `data/demo_N` with `actions` (T, 7) and `states` (T, 1 + nq + nv), where `states[t]` is the
simulator's flattened state before `actions[t]`; the attribute `model_file` is the MuJoCo XML the
demonstration was recorded in, fixture poses included; `data` carries `bddl_file_name` and `problem_info`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tasks.interface import ACTION_DIM, state_sha256


class DemonstrationError(ValueError):
    """A file is not a demonstration file, or lacks what is needed of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DemonstrationStart:
    """What it takes to begin a recorded episode again."""

    state: NDArray[np.float64]
    """(1 + nq + nv,): time, qpos, qvel."""
    model_xml: str
    """The MuJoCo model it was recorded in, with the recorder's file paths. Read back from XML a model is not the
    compiled one to the last bit (fixtures' masses, rounded poses), so a replay must compile this one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demonstration:
    """One recorded episode."""

    name: str
    actions: NDArray[np.float64]
    """(T, 7): what is to be learnt."""
    executed_actions: NDArray[np.float64]
    """(T, 7): what was done; other than `actions` where the demonstration was disturbed, or a policy drove."""


class DemonstrationFile:
    """A LIBERO HDF5 file; a context manager.

    Raises:
        DemonstrationError: it is missing, truncated, or has no demonstrations.
    """

    def __init__(self, file: Path) -> None:
        self._path = file
        if not file.is_file():
            raise DemonstrationError(f"expected a demonstration file at {file}, there is none")
        try:
            self._file = h5py.File(file, "r")
        except OSError as error:
            raise DemonstrationError(f"{file}: not a readable HDF5 file (truncated?): {error}") from error
        if "data" not in self._file or not self._file["data"].keys():
            raise DemonstrationError(f"{file}: expected groups data/demo_N, found {list(self._file.keys())}")
        self._data = self._file["data"]

    def __enter__(self) -> DemonstrationFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    @property
    def demos(self) -> tuple[str, ...]:
        """Names of the demonstrations, in numerical order."""
        return tuple(sorted(self._data.keys(), key=lambda name: (len(name), name)))

    @property
    def task_name(self) -> str:
        """The name of the LIBERO task, from the recorded BDDL file's name.

        Raises:
            DemonstrationError: the file does not say.
        """
        recorded = self.bddl_file_name
        if not recorded:
            raise DemonstrationError(
                f"{self._path}: expected the attribute data/bddl_file_name, which names the LIBERO task"
            )
        return Path(recorded).stem

    @property
    def bddl_file_name(self) -> str:
        """The recorder's path of the task's BDDL file; empty where the file does not say."""
        recorded = self._data.attrs.get("bddl_file_name")
        if recorded is None and "env_args" in self._data.attrs:
            arguments = json.loads(self._data.attrs["env_args"])
            recorded = arguments.get("bddl_file") or arguments.get("env_kwargs", {}).get("bddl_file_name")
        return str(recorded or "")

    @property
    def instruction(self) -> str:
        """The instruction in the attribute `problem_info`; empty where there is none."""
        said = json.loads(self._data.attrs.get("problem_info") or "{}").get("language_instruction", "")
        return ("".join(said) if isinstance(said, list) else str(said)).strip().strip('"')

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What the file says of itself: the attributes of `data`."""
        return self._data.attrs

    def group(self, demo: str) -> h5py.Group:
        """Everything recorded of one demonstration.

        Raises:
            DemonstrationError: there is none of that name.
        """
        if demo not in self._data:
            raise DemonstrationError(f"{self._path}: no demonstration {demo!r}; it has {', '.join(self.demos)}")
        return self._data[demo]

    def demonstration(self, demo: str) -> Demonstration:
        """One demonstration's actions."""
        actions = self._actions(demo, "actions")
        executed = self._actions(demo, "executed_actions") if "executed_actions" in self.group(demo) else actions
        return Demonstration(name=demo, actions=actions, executed_actions=executed)

    def _actions(self, demo: str, name: str) -> NDArray[np.float64]:
        actions = np.asarray(self.group(demo)[name], dtype=np.float64)
        if actions.ndim != 2 or actions.shape[1] != ACTION_DIM or not len(actions):
            raise DemonstrationError(f"{self._path} {demo}: expected {name} (T, {ACTION_DIM}), got {actions.shape}")
        if not np.isfinite(actions).all():
            step, entry = np.argwhere(~np.isfinite(actions))[0]
            raise DemonstrationError(
                f"{self._path} {demo}: expected finite {name}, got {actions[step, entry]} at step {step}, dimension {entry}"
            )
        return actions

    def episode(self, demo: str) -> Mapping[str, Any]:
        """What begins the very episode again, as `vla-collect` writes it; empty in files of others.

        `suite`, `task` (index), `protocol`, `init` (`kind` and what it needs) and `final_state_sha256`.
        """
        said: dict[str, Any] = json.loads(self.group(demo).attrs.get("episode") or "{}")
        return said

    def start(self, demo: str) -> DemonstrationStart:
        """Where one demonstration begins."""
        group = self.group(demo)
        if "model_file" not in group.attrs or "states" not in group:
            raise DemonstrationError(f"{self._path} {demo}: expected `states` and the attribute `model_file`")
        state = np.asarray(group["states"][0], dtype=np.float64)
        return DemonstrationStart(state=state, model_xml=str(group.attrs["model_file"]))

    def final_state_sha256(self, demo: str) -> str:
        """The fingerprint of one demonstration's last recorded state, the one before its last action."""
        return state_sha256(np.asarray(self.group(demo)["states"][-1], dtype=np.float64))


def read_demonstration_start(file: Path, demo: str) -> DemonstrationStart:
    """Where demonstration `demo` of `file` begins."""
    with DemonstrationFile(file) as demonstrations:
        return demonstrations.start(demo)
