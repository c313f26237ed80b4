"""The types that cross package boundaries, and the protocols a policy and an ensembler implement.

Array conventions used everywhere in the project:

=============  =========  ==================  =====================================================
name           dtype      shape               meaning
=============  =========  ==================  =====================================================
images         uint8      (cameras, H, W, 3)  RGB, in the order and convention the policy asked for
proprio        float32    (8,)                eef position in world [m] (3), eef orientation as
                                              axis-angle [rad] (3), finger joint positions [m] (2)
actions        float64    (T, 7)              translation (3; ±1 = 0.05 m per control step),
                                              rotation (3; axis-angle, ±1 = 0.5 rad), gripper
                                              (1; -1 opens, +1 closes, only the sign acts)
=============  =========  ==================  =====================================================
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tasks.boxes import Boxes

ACTION_DIM = 7
PROPRIO_DIM = 8
CONTROL_HZ = 20
CAMERAS = ("agentview", "robot0_eye_in_hand")

ImageConvention = Literal["raw", "rotated_180", "true_view"]
"""`raw`: rows as OpenGL gives them, the first row is the bottom of the picture. `rotated_180`:
upright but mirrored, what OpenVLA and openpi were trained on. `true_view`: flipped vertically,
what a person standing at the camera would see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One task of a suite, as it is written in LIBERO's files."""

    suite: str
    index: int
    name: str
    instruction_file_name: str
    """The instruction spelled by the BDDL file's name."""
    instruction_bddl: str
    """The instruction in the BDDL's `(:language …)`."""
    bddl_file: Path
    init_states_file: Path
    num_init_states: int

    def __str__(self) -> str:
        return f"{self.suite}/{self.index:02d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Official:
    """Row `index` of the task's official init states."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The state LIBERO's own samplers draw at the first reset after seeding with `seed`."""

    seed: int
    spread: float = 1.0
    """How many times as wide as LIBERO's the regions are in which things are put on a table; fixtures keep theirs."""

    def __str__(self) -> str:
        """Plans are named by this: the usual spread is left out, as before there was another."""
        return (
            f"Sampled(seed={self.seed})" if self.spread == 1.0 else f"Sampled(seed={self.seed}, spread={self.spread})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The first state of demonstration `demo` in an HDF5 file."""

    file: Path
    demo: str


InitState = Official | Sampled | Recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSpec:
    """One episode of a plan. Its id is fixed before anything runs."""

    episode_id: str
    """`suite/task/init/repeat`, such as `libero_spatial/03/07/r0`."""
    task: TaskSpec
    init: InitState
    repeat: int
    protocol: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """What a policy sees at one control step; see the module's table for the arrays."""

    images: NDArray[np.uint8]
    proprio: NDArray[np.float32]
    instruction: str
    episode_id: str
    step: int
    """Control steps since the end of settling."""


class ActionError(ValueError):
    """A policy returned something that is not a chunk of actions."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActionChunk:
    """Actions for the next T control steps: float64 (T, 7), finite.

    Entries outside [-1, 1] are allowed: the simulator clips them as stock LIBERO does, and the
    episode record counts them.

    Raises:
        ActionError: the array has another shape or contains NaN or infinity.
    """

    actions: NDArray[np.float64]

    def __post_init__(self) -> None:
        actions = np.array(self.actions, dtype=np.float64)
        if actions.ndim != 2 or actions.shape[0] == 0 or actions.shape[1] != ACTION_DIM:
            raise ActionError(
                f"expected actions of shape (T, {ACTION_DIM}) with T >= 1, got {actions.shape}. "
                "An action is 3 translation, 3 rotation and 1 gripper value; return one chunk per observation."
            )
        if not np.isfinite(actions).all():
            row, column = np.argwhere(~np.isfinite(actions))[0]
            raise ActionError(
                f"expected finite actions, got {actions[row, column]} at chunk step {row}, dimension {column}. "
                "Check the policy's normalisation statistics and its inputs for NaN."
            )
        object.__setattr__(self, "actions", actions)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoopSpec:
    """Execute the first `execute_steps` actions of a chunk (None: all of them), then query again."""

    execute_steps: int | None = None

    def __post_init__(self) -> None:
        if self.execute_steps is not None and self.execute_steps < 1:
            raise ValueError(f"execute_steps must be at least 1, got {self.execute_steps}")

    def __str__(self) -> str:
        return f"open loop, {'whole chunk' if self.execute_steps is None else f'{self.execute_steps} steps'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalEnsembleSpec:
    """Blend all chunks that cover a step with weights exp(-decay · i), i = 0 the oldest.

    Source: ACT, arXiv 2304.13705, algorithm 2 (`query_every` = 1, decay 0.01).
    """

    decay: float = 0.01
    query_every: int = 1

    def __post_init__(self) -> None:
        if not np.isfinite(self.decay):
            raise ValueError(f"decay must be finite, got {self.decay}")
        if self.query_every < 1:
            raise ValueError(f"query_every must be at least 1, got {self.query_every}")

    def __str__(self) -> str:
        return f"temporal ensemble, decay {self.decay:g}, query every {self.query_every}"


EnsembleSpec = OpenLoopSpec | TemporalEnsembleSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyNeeds:
    """What a policy must be given, and how its chunks are best executed."""

    cameras: tuple[str, ...]
    """Camera names in the order of `Observation.images`; empty: nothing is rendered."""
    image_convention: ImageConvention | None
    """None: the protocol's."""
    batch_size: int
    """Every call of `act` gets exactly this many observations (padded), so that who shares a batch
    changes nothing. 1 for a policy that does not batch."""
    ensemble: EnsembleSpec
    """The recommended execution of a chunk; the command line overrides it."""
    min_image_px: int = 1
    """Smallest rendering (height and width) the policy can work with; a protocol that renders smaller is refused."""

    def __post_init__(self) -> None:
        unknown = [c for c in self.cameras if c not in CAMERAS]
        if unknown:
            raise ValueError(f"unknown camera {unknown[0]!r}; LIBERO's policies see {', '.join(CAMERAS)}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")


PADDING_ID = "padding"
"""`Observation.episode_id` of the copies that fill a batch; a policy keeps no state for it."""


@runtime_checkable
class Policy(Protocol):
    """Maps observations to chunks of actions. State, if any, is kept by `episode_id` alone.

    `start`, `act` and `finish` are called on one thread, one at a time, but not on the thread that made the policy: what torch keeps
    per thread (inference mode, the current device) belongs inside `act`.
    """

    @property
    def needs(self) -> PolicyNeeds: ...

    def start(self, specs: Sequence[EpisodeSpec]) -> None:
        """Episodes begin (again, after a retry): forget what was kept for them."""
        ...

    def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
        """One chunk per observation, in the same order. An entry whose id is `PADDING_ID` is ignored."""
        ...

    def finish(self, episode_ids: Sequence[str]) -> None:
        """Episodes ended: release what was kept for them."""
        ...


class PrivilegedState(Protocol):
    """The simulator's true state, for policies that run inside the worker."""

    @property
    def goal(self) -> tuple[tuple[str, ...], ...]:
        """The goal's predicates, such as `("on", "akita_black_bowl_1", "plate_1")`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Bodies of the task's objects and fixtures."""

    @property
    def base_position_world(self) -> NDArray[np.float64]:
        """(3,) [m]: the robot's base."""

    @property
    def eef_position_world(self) -> NDArray[np.float64]:
        """(3,) [m]"""

    @property
    def eef_rotation_world(self) -> NDArray[np.float64]:
        """(3, 3)"""

    @property
    def arm_joints(self) -> NDArray[np.float64]:
        """(7,) [rad]: from the base on."""

    @property
    def finger_width(self) -> float:
        """Distance between the finger joints' positions [m]."""

    def position_world(self, name: str) -> NDArray[np.float64]:
        """(3,) [m]: the origin of an object, fixture or site."""

    def rotation_world(self, name: str) -> NDArray[np.float64]:
        """(3, 3): the orientation of an object, fixture or site."""

    def category(self, name: str) -> str:
        """LIBERO's category, such as `akita_black_bowl`."""

    @property
    def categories(self) -> dict[str, str]:
        """LIBERO's category of every object and fixture, tables included."""

    def parent(self, region: str) -> str:
        """The object, fixture or table that a region belongs to; empty for an object or fixture itself."""

    def half_extent_world(self, region: str) -> NDArray[np.float64]:
        """(3,) [m]: half the size of the world-aligned box that LIBERO takes a region for."""

    def boxes(self, name: str) -> Boxes:
        """The collision geometry of an object, fixture, or of the moving part (a drawer) that a region is in."""

    def joint_position(self, name: str) -> float:
        """Of a fixture's or a drawer region's joint [m or rad].

        Raises:
            ValueError: it has none.
        """

    def holds(self, predicate: tuple[str, ...]) -> bool:
        """Whether a predicate of the goal holds now."""

    def fingers_touch(self, name: str) -> int:
        """How many of the two fingers are in contact with an object or fixture."""


@runtime_checkable
class WorkerPolicy(Protocol):
    """A policy with privileged state; it runs inside the worker, one instance per episode."""

    def act(self, state: PrivilegedState) -> NDArray[np.float64]:
        """One action (7,) for the next control step."""
        ...


class Ensembler(Protocol):
    """Turns chunks into one action per control step. One per episode, inside the worker."""

    def wants_chunk(self, step: int) -> bool:
        """Whether the policy must be queried before the action of `step`."""
        ...

    def push(self, chunk: ActionChunk, step: int) -> None:
        """Take the chunk whose first action is meant for `step`."""
        ...

    def action(self, step: int) -> NDArray[np.float64]:
        """(7,) float64: the action to execute at `step`."""
        ...


class Outcome(enum.StrEnum):
    """How an episode ended. An error is never a failed episode."""

    SUCCESS = "success"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSpent:
    """Where an episode's wall time went [s]."""

    build_s: float
    """Loading the task's model and making its GL context, when this episode was the first of its task on the worker."""
    reset_s: float
    """Soft reset, init state and settling."""
    physics_s: float
    render_s: float
    policy_s: float
    """The policy's calls that answered this episode's queries (a worker policy: computing actions)."""
    wait_s: float
    """Waiting for the policy beyond that: for its last batch to end, and for the answer to travel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRecord:
    """What is known of one episode after it ended."""

    spec: EpisodeSpec
    outcome: Outcome
    error: str
    """Empty unless the outcome is `error`."""
    steps: int
    """Control steps executed after settling."""
    queries: int
    clipped_actions: int
    """Executed actions with an arm entry outside [-1, 1]."""
    time_spent: TimeSpent
    attempt: int
    final_state_sha256: str
    """Hash of the final (time, qpos, qvel), float64 little endian; empty after an error."""
    trace: str
    """The trace's path relative to the run directory; empty after an error."""
    video: str
    """The video's path relative to the run directory; empty while there is none. Read off the folder."""


def episode_rng(run_seed: int, episode_id: str, step: int) -> np.random.Generator:
    """The noise source of a policy at one step: a function of its three arguments and nothing else."""
    digest = hashlib.sha256(episode_id.encode()).digest()
    words = np.frombuffer(digest[:16], dtype="<u4").tolist()
    return np.random.default_rng(np.random.SeedSequence([run_seed, step, *words]))


def state_sha256(state: NDArray[np.float64]) -> str:
    """The fingerprint of a physical state (1 + nq + nv,): SHA-256 of (time, qpos, qvel) as little-endian float64."""
    return hashlib.sha256(np.ascontiguousarray(state, dtype="<f8").tobytes()).hexdigest()
