"""Imports robosuite and LIBERO quietly, with the settings the numbers of this project depend on.

Import this module first wherever the simulation stack is used.
"""

from __future__ import annotations

import sys
import types


def _robosuite_settings() -> types.ModuleType:
    """A stand-in for robosuite's optional `macros_private`.

    Without one robosuite prints three warnings and writes to /tmp/robosuite.log, which fails where another
    user owns that file; with a user's own, settings that change results (image convention, time step)
    would leak in.
    """
    module = types.ModuleType("robosuite.macros_private")
    module.__dict__.update(
        SIMULATION_TIMESTEP=0.002,
        IMAGE_CONVENTION="opengl",
        CONCATENATE_IMAGES=False,
        ENABLE_NUMBA=True,
        CACHE_NUMBA=True,
        CONSOLE_LOGGING_LEVEL="ERROR",
        FILE_LOGGING_LEVEL=None,
        MUJOCO_GPU_RENDERING=False,
    )
    return module


sys.modules.setdefault("robosuite.macros_private", _robosuite_settings())

import libero.libero.envs.bddl_base_domain as bddl_base_domain  # noqa: E402
import libero.libero.envs.problems  # noqa: E402,F401  (registers the problem classes)
import mujoco  # noqa: E402
import robosuite  # noqa: E402
import robosuite.macros as robosuite_macros  # noqa: E402
import robosuite.utils.transform_utils as transform_utils  # noqa: E402
from robosuite.utils.errors import RandomizationError  # noqa: E402

SUBSTEPS = int((1.0 / 20) / robosuite_macros.SIMULATION_TIMESTEP)
"""Physics steps per control step, computed as robosuite does."""

__all__ = ["SUBSTEPS", "RandomizationError", "bddl_base_domain", "mujoco", "robosuite", "robosuite_macros", "transform_utils"]
