"""The compiled constraint solver: MuJoCo's own numbers, and given up where they differ. Whole episodes are in test_equals_stock.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tasks.interface import Official
from tasks.plan import make_episode
from tasks.protocols import openvla
from tasks.suites import load_suite

pytestmark = pytest.mark.sim
TASK = load_suite("libero_goal")[7]
SPEC = make_episode(TASK, Official(index=0), openvla())


@pytest.fixture(scope="module")
def simulator() -> Iterator[Any]:
    from harness.sim.simulator import Simulator

    simulator = Simulator(TASK, openvla())
    simulator.reset(SPEC)
    yield simulator
    simulator.close()


def solutions(model: Any, data: Any, solver: Any, new_forces: bool) -> tuple[list[bytes], list[bytes]]:
    """MuJoCo's and ours, from the same beginning; ours stay in `data`."""
    import mujoco

    results = (data.qacc, data.qacc_warmstart, data.qfrc_constraint)
    before = data.qacc_warmstart.copy()
    mujoco.mj_fwdConstraint(model, data)
    theirs = [result.tobytes() for result in results]
    data.qacc_warmstart[:] = before
    for result in (data.qacc, data.qfrc_constraint):
        result[:] = np.nan
    solver._solve(new_forces)
    return theirs, [result.tobytes() for result in results]


def made_alike(data: Any, solver: Any) -> bool:
    """Whether the constraints are MuJoCo's, bit for bit, all but the Jacobian's zeros."""
    from harness.sim import solver_memory as memory

    n, kept = data.nefc, solver._kept
    jacobian = np.zeros((n, 4 * ((len(data.qvel) + 3) // 4)))
    for row in range(n):
        for block in range(kept[memory.START][row], kept[memory.START][row + 1]):
            jacobian[row, kept[memory.COLUMN][block] + np.arange(4)] = kept[memory.VALUE][4 * block : 4 * block + 4]
    fields = {
        memory.STIFFNESS: data.efc_D, memory.REGULARIZER: data.efc_R, memory.AREF: data.efc_aref,
        memory.FRICTION_LOSS: data.efc_frictionloss,
    }  # fmt: skip
    same = all(kept[field][: len(array)].tobytes() == array.tobytes() for field, array in fields.items())
    dense = data.efc_J.reshape(n, -1)
    return solver._alone and same and np.array_equal(jacobian[:, : dense.shape[1]], dense)


def random_scene(rng: np.random.Generator) -> str:
    """Things of all kinds that fall on each other: contacts of 1, 3 and 4 rows, joint limits, joint friction, and a chain."""
    kinds = ["sphere", "box", "capsule", "cylinder"]
    bodies = "".join(
        f'<body pos="{x:.3f} {y:.3f} {0.1 + 0.12 * i:.3f}" euler="{a:.1f} {b:.1f} 0"><freejoint/>'
        f'<geom type="{kinds[i % 4]}" size="0.05 0.05 0.05" condim="{[1, 3, 4, 3][rng.integers(4)]}" '
        f'friction="{f:.2f} 0.01 0.001"/></body>'
        for i, (x, y, a, b, f) in enumerate(
            zip(*rng.uniform(-0.06, 0.06, (2, 7)), *rng.uniform(0, 90, (2, 7)), rng.uniform(0.1, 1.5, 7), strict=True)
        )
    )
    chain = """<body pos="0.2 0 0.3"><joint type="hinge" axis="0 1 0" frictionloss="0.2" range="-20 20" limited="true" damping="0.1"/>
      <geom type="capsule" fromto="0 0 0 -0.15 0 0" size="0.02"/><body pos="-0.15 0 0"><joint type="hinge" axis="0 1 0"
      frictionloss="0.05"/><geom type="capsule" fromto="0 0 0 -0.15 0 0" size="0.02" condim="4"/></body></body>"""
    return f"""<mujoco><option cone="elliptic" impratio="20" timestep="0.002"/><worldbody>
      <geom type="plane" size="2 2 0.1" condim="1"/>{bodies}{chain}</worldbody></mujoco>"""


def test_piles_of_things_get_mujocos_accelerations_to_the_bit() -> None:
    """Six scenes of things that bounce, slide, roll and rest, with forces on all of them; many iterations, all kinds of rows."""
    import mujoco

    from harness.sim.constrained_model import supported
    from harness.sim.constraint_solver import ConstraintSolver

    iterations, rows, kinds = set(), set(), set()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        model = mujoco.MjModel.from_xml_string(random_scene(rng))
        assert supported(model)
        data = mujoco.MjData(model)
        solver = ConstraintSolver(model, data)
        for step in range(250):
            data.qfrc_applied[:] = rng.normal(size=model.nv) * 0.3
            mujoco.mj_forward(model, data)
            if not data.nefc:
                mujoco.mj_Euler(model, data)
                continue
            solver.begin()
            assert made_alike(data, solver), (seed, step)
            for new_forces, start in ((True, 0.0), (False, 0.0), (False, 30.0)):
                data.qacc_warmstart[:] += start * rng.normal(size=model.nv)
                theirs, ours = solutions(model, data, solver, new_forces)
                assert ours == theirs, (seed, step, data.solver_niter[0])
                iterations.add(int(data.solver_niter[0]))
            rows.add(data.nefc)
            kinds |= set(data.efc_type.tolist())
            mujoco.mj_Euler(model, data)
    assert max(iterations) >= 4
    assert max(rows) > 40
    assert len(kinds) == 4, "joint friction, joint limits, contacts without friction and contacts with"


def test_a_grasp_in_libero_gets_mujocos_accelerations(simulator: Any) -> None:
    from tests.harness.stock import contact_seeking_actions

    simulator.reset(SPEC)
    solver = simulator._stepper._solver
    model, data = simulator.scene.model, simulator.scene.data
    for action in contact_seeking_actions(20, seed=2):
        simulator.step(action)
        assert solver._alone
        import mujoco

        mujoco.mj_forward(model, data)
        solver.begin()
        assert made_alike(data, solver)
        theirs, ours = solutions(model, data, solver, True)
        assert ours == theirs


def test_numbers_that_differ_are_noticed(simulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off by one bit in one solution: from then on MuJoCo's solver is used, and no result changes."""
    from tests.harness.stock import contact_seeking_actions

    def final_state() -> bytes:
        simulator.reset(SPEC)
        for action in contact_seeking_actions(4, seed=3):
            simulator.step(action)
        state: bytes = simulator.state().qpos.tobytes()
        return state

    expected = final_state()
    solver = simulator._stepper._solver
    solve = solver._solve

    def slightly_wrong(new_forces: bool) -> None:
        solve(new_forces)
        solver._data.qacc[0] = np.nextafter(solver._data.qacc[0], np.inf)

    monkeypatch.setattr(solver, "_solve", slightly_wrong)
    monkeypatch.setattr(solver, "_trials_left", 1)
    assert final_state() == expected
    assert not solver._alone
    solver._alone = True


@pytest.mark.parametrize(
    "change",
    [
        '<option cone="pyramidal"/>',
        '<option jacobian="sparse" cone="elliptic"/>',
        '<option solver="CG" cone="elliptic"/>',
        '<option cone="elliptic" noslip_iterations="3"/>',
        '<option cone="elliptic"><flag warmstart="disable"/></option>',
        '<option cone="elliptic"/><default><geom solref="-1000 -30"/></default>',
    ],
)
def test_other_solvers_are_left_to_mujoco(change: str) -> None:
    import mujoco

    from harness.sim.constraint_solver import ConstraintSolver

    ball = '<body pos="0 0 0.04"><freejoint/><geom size="0.05"/></body>'
    xml = f'<mujoco>{change}<worldbody><geom type="plane" size="1 1 1"/>{ball}</worldbody></mujoco>'
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    expected = data.qacc.copy()
    solver = ConstraintSolver(model, data)
    assert not solver._alone
    data.qacc_warmstart[:] = 0
    mujoco.mj_resetData(model, data)
    mujoco.mj_fwdPosition(model, data)
    mujoco.mj_fwdVelocity(model, data)
    mujoco.mj_fwdActuation(model, data)
    mujoco.mj_fwdAcceleration(model, data)
    solver.begin()
    solver.solve(new_forces=True)
    np.testing.assert_array_equal(data.qacc, expected)
