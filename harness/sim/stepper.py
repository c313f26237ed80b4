"""Advances the physics by control steps as robosuite does, with one position stage per substep instead of three.

In each 2 ms substep stock runs `mj_forward`, a second `mj_forward` that the controller forces, and `mj_step`, which runs a third.
Positions and velocities are the same in all three, so everything that depends on them alone is computed once. What does differ is
kept: the constraint solver starts from the accelerations found last, so its three solutions refine each other, and the third one
has new controls (`constraint_solver`). Sensors, which nobody reads, are left out. See `mj_forwardSkip` and `mj_step` in MuJoCo's
engine_forward.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.sim.compiled import Compilation
from harness.sim.constraint_solver import ConstraintSolver
from harness.sim.operational_space import OperationalSpaceControl
from harness.sim.stack import SUBSTEPS, mujoco
from harness.sim.substeps import PARTS, Substeps

_COMPILATION = Compilation("physics", PARTS)


class Stepper:
    """The control steps of one environment.

    Args:
        env: LIBERO's; its references are set up.
        model: mujoco's.
        data: mujoco's.
    """

    def __init__(self, env: Any, model: Any, data: Any) -> None:
        assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_EULER, "substeps are written out for Euler's method"
        assert model.opt.enableflags == 0, "energy and inverse dynamics are left out"
        (robot,) = env.robots
        self._env = env
        self._model = model
        self._data = data
        self._control = OperationalSpaceControl(robot, model, data)
        self._solver = ConstraintSolver(model, data)
        self._substeps = Substeps(model, data, self._control, self._solver)
        self._fresh = True

    def reset(self) -> None:
        """The environment was reset; its own controller begins."""
        self._fresh = True

    def advance(
        self, action: NDArray[np.float64], sampling_substep: int, on_sample: Callable[[NDArray[np.float64]], None]
    ) -> None:
        """One control step: 25 substeps.

        Args:
            action: (7,) in [-1, 1]; what lies beyond is clipped.
            sampling_substep: in which one observables are sampled; -1 for none.
            on_sample: called after that substep with the positions (nq,) before it, whose kinematics body and site poses
                still show; `data.qpos` is that after it. So robosuite's observables find it.
        """
        if _COMPILATION.over:
            self._advance(action, sampling_substep, on_sample)
            return
        last = self._substeps.decided()
        with _COMPILATION.turn():
            self._advance(action, sampling_substep, on_sample)
        if last:
            _COMPILATION.finish()

    def _advance(
        self, action: NDArray[np.float64], sampling_substep: int, on_sample: Callable[[NDArray[np.float64]], None]
    ) -> None:
        if self._fresh or not self._substeps.usable():
            self._advance_call_by_call(action, sampling_substep, on_sample)
            return
        substeps = self._substeps
        substeps.begin()
        self._control.set_goal(action)
        substeps.finish_first(SUBSTEPS if sampling_substep < 0 else sampling_substep + 1)
        if sampling_substep >= 0:
            on_sample(substeps.qpos_before)
            if sampling_substep + 1 < SUBSTEPS:
                substeps.more(SUBSTEPS - sampling_substep - 1)

    def _advance_call_by_call(
        self, action: NDArray[np.float64], sampling_substep: int, on_sample: Callable[[NDArray[np.float64]], None]
    ) -> None:
        model, data, control, solver = self._model, self._data, self._control, self._solver
        for substep in range(SUBSTEPS):
            sampling = substep == sampling_substep
            if sampling:
                qpos_before = data.qpos.copy()
            if self._fresh:
                self._first_substep(action)
            else:
                mujoco.mj_fwdPosition(model, data)
                self._substeps.try_contacts()
                mujoco.mj_fwdVelocity(model, data)
                mujoco.mj_fwdActuation(model, data)
                mujoco.mj_fwdAcceleration(model, data)
                solver.begin()
                solver.solve(new_forces=True)  # stock's first forward pass
                solver.solve(new_forces=False)  # the controller's: nothing else has changed
                if substep == 0:
                    control.set_goal(action)
                control.command()
                if substep == 0:  # from then on a bad position or velocity can only come from a bad acceleration
                    mujoco.mj_checkPos(model, data)
                    mujoco.mj_checkVel(model, data)
                mujoco.mj_fwdActuation(model, data)
                mujoco.mj_fwdAcceleration(model, data)
                solver.solve(new_forces=True)  # of `mj_step`
                mujoco.mj_checkAcc(model, data)
                mujoco.mj_Euler(model, data)
            if sampling:
                on_sample(qpos_before)

    def _first_substep(self, action: NDArray[np.float64]) -> None:
        """After a reset robosuite's controller still holds the pose it was made in, and forces no forward pass: its own
        code runs once, and leaves gains and goal."""
        mujoco.mj_forward(self._model, self._data)
        self._env._pre_action(action, policy_step=True)
        mujoco.mj_step(self._model, self._data)
        self._control.take_over(action)
        self._fresh = False
