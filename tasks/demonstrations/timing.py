"""Whether a file's observation t was taken before or after its action t.

LIBERO's original files step the simulator first: `obs[t]` is what `actions[t]` led to, while `states[t]` is what it started
from. OpenVLA's regenerated files and robomimic's have both before the action. Nothing in a file says which; its numbers do: the
arm's joints are in the observation and in the state (time, then qpos, the arm's seven joints first).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

ObservationTiming = Literal["before", "after"]
CLEARER = 3.0
"""How many times better one reading must fit than the other. The environment samples an observation at most one substep (2 ms of
50) beside the state, so the right reading fits more than ten times better once the arm moves."""


def observation_timing(
    joint_positions: list[NDArray[np.float64]], states: list[NDArray[np.float64]]
) -> ObservationTiming | None:
    """When the observations of some demonstrations were taken; None where the numbers do not say.

    Args:
        joint_positions: per demonstration (T, 7) [rad], from the observations.
        states: per demonstration (T, 1 + nq + nv), before each action.
    """
    joints = states and np.concatenate([s[1:, 1:8] for s in states])
    if not len(joints):
        return None
    before = np.abs(np.concatenate([q[1:] for q in joint_positions]) - joints).mean()
    after = np.abs(np.concatenate([q[:-1] for q in joint_positions]) - joints).mean()
    if before * CLEARER < after:
        return "before"
    if after * CLEARER < before:
        return "after"
    return None
