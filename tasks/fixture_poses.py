"""Which reset an episode starts from, and where that reset puts the fixtures.

LIBERO's `reset()` draws the poses of fixtures (cabinet, stove, rack, …) and the joints of drawers from
numpy's global generator; an official init state does not contain them. Under a `sequence` protocol
episode k therefore depends on all resets before it. The draws per reset vary, so one cannot jump to
reset k by counting: a table, shipped as data, says where in the generator's stream it begins.

`scripts/make_fixture_poses.py` makes the table by replaying the resets.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.interface import TaskSpec

TABLE_FILE = Path(__file__).parent / "data" / "fixture_poses.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetPoint:
    """Where a reset begins in the stream of `numpy.random.RandomState(seed)`."""

    seed: int
    words: int
    """32-bit words of the Mersenne Twister used before this reset."""
    gauss_cached: bool
    """Whether the generator holds the second half of a pair of normals."""
    loads: int
    """Times the model was built so far, this reset included. Each adds another set of initializers for open
    and closed joints, which all draw: stock LIBERO never clears the list."""

    def random_state(self) -> np.random.RandomState:
        """The generator at this point.

        The cached normal itself is set to 0: robosuite multiplies it by a noise magnitude of 0.
        """
        generator = np.random.RandomState(self.seed)
        generator._bit_generator.random_raw(self.words, output=False)  # type: ignore[attr-defined]
        key, position, _ = mersenne_state(generator)
        generator.set_state(("MT19937", key, position, int(self.gauss_cached), 0.0))
        return generator


def mersenne_state(generator: np.random.RandomState) -> tuple[NDArray[np.uint32], int, bool]:
    """The Mersenne Twister's key (624,), the position in it, and whether a normal is cached."""
    state: Any = generator.get_state(legacy=True)
    return state[1], int(state[2]), bool(state[3])


def first_reset(seed: int) -> ResetPoint:
    """The first reset of a freshly built environment seeded with `seed`."""
    return ResetPoint(seed=seed, words=0, gauss_cached=False, loads=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResets:
    """The resets of one task under one seed, in sequence."""

    model_sha256: str
    """Hash of the compiled model's XML and of the BDDL file; with another the table does not hold."""
    points: tuple[ResetPoint, ...]
    fixtures: tuple[str, ...]
    """Fixture names, in the order of `poses`."""
    poses: NDArray[np.float64]
    """(resets, fixtures, 7): position in world [m] (3) and quaternion wxyz (4) of each fixture's root body."""


class FixturePoseTable:
    """The shipped table: (task, seed) → `TaskResets`."""

    def __init__(self, file: Path = TABLE_FILE) -> None:
        self._file = file
        with np.load(file, allow_pickle=False) as archive:
            self._index = json.loads(bytes(archive["index"]).decode())

    def __contains__(self, key: tuple[str, int]) -> bool:
        return self._key(*key) in self._index

    @staticmethod
    def _key(task: str, seed: int) -> str:
        return f"{task}/seed{seed}"

    def resets(self, task: TaskSpec, seed: int) -> TaskResets | None:
        """The task's resets under `seed`; None where the table has none."""
        key = self._key(str(task), seed)
        if key not in self._index:
            return None
        entry = self._index[key]
        with np.load(self._file, allow_pickle=False) as archive:
            stream = archive[f"{key}/stream"]
            poses = archive[f"{key}/poses"]
        return TaskResets(
            model_sha256=entry["model_sha256"],
            points=tuple(
                ResetPoint(seed=seed, words=int(words), gauss_cached=bool(gauss), loads=int(loads))
                for words, gauss, loads in stream
            ),
            fixtures=tuple(entry["fixtures"]),
            poses=poses,
        )


@functools.cache
def shipped_table() -> FixturePoseTable:
    """The table that comes with the package."""
    return FixturePoseTable()


def write_table(file: Path, resets: dict[tuple[str, int], TaskResets]) -> None:
    """Write a table for {(task, seed): resets}; `task` is `str(TaskSpec)`."""
    arrays: dict[str, NDArray[np.generic]] = {}
    index = {}
    for (task, seed), entry in sorted(resets.items()):
        key = FixturePoseTable._key(task, seed)
        index[key] = {"model_sha256": entry.model_sha256, "fixtures": list(entry.fixtures)}
        arrays[f"{key}/stream"] = np.array([(p.words, p.gauss_cached, p.loads) for p in entry.points], dtype=np.int32)
        arrays[f"{key}/poses"] = entry.poses
    arrays["index"] = np.frombuffer(json.dumps(index).encode(), dtype=np.uint8)
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
