"""The compiled control law: held to numpy's, and given up where libraries round differently. Equality with stock is in
test_equals_stock.py."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tasks.interface import Official
from tasks.plan import make_episode
from tasks.protocols import openvla
from tasks.suites import load_suite

pytestmark = pytest.mark.sim
TASK = load_suite("libero_object")[0]
SPEC = make_episode(TASK, Official(index=0), openvla())


@pytest.fixture(scope="module")
def simulator() -> Iterator[object]:
    from harness.sim.simulator import Simulator

    simulator = Simulator(TASK, openvla())
    yield simulator
    simulator.close()


def final_state(simulator: object, steps: int = 8) -> bytes:
    from harness.sim.simulator import Simulator
    from tests.harness.stock import contact_seeking_actions

    assert isinstance(simulator, Simulator)
    simulator.reset(SPEC)
    for action in contact_seeking_actions(steps, seed=3):
        simulator.step(action)
    return simulator.state().qpos.tobytes()


def test_both_ways_give_the_same_torques(simulator: object) -> None:
    from harness.sim.simulator import Simulator
    from tests.harness.stock import contact_seeking_actions

    assert isinstance(simulator, Simulator)
    simulator.reset(SPEC)
    control = simulator._stepper._control
    if not control._libraries_agree:
        pytest.skip("numpy's and scipy's BLAS round differently here")
    for action in contact_seeking_actions(10, seed=1):
        simulator.step(action)
        np.testing.assert_array_equal(control.torques_compiled(), control.torques_with_numpy())


def test_libraries_that_round_differently_are_noticed(simulator: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off by one bit: from then on numpy's products are used, and no result changes."""
    from harness.sim.operational_space import OperationalSpaceControl
    from harness.sim.simulator import Simulator

    assert isinstance(simulator, Simulator)
    expected = final_state(simulator)
    compiled = OperationalSpaceControl.torques_compiled
    monkeypatch.setattr(OperationalSpaceControl, "torques_compiled", lambda self: np.nextafter(compiled(self), np.inf))
    control = simulator._stepper._control
    monkeypatch.setattr(control, "_trials_left", 1)
    monkeypatch.setattr(control, "_libraries_agree", True)
    assert final_state(simulator) == expected
    assert not control._libraries_agree


def test_without_a_rotation_the_hand_keeps_its_goal(simulator: object) -> None:
    """As robosuite: a zero rotation leaves the last goal, a zero translation makes the present position the goal."""
    from harness.sim.simulator import Simulator

    assert isinstance(simulator, Simulator)
    simulator.reset(SPEC)
    control = simulator._stepper._control
    simulator.step(np.array([0.3, 0, 0, 0, 0, 0.4, -1.0]))
    turned = control.arm.goal_rotation.copy()
    position = control.arm.goal_position.copy()
    simulator.step(np.array([0.0, 0, 0, 0, 0, 0, -1.0]))
    np.testing.assert_array_equal(control.arm.goal_rotation, turned)
    assert (control.arm.goal_position != position).any()
