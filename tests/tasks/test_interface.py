from __future__ import annotations

import re

import numpy as np
import pytest

from tasks.interface import (
    ActionChunk,
    ActionError,
    OpenLoopSpec,
    PolicyNeeds,
    TemporalEnsembleSpec,
    episode_rng,
    state_sha256,
)


@pytest.mark.parametrize("shape", [(7,), (0, 7), (4, 6), (1, 4, 7)])
def test_a_wrong_action_shape_names_both(shape: tuple[int, ...]) -> None:
    with pytest.raises(ActionError, match=rf"expected actions of shape \(T, 7\).*got {re.escape(str(shape))}"):
        ActionChunk(actions=np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_action_is_located(value: float) -> None:
    actions = np.zeros((4, 7))
    actions[2, 5] = value
    with pytest.raises(ActionError, match=rf"got {value} at chunk step 2, dimension 5.*normalisation"):
        ActionChunk(actions=actions)


def test_actions_are_float64_copies_and_keep_values_outside_the_range() -> None:
    given = np.full((2, 7), 1.5, dtype=np.float32)
    chunk = ActionChunk(actions=given)  # type: ignore[arg-type]
    given[:] = 0
    assert chunk.actions.dtype == np.float64
    assert (chunk.actions == 1.5).all()


def test_noise_depends_on_seed_episode_and_step_alone() -> None:
    draw = lambda *key: episode_rng(*key).normal(size=4).tolist()  # noqa: E731
    base = draw(0, "libero_spatial/00/00/r0", 8)
    assert base == draw(0, "libero_spatial/00/00/r0", 8)
    assert base not in (
        draw(1, "libero_spatial/00/00/r0", 8),
        draw(0, "libero_spatial/00/00/r1", 8),
        draw(0, "libero_spatial/00/00/r0", 9),
    )


def test_needs_are_checked() -> None:
    good = {"cameras": ("agentview",), "image_convention": None, "batch_size": 1, "ensemble": OpenLoopSpec()}
    with pytest.raises(ValueError, match="unknown camera 'wrist'; LIBERO's policies see agentview, robot0_eye_in_hand"):
        PolicyNeeds(**{**good, "cameras": ("wrist",)})  # type: ignore[arg-type]
    assert PolicyNeeds(**good).min_image_px == 1  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        PolicyNeeds(**{**good, "batch_size": 0})  # type: ignore[arg-type]


def test_ensemble_specs_are_checked() -> None:
    with pytest.raises(ValueError, match="execute_steps must be at least 1, got 0"):
        OpenLoopSpec(execute_steps=0)
    with pytest.raises(ValueError, match="query_every must be at least 1, got 0"):
        TemporalEnsembleSpec(query_every=0)
    with pytest.raises(ValueError, match="decay must be finite, got nan"):
        TemporalEnsembleSpec(decay=float("nan"))


def test_a_state_hash_sees_the_last_bit() -> None:
    state = np.array([0.1, 0.2])
    assert state_sha256(state) == state_sha256(state.copy())
    assert state_sha256(state) != state_sha256(np.nextafter(state, 1.0))
