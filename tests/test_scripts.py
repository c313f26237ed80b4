"""The scripts run as the README says: from any folder, with nothing but the installed package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
USERS_OF_TESTS = sorted(path.name for path in SCRIPTS.glob("*.py") if "from tests." in path.read_text())


@pytest.mark.parametrize("name", [name for name in USERS_OF_TESTS if name != "stock_rollouts.py"])
def test_a_script_finds_the_stock_environment_in_tests(name: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    program = (
        "import importlib.util, runpy, sys;"
        f"sys.path[0] = {str(SCRIPTS)!r};"  # as `python scripts/NAME.py` has it
        f"runpy.run_path({str(SCRIPTS / name)!r}, run_name='imported');"
        "assert importlib.util.find_spec('tests.harness.stock') is not None"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_there_are_such_scripts() -> None:
    assert "bench_rollout.py" in USERS_OF_TESTS
