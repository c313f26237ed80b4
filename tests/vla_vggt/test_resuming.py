"""The run's folder is looked at before the first step, not after the last."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from vla_vggt.cli import EXIT_USAGE, run
from vla_vggt.configs.train_config import TrainArguments
from vla_vggt.training.resuming import require_folder


def test_a_folder_that_is_there_or_can_be_made_will_do(tmp_path: Path) -> None:
    require_folder(tmp_path, "checkpoints")
    require_folder(tmp_path / "new" / "one", "checkpoints")
    (tmp_path / "checkpoints").mkdir()
    require_folder(tmp_path, "checkpoints")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("file", ["run/checkpoints", "run", "."])
def test_a_file_in_the_way_is_named(tmp_path: Path, file: str) -> None:
    above = tmp_path / "above"
    path = above / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("not a folder")
    with pytest.raises(NotADirectoryError, match=rf"expected a folder at {path}, found something else\. Move it away"):
        require_folder(above / "run", "checkpoints")


def test_a_link_to_nothing_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").symlink_to(tmp_path / "gone")
    with pytest.raises(NotADirectoryError, match="checkpoints"):
        require_folder(tmp_path, "checkpoints")


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != closed)  # the superuser may write everywhere
    with pytest.raises(PermissionError, match=f"no permission to write into {closed}"):
        require_folder(closed / "run", "checkpoints")
    require_folder(tmp_path / "run", "checkpoints")


def test_the_command_says_so_before_it_reads_anything(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("x")
    said = Console(file=io.StringIO())
    arguments = TrainArguments(data_path=(tmp_path / "none.hdf5",), log_dir=tmp_path, device="cpu")
    assert run(arguments, out=Console(quiet=True), errors=said) == EXIT_USAGE
    assert f"expected a folder at {tmp_path / 'checkpoints'}" in said.file.getvalue()  # type: ignore[attr-defined]
