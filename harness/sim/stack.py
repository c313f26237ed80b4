"""Imports robosuite and LIBERO quietly, with the settings the numbers of this project depend on.

Import this module first wherever the simulation stack is used.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from harness.sim.gl import without_cuda_visible_devices

_FIXED = {"SIMULATION_TIMESTEP": 0.002, "IMAGE_CONVENTION": "opengl", "ENABLE_NUMBA": True}
"""Settings that change results; compiled functions may round differently from numpy's."""
_QUIET = {"CONSOLE_LOGGING_LEVEL": "ERROR", "FILE_LOGGING_LEVEL": None, "MUJOCO_GPU_RENDERING": False}
"""robosuite would print three warnings, write to /tmp/robosuite.log, which fails where another user owns that
file, and override the choice of GL backend."""


def _load_robosuite_settings() -> ModuleType:
    """`robosuite.macros`, loaded before the rest of robosuite reads it.

    Raises:
        ImportError: robosuite is missing, or its settings were edited to ones that change results.
    """
    package = importlib.util.find_spec("robosuite")
    if package is None or not package.submodule_search_locations:
        raise ImportError("robosuite is not installed: `pip install robosuite==1.4.0`")
    location = f"{package.submodule_search_locations[0]}/macros.py"
    spec = importlib.util.spec_from_file_location("robosuite.macros", location)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in _FIXED.items():
        if getattr(module, name) != value:
            raise ImportError(
                f"{location}: expected {name} = {value!r}, found {getattr(module, name)!r}; reinstall robosuite==1.4.0"
            )
    module.__dict__.update(_QUIET)
    return module


robosuite_macros = sys.modules.setdefault("robosuite.macros", _load_robosuite_settings())

with without_cuda_visible_devices():
    import robosuite

robosuite.macros = robosuite_macros

import libero.libero.envs.problems  # noqa: E402,F401  (registers the problem classes)
import mujoco  # noqa: E402
from libero.libero.envs import bddl_base_domain  # noqa: E402
from robosuite.models.base import MujocoModel  # noqa: E402
from robosuite.utils import binding_utils, control_utils, transform_utils  # noqa: E402
from robosuite.utils.errors import RandomizationError  # noqa: E402

SUBSTEPS = int((1.0 / 20) / robosuite_macros.SIMULATION_TIMESTEP)
"""Physics steps per control step, computed as robosuite does."""

__all__ = [
    "SUBSTEPS",
    "MujocoModel",
    "RandomizationError",
    "bddl_base_domain",
    "binding_utils",
    "control_utils",
    "mujoco",
    "robosuite",
    "robosuite_macros",
    "transform_utils",
]
