"""From an openpi request to an `Observation`, and which episode it belongs to."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.policies.openpi_wire import (
    EPISODE_KEY,
    IMAGE_CONVENTION,
    IMAGE_KEYS,
    PROMPT_KEY,
    STATE_KEY,
    STEP_KEY,
    WireError,
)
from tasks.interface import (
    PROPRIO_DIM,
    EpisodeSpec,
    ImageConvention,
    Observation,
    PolicyNeeds,
    Sampled,
    TaskSpec,
)

LARGEST_IMAGE_PX = 2048
LONGEST_PROMPT = 10_000
MOST_EPISODES = 1024
"""Episodes whose state is kept for a client that lost its connection; beyond, the oldest is finished."""


class Session:
    """One connection's requests.

    A client that names its episodes (`vla-eval`) keeps them when its connection breaks. One that does not (openpi's
    own) has one episode per connection.

    Args:
        number: of the connection.
        needs: the policy's.
    """

    def __init__(self, number: int, needs: PolicyNeeds) -> None:
        self._needs = needs
        self._own_id = f"remote/00/s{number}/r0"
        self._requests = 0
        self.episode_id = ""
        """Of the last request; empty before the first."""

    @property
    def ends_with_connection(self) -> bool:
        """Whether the episode is over when the connection is."""
        return self.episode_id == self._own_id

    def observation(self, request: dict[Any, Any]) -> Observation:
        """What the policy is given.

        Raises:
            WireError: a part is missing or has the wrong type, shape or size.
        """
        episode_id = request.get(EPISODE_KEY, self._own_id)
        step = request.get(STEP_KEY, self._requests)
        if not isinstance(episode_id, str) or not isinstance(step, int) or step < 0:
            raise WireError(
                f"expected {EPISODE_KEY} (text) and {STEP_KEY} (a number from 0 up), got {episode_id!r}, {step!r}"
            )
        observation = Observation(
            images=self._images(request),
            proprio=_state(request),
            instruction=_prompt(request),
            episode_id=episode_id,
            step=step,
        )
        self.episode_id = episode_id
        self._requests += 1
        return observation

    def _images(self, request: dict[Any, Any]) -> NDArray[np.uint8]:
        images = [_image(request, IMAGE_KEYS[camera]) for camera in self._needs.cameras]
        if len({image.shape for image in images}) > 1:
            raise WireError(f"expected images of one size, got {', '.join(str(image.shape) for image in images)}")
        if not images:
            return np.empty((0, 1, 1, 3), dtype=np.uint8)
        convention = self._needs.image_convention or IMAGE_CONVENTION
        return np.stack([_from_wire(image, convention) for image in images])


def _from_wire(image: NDArray[np.uint8], convention: ImageConvention) -> NDArray[np.uint8]:
    """An image as it is sent, rotated by 180°, in another convention."""
    match convention:
        case "rotated_180":
            return image
        case "raw":
            return image[::-1, ::-1]
        case "true_view":
            return image[:, ::-1]


def _image(request: dict[Any, Any], key: str) -> NDArray[np.uint8]:
    image = request.get(key)
    if not isinstance(image, np.ndarray):
        raise WireError(f"expected {key!r}: uint8 (H, W, 3), got {_describe(image)}; the keys are {_keys(request)}")
    sides_fit = image.ndim == 3 and image.shape[2] == 3 and all(1 <= n <= LARGEST_IMAGE_PX for n in image.shape[:2])
    if image.dtype != np.uint8 or not sides_fit:
        raise WireError(f"expected {key!r}: uint8 (H, W, 3), at most {LARGEST_IMAGE_PX} a side, got {_describe(image)}")
    return image


def _state(request: dict[Any, Any]) -> NDArray[np.float32]:
    state = request.get(STATE_KEY)
    if not isinstance(state, np.ndarray) or state.shape != (PROPRIO_DIM,) or state.dtype.kind != "f":
        raise WireError(
            f"expected {STATE_KEY!r}: float ({PROPRIO_DIM},), got {_describe(state)}; the keys are {_keys(request)}"
        )
    if not np.isfinite(state).all():
        raise WireError(f"expected {STATE_KEY!r} to be finite, got {state}")
    return state.astype(np.float32)


def _prompt(request: dict[Any, Any]) -> str:
    prompt = request.get(PROMPT_KEY)
    if not isinstance(prompt, str) or len(prompt) > LONGEST_PROMPT:
        raise WireError(
            f"expected {PROMPT_KEY!r}: text of at most {LONGEST_PROMPT} characters, got {_describe(prompt)}"
        )
    return prompt


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _keys(request: dict[Any, Any]) -> str:
    return ", ".join(repr(key) for key in request) or "none"


class LiveEpisodes:
    """The episodes a policy may hold state for, by their last use."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def begin_or_continue(self, observation: Observation) -> tuple[bool, list[str]]:
        """Note an observation's episode.

        Returns:
            Whether it begins (again), and the episodes to be finished to make room.

        Raises:
            WireError: a later step of an episode whose beginning was not seen.
        """
        begins = observation.step == 0
        if not begins and observation.episode_id not in self._ids:
            raise WireError(
                f"this server has not seen the beginning of {observation.episode_id}, only its step {observation.step}; "
                "was it restarted? Repeat the evaluation's command: finished episodes are kept, this one begins anew."
            )
        self._ids[observation.episode_id] = None
        self._ids.move_to_end(observation.episode_id)
        finished = []
        while len(self._ids) > MOST_EPISODES:
            finished.append(self._ids.popitem(last=False)[0])
        return begins, finished

    def end(self, episode_id: str) -> list[str]:
        """The episode ended: what to finish (nothing, if it is not known)."""
        if episode_id not in self._ids:
            return []
        del self._ids[episode_id]
        return [episode_id]


def remote_episode(observation: Observation) -> EpisodeSpec:
    """All that is known here of a client's episode: its id and its instruction."""
    nowhere = Path()
    task = TaskSpec(
        suite="remote",
        index=0,
        name=observation.instruction.replace(" ", "_"),
        instruction_file_name=observation.instruction,
        instruction_bddl=observation.instruction,
        bddl_file=nowhere,
        init_states_file=nowhere,
        num_init_states=0,
    )
    return EpisodeSpec(episode_id=observation.episode_id, task=task, init=Sampled(seed=0), repeat=0, protocol="remote")
