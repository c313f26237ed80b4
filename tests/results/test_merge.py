from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from results.merge import MergeError, merge_shards
from results.run_directory import RunDirectory, RunDirectoryError
from results.summary import write_summary
from results.trace import read_trace, trace_path, write_trace
from tasks.interface import EpisodeRecord, Outcome
from tests.examples import episode, manifest, record, trace

PLANNED = {"libero_spatial/00": 3, "libero_spatial/01": 3}


def records() -> list[EpisodeRecord]:
    outcomes = [Outcome.SUCCESS, Outcome.TIMEOUT, Outcome.SUCCESS]
    return [record(episode(t, i), outcomes[i], steps=90 + 7 * t + 13 * i) for t in (0, 1) for i in range(3)]


def write_run(path: Path, shard: str, planned: dict[str, int], episodes: list[EpisodeRecord]) -> Path:
    run = RunDirectory.reserve(path)
    run.begin(manifest(planned, shard=shard))
    run.log.write("session_started", at_s=0.0)
    for entry in episodes:
        write_trace(path / trace_path(entry.spec.episode_id), trace(entry.spec.episode_id))
        run.append(entry)
    run.log.write("session_ended", at_s=5.0)
    write_summary(path, run.manifest(), run.records(), run.log.wall_s())
    run.release()
    return path


def shards(tmp_path: Path) -> list[Path]:
    return [
        write_run(tmp_path / "b", "2/2", {"libero_spatial/01": 3}, records()[3:]),
        write_run(tmp_path / "a", "1/2", {"libero_spatial/00": 3}, records()[2::-1]),
    ]


def without_time(file: Path) -> str:
    content = json.loads(file.read_text())
    del content["time"]
    return json.dumps(content, indent=2)


def test_merged_shards_equal_one_run(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "whole", "", PLANNED, records())
    merge_shards(shards(tmp_path), tmp_path / "merged")
    assert without_time(tmp_path / "merged" / "summary.json") == without_time(whole / "summary.json")
    assert (tmp_path / "merged" / "summary.csv").read_bytes() == (whole / "summary.csv").read_bytes()
    merged = RunDirectory(tmp_path / "merged")
    assert {r.spec.episode_id for r in merged.records()} == {r.spec.episode_id for r in records()}
    assert dataclasses.replace(merged.manifest(), started_utc="") == dataclasses.replace(
        RunDirectory(whole).manifest(), started_utc=""
    )
    for entry in merged.records():
        assert read_trace(merged.path / entry.trace).episode_id == entry.spec.episode_id
    assert json.loads((tmp_path / "merged" / "summary.json").read_text())["time"]["wall_s"] == 10.0


def test_a_merged_run_can_be_resumed_as_a_whole_one(tmp_path: Path) -> None:
    merge_shards(shards(tmp_path), tmp_path / "merged")
    RunDirectory.reserve(tmp_path / "merged").begin(manifest(PLANNED))


def test_the_shards_stay_as_they_are(tmp_path: Path) -> None:
    folders = shards(tmp_path)
    before = [sorted((f, f.stat().st_size) for f in folder.rglob("*") if f.name != "run.lock") for folder in folders]
    merge_shards(folders, tmp_path / "merged")
    after = [sorted((f, f.stat().st_size) for f in folder.rglob("*") if f.name != "run.lock") for folder in folders]
    assert before == after


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    second, first = shards(tmp_path)
    target = tmp_path / "merged"
    for folders, message in (
        ([first], "shard 2/2 is missing: name all 2 folders"),
        ([tmp_path / "nothing"], "holds no run"),
        ([write_run(tmp_path / "whole", "", PLANNED, records())], "is a whole run, not made with --shard"),
        (
            [first, write_run(tmp_path / "third", "2/3", {"libero_spatial/01": 3}, [])],
            "number of shards: 1/2 there, 2/3 here",
        ),
    ):
        with pytest.raises(MergeError, match=message):
            merge_shards(folders, target)
        assert not target.exists()
    twin = write_run(tmp_path / "twin", "1/2", {"libero_spatial/00": 3}, records()[:3])
    with pytest.raises(MergeError, match=r"are both shard 1/2"):
        merge_shards([first, twin, second], target)
    other = tmp_path / "other"
    run = RunDirectory.reserve(other)
    run.begin(dataclasses.replace(manifest(PLANNED, shard="1/2"), seed=3))
    with pytest.raises(RunDirectoryError, match="is in use by process"):
        merge_shards([other, second], target)
    run.release()
    with pytest.raises(MergeError, match=r"are not shards of one run(.|\n)*seed: 3 there, 0 here"):
        merge_shards([other, second], target)


def test_a_shard_named_twice_is_one(tmp_path: Path) -> None:
    second, first = shards(tmp_path)
    merge_shards([first, second, first], tmp_path / "merged")
    assert len(RunDirectory(tmp_path / "merged").records()) == 6


def test_a_lost_trace_is_named_and_half_a_merge_is_no_run(tmp_path: Path) -> None:
    second, first = shards(tmp_path)
    (second / records()[4].trace).unlink()
    with pytest.raises(MergeError, match="has no trace of libero_spatial/01/01/r0"):
        merge_shards([first, second], tmp_path / "merged")
    assert not (tmp_path / "merged" / "manifest.json").exists()


def test_a_folder_with_something_in_it_is_not_merged_into(tmp_path: Path) -> None:
    folders = shards(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(MergeError, match="is not empty; name a new folder with --output-dir"):
        merge_shards(folders, tmp_path / "full")
