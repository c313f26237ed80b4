from __future__ import annotations

from pathlib import Path

import pytest

from results.manifest import installed_versions, path_sha256
from tests.examples import manifest


def test_another_mujoco_is_said_loudly() -> None:
    assert manifest(mujoco="3.2.3").warnings == ()
    (warning,) = manifest(mujoco="3.4.0").warnings
    assert "mujoco 3.4.0 is installed" in warning
    assert "3.2.3" in warning


def test_versions_are_the_installed_ones() -> None:
    import numpy as np

    assert installed_versions()["numpy"] == np.__version__


def test_a_checkpoints_hash_sees_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = path_sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = path_sha256(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, path_sha256(tmp_path), path_sha256(tmp_path / "b")}) == 4


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*nothing"):
        path_sha256(tmp_path / "nothing")
