"""From an openpi request to an `Observation`, and which client and episode it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.policies.openpi_wire import (
    CLIENT_KEY,
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
LONGEST_PROMPT, LONGEST_ID = 10_000, 200


class Session:
    """One connection's requests.

    A client that names itself and its episodes (`vla-eval`) may use many connections and keeps its episodes when one
    breaks. One that does not (openpi's own) has one episode per connection.

    Args:
        number: of the connection.
        needs: the policy's.
    """

    def __init__(self, number: int, needs: PolicyNeeds) -> None:
        self.number = number
        self._needs = needs
        self._own_id = f"remote/00/s{number}/r0"
        self._requests = 0
        self.client = ""
        """Empty before the first request."""
        self.episode_id = ""
        """The episode this connection is in; empty before the first."""

    @property
    def is_anonymous(self) -> bool:
        """Whether client and episode are this connection itself."""
        return self.client == self._own_id

    def observation(self, request: dict[Any, Any]) -> Observation:
        """What the policy is given.

        Raises:
            WireError: a part is missing or has the wrong type, shape or size.
        """
        named = EPISODE_KEY in request
        client = _identifier(request, CLIENT_KEY) if named else self._own_id
        episode_id = _identifier(request, EPISODE_KEY) if named else self._own_id
        step = request.get(STEP_KEY) if named else self._requests
        if not isinstance(step, int) or step < 0:
            raise WireError(f"expected {STEP_KEY!r}: a number from 0 up, got {step!r}")
        if self.client not in ("", client):
            raise WireError(f"expected one client per connection, got {client!r} after {self.client!r}")
        observation = Observation(
            images=self._images(request, as_openpi=not named),
            proprio=_state(request),
            instruction=_prompt(request),
            episode_id=episode_id,
            step=step,
        )
        self.client = client
        self._requests += 1
        return observation

    def _images(self, request: dict[Any, Any], *, as_openpi: bool) -> NDArray[np.uint8]:
        images = [_image(request, IMAGE_KEYS[camera]) for camera in self._needs.cameras]
        if len({image.shape for image in images}) > 1:
            raise WireError(f"expected images of one size, got {', '.join(str(image.shape) for image in images)}")
        if not images:
            return np.empty((0, 1, 1, 3), dtype=np.uint8)
        convention = self._needs.image_convention if as_openpi else None  # `vla-eval` converts them itself
        return np.stack([_from_openpi(image, convention or IMAGE_CONVENTION) for image in images])


def _from_openpi(image: NDArray[np.uint8], convention: ImageConvention) -> NDArray[np.uint8]:
    """An image as openpi sends it, rotated by 180°, in another convention."""
    match convention:
        case "rotated_180":
            return image
        case "raw":
            return image[::-1, ::-1]
        case "true_view":
            return image[:, ::-1]


def _identifier(request: dict[Any, Any], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_ID or not value.isprintable():
        raise WireError(f"expected {key!r}: printable text of at most {LONGEST_ID} characters, got {_describe(value)}")
    return value


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
    return ", ".join(repr(key)[:60] for key in list(request)[:20]) or "none"


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
