from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.sim import subprocess_environment
from harness.sim.subprocess_environment import PACKAGE_ROOT, package_environment


def test_a_child_elsewhere_finds_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    code = "import harness, tasks, results; print(harness.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=package_environment(),
    )
    assert Path(done.stdout.strip()).parents[1] == PACKAGE_ROOT


def test_the_users_own_path_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    assert package_environment()["PYTHONPATH"].split(":") == ["/mine", str(PACKAGE_ROOT)]


def test_an_installed_package_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.setattr(subprocess_environment.site, "getsitepackages", lambda: [str(PACKAGE_ROOT)])
    assert package_environment()["PYTHONPATH"] == "/mine"
