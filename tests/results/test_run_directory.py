from __future__ import annotations

import os
from pathlib import Path

import pytest

from results.run_directory import RunDirectory, RunDirectoryError
from tests.examples import episode, manifest, record


def begin(path: Path) -> RunDirectory:
    run = RunDirectory.reserve(path)
    run.begin(manifest())
    return run


def test_records_are_there_as_soon_as_they_are_appended(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    assert run.records() == []
    for i in range(3):
        run.append(record(episode(0, i)))
        assert len(RunDirectory(run.path).records()) == i + 1
    assert run.manifest() == manifest()


def test_a_half_written_line_is_not_yet_a_record(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.append(record())
    with (tmp_path / "episodes.jsonl").open("a") as stream:
        stream.write('{"spec": {"epis')
    assert len(run.records()) == 1


def test_another_run_in_the_folder_is_refused_and_kept(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.append(record())
    with pytest.raises(
        RunDirectoryError, match="already holds a run with 1 episodes. Nothing was changed; choose another --output-dir"
    ):
        RunDirectory.reserve(tmp_path)
    assert len(run.records()) == 1


def test_of_two_runs_that_begin_at_once_one_is_refused(tmp_path: Path) -> None:
    first, second = RunDirectory.reserve(tmp_path), RunDirectory.reserve(tmp_path)
    first.begin(manifest())
    with pytest.raises(RunDirectoryError, match="another run began in .* just now"):
        second.begin(manifest())


def test_a_run_that_never_started_leaves_the_folder_free(tmp_path: Path) -> None:
    begin(tmp_path).abandon()
    begin(tmp_path)


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match=r"cannot write to the output directory .*file/run: Not a directory"):
        RunDirectory.reserve(tmp_path / "file" / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunDirectoryError, match="Permission denied"):
        RunDirectory.reserve(tmp_path / "run")


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"manifest\.json: not a run manifest"):
        RunDirectory(tmp_path).manifest()
