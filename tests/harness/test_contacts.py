"""The contact check: robosuite's own answers."""

from __future__ import annotations

import itertools

import pytest

from tasks.interface import Official
from tasks.plan import make_episode
from tasks.protocols import openvla
from tasks.suites import load_suite

pytestmark = pytest.mark.sim


def test_contacts_are_those_that_robosuite_finds() -> None:
    """Models, names, lists of names and "anything", while the hand presses and pushes; both answers must come."""
    from harness.sim.simulator import Simulator
    from harness.sim.stack import robosuite
    from tests.harness.stock import contact_seeking_actions

    task = load_suite("libero_goal")[7]
    simulator = Simulator(task, openvla())
    simulator.reset(make_episode(task, Official(index=0), openvla()))
    env = simulator.scene.env
    stock = robosuite.environments.base.MujocoEnv.check_contact
    things = [env.get_object(name) for name in [*env.objects_dict, *env.fixtures_dict]]
    gripper = env.robots[0].gripper
    groups = [*things, gripper, gripper.contact_geoms, things[0].contact_geoms[0], "no_such_geom", []]
    answers = set()
    for action in contact_seeking_actions(40, seed=5):
        simulator.step(action)
        for one, other in itertools.product(groups, [*groups, None]):
            expected = stock(env, one, other)
            assert env.check_contact(one, other) == expected, (one, other)
            answers.add((expected, other is None))
    assert len(answers) == 4
    assert not simulator.scene.data.bvh_active.any(), "bounding volumes are marked, which nobody looks at"
    simulator.close()
