"""The environment in which a child Python finds this project's packages."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds `harness` and its sisters: site-packages, or a checkout."""


def package_environment() -> dict[str, str]:
    """This process's environment with the packages' folder last on PYTHONPATH."""
    environment = dict(os.environ)
    known = environment.get("PYTHONPATH", "")
    environment["PYTHONPATH"] = f"{known}{os.pathsep}{PACKAGE_ROOT}" if known else str(PACKAGE_ROOT)
    return environment
