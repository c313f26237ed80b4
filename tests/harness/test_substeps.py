"""Compiled substeps: what the bindings' functions give one by one, and left to them where anything is not as known.

Equality with stock over whole episodes is in test_equals_stock.py.
"""

from __future__ import annotations

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
    for name in ("_NCON", "_CONTACT"):
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
    from harness.sim import substeps

    expected = trajectory(simulator)
    monkeypatch.setattr(substeps.mujoco, "__version__", "3.2.4")
    assert substeps._functions() is None
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
    assert stepper._substeps.usable()
