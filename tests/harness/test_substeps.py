"""Compiled substeps: what the bindings' functions give one by one, and left to them where anything is not as known.

Equality with stock over whole episodes is in test_equals_stock.py.
"""

from __future__ import annotations

import ctypes
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tasks.interface import Official
from tasks.plan import make_episode
from tasks.protocols import openvla
from tasks.suites import load_suite

if TYPE_CHECKING:
    from harness.sim.simulator import Simulator

pytestmark = pytest.mark.sim
TASK = load_suite("libero_goal")[7]
SPEC = make_episode(TASK, Official(index=0), openvla())


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    from harness.sim.simulator import Simulator

    simulator = Simulator(TASK, openvla())
    simulator.reset(SPEC)
    simulator.step(np.zeros(7))
    simulator.step(np.zeros(7))
    assert simulator._stepper._substeps.usable(), "after the trials of the settling steps"
    yield simulator
    simulator.close()


def trajectory(simulator: Simulator, steps: int = 12) -> list[bytes]:
    """Everything MuJoCo integrates, and everything sampled, after each of some steps in contact."""
    from tests.harness.stock import contact_seeking_actions

    simulator.reset(SPEC)
    data = simulator.scene.data
    rows = []
    for action in contact_seeking_actions(steps, seed=5):
        simulator.step(action)
        arrays = (data.qpos, data.qvel, data.qacc, data.qacc_warmstart, data.ctrl, data.qfrc_constraint, data.xpos)
        sampled = (simulator.sampled.proprio, simulator.sampled.qpos)
        rows.append(b"".join(np.asarray(array).tobytes() for array in (*arrays, *sampled)) + repr(data.time).encode())
    return rows


def call_by_call(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    with monkeypatch.context() as patch:
        patch.setattr(type(simulator._stepper._substeps), "usable", lambda self: False)
        patch.setattr(type(simulator._stepper._substeps), "_run", None)
        return trajectory(simulator)


def test_they_give_what_the_functions_give_one_by_one(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trajectory(simulator) == call_by_call(simulator, monkeypatch)


@pytest.mark.parametrize("sampling_substep", [-1, 0, 7, 24])
def test_observables_are_sampled_in_any_substep(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, sampling_substep: int
) -> None:
    stepper = simulator._stepper
    data = simulator.scene.data

    def sampled() -> list[tuple[bytes, ...]]:
        found = []
        simulator.reset(SPEC)
        for _ in range(2):
            stepper.advance(
                np.full(7, 0.3),
                sampling_substep,
                lambda before: found.append((before.tobytes(), data.qpos.tobytes(), data.xpos.tobytes())),
            )
        return [*found, (data.qpos.tobytes(),)]

    compiled = sampled()
    assert len(compiled) == (1 if sampling_substep < 0 else 3)
    monkeypatch.setattr(type(stepper._substeps), "usable", lambda self: False)
    assert sampled() == compiled


def test_more_constraints_than_there_is_room_for(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo solves them meanwhile."""
    expected = call_by_call(simulator, monkeypatch)
    solver = simulator._stepper._solver
    simulator.reset(SPEC)
    solver.capacity = 3
    assert trajectory(simulator) == expected
    assert solver.capacity > 3, "room was made"


def test_another_layout_of_mujocos_data_is_noticed(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.sim import substeps

    assert substeps._has_known_layout(simulator.scene.data)
    for name in ("_NCON", "_CONTACT", "_NARENA", "_PARENA"):
        with monkeypatch.context() as patch:
            patch.setattr(substeps, name, getattr(substeps, name) - 1)
            assert not substeps._has_known_layout(simulator.scene.data), name


def test_without_contacts_it_is_decided_later(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    substeps = simulator._stepper._substeps
    monkeypatch.setattr(substeps, "_layout_is_known", None)
    with monkeypatch.context() as patch:
        patch.setattr(substeps, "_data", types.SimpleNamespace(ncon=0))
        assert not substeps.usable()
    assert substeps.usable()


def test_a_library_that_is_not_where_it_is_looked_for(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.sim import native_calls, substeps

    expected = trajectory(simulator)
    monkeypatch.setattr(native_calls.mujoco, "__version__", "3.2.4")
    assert native_calls.functions(("mj_step",)) is None
    assert native_calls.collision_functions() is None
    stepper = simulator._stepper
    monkeypatch.setattr(
        stepper,
        "_substeps",
        substeps.Substeps(simulator.scene.model, simulator.scene.data, stepper._control, stepper._solver),
    )
    assert not stepper._substeps.usable()
    assert trajectory(simulator) == expected


def test_nothing_is_compiled_before_its_parts_have_been_tried(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepper = simulator._stepper
    for part in (stepper._solver, stepper._control):
        with monkeypatch.context() as patch:
            patch.setattr(part, "_trials_left", 1)
            assert not stepper._substeps.usable()
    with monkeypatch.context() as patch:
        patch.setattr(stepper._substeps, "_contact_trials_left", 1)
        assert not stepper._substeps.usable()
    assert stepper._substeps.usable()


def test_contacts_are_left_to_mujoco_where_a_trial_shows_a_difference(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mujoco

    from harness.sim import contact_layout as layout
    from harness.sim import substeps

    expected = trajectory(simulator)
    stepper, own = simulator._stepper, substeps._OWN_CONTACTS
    tried, data = stepper._substeps, simulator.scene.data
    detect = substeps.detect

    def wrong(packed: int, contacts: int, room: int) -> int:
        found = detect(packed, contacts, room)
        ctypes.c_double.from_address(contacts + 8 * layout.POS).value *= 1.0 + 1e-15
        return found

    assert tried._notes[own], "found the same so far"
    mujoco.mj_forward(simulator.scene.model, data)
    assert data.ncon > 1
    for detected in (wrong, lambda *arguments: detect(*arguments) - 1):
        monkeypatch.setattr(tried, "_contact_trials_left", 5)
        with monkeypatch.context() as patch:
            patch.setattr(substeps, "detect", detected)
            tried.try_contacts()
        assert (tried._notes[own], tried._contact_trials_left) == (0, 0)
        assert trajectory(simulator) == expected
        monkeypatch.setattr(tried, "_contact_trials_left", 1)
        mujoco.mj_forward(simulator.scene.model, data)
        tried.try_contacts()
        assert tried._notes[own]


def test_contacts_in_doubt_are_looked_for_by_mujoco(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    from harness.sim import native_calls, substeps

    expected = trajectory(simulator)
    doubting = numba.njit(lambda search, contacts, room: -1)
    assert substeps.IN_DOUBT == -1
    parts = simulator._stepper._substeps._parts
    before = parts.copy()
    parts[substeps._DETECT] = native_calls.part_address(doubting)
    try:
        assert trajectory(simulator) == expected
    finally:
        parts[:] = before


def test_most_pairs_are_not_looked_at(simulator: Simulator) -> None:
    """In a stream of a task's substeps: pairs of bodies that rest, and geoms that are far from each other."""
    from harness.sim import near_pairs

    pairs = simulator._stepper._substeps._search.pairs
    pairs.notes[:] = 0
    steps = 12
    trajectory(simulator, steps)
    substeps = 25 * (steps + 10)
    assert 0 < pairs.notes[near_pairs.NUM_SEARCHES] < 0.3 * substeps * len(pairs.members)
    assert 0 < pairs.num_near.sum() < 0.1 * len(pairs.geoms)
    assert pairs.notes[near_pairs.NUM_DOUBTS] < 0.02 * substeps


def test_an_error_in_a_part_is_passed_on(simulator: Simulator) -> None:
    """The controller inverts the arm's inertia; a diverged state has none."""
    import numba

    from harness.sim import native_calls, substeps
    from harness.sim.simulator import SimulatorError

    simulator.reset(SPEC)
    simulator.step(np.zeros(7))

    @numba.njit
    def failing(arm: int, _: int, __: int) -> int:
        if arm:
            raise np.linalg.LinAlgError("Matrix is singular to machine precision.")
        return 0

    parts = simulator._stepper._substeps._parts
    before = parts.copy()
    parts[substeps._TORQUES] = native_calls.part_address(failing)
    try:
        with pytest.raises(SimulatorError, match="the physics diverged"):
            simulator.step(np.zeros(7))
    finally:
        parts[:] = before
