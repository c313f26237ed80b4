"""What a child Python needs: an environment in which it finds this project's packages, and an end with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import site
import sys
from pathlib import Path

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds `harness` and its sisters: site-packages, or a checkout."""


def package_environment() -> dict[str, str]:
    """This process's environment; for a checkout with its folder last on PYTHONPATH.

    An installed package is found without; site-packages on PYTHONPATH would come before the standard library.
    """
    environment = dict(os.environ)
    # robosuite reads it as an index of EGL devices, which it is not; a worker computes nothing on a GPU.
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    if str(PACKAGE_ROOT) in (*site.getsitepackages(), site.getusersitepackages()):
        return environment
    known = environment.get("PYTHONPATH", "")
    environment["PYTHONPATH"] = f"{known}{os.pathsep}{PACKAGE_ROOT}" if known else str(PACKAGE_ROOT)
    return environment


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
