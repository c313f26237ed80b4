"""The scripts run as the README says: from any folder, with nothing but the installed package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
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


def test_demonstrations_are_judged_by_what_the_hand_does() -> None:
    sys.path.insert(0, str(SCRIPTS))
    try:
        from check_demonstrations import SOON_STEPS, hand_of
    finally:
        sys.path.remove(str(SCRIPTS))
    labels = np.zeros((200, 7))
    labels[:, 6] = -1
    positions = np.zeros((200, 3))
    positions[:, 0] = np.linspace(0.2, 0.0, 200)  # 1 mm a step
    assert (hand_of(labels, positions).grasps, hand_of(labels, positions).missed) == (0, 0)
    labels[50:60, 6] = 1  # missed
    labels[100:170, 6] = 1
    hand = hand_of(labels, positions)
    assert (hand.grasps, hand.missed) == (2, 1)
    assert hand.hovered == 9  # within 10 mm
    labels[50 : 50 + SOON_STEPS, 6] = 1
    labels[50 + SOON_STEPS : 99, 6] = -1
    assert hand_of(labels, positions).missed == 0  # held for long, then dropped
    positions[:50] = positions[50]
    assert hand_of(labels, positions).hovered == 50
