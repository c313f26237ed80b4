from __future__ import annotations

import dataclasses
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from results.records import RecordError, to_json
from results.run_directory import RunDirectory, RunDirectoryError
from tasks.interface import Outcome
from tests.examples import episode, manifest, record

ROOT = Path(__file__).parents[2]


def begin(path: Path) -> RunDirectory:
    run = RunDirectory.reserve(path)
    run.begin(manifest())
    return run


@contextmanager
def files_no_larger_than(num_bytes: int) -> Iterator[None]:
    """The kernel refuses to let files of this process grow further, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_records_are_there_as_soon_as_they_are_appended(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    assert run.records() == []
    for i in range(3):
        run.append(record(episode(0, i)))
        assert len(RunDirectory(run.path).records()) == i + 1
    assert run.manifest() == manifest()


def test_the_same_run_goes_on(tmp_path: Path) -> None:
    first = begin(tmp_path)
    first.append(record(episode(0, 0)))
    first.release()
    second = begin(tmp_path)
    second.append(record(episode(0, 1)))
    assert [r.spec.episode_id for r in second.records()] == [episode(0, i).episode_id for i in (0, 1)]


def test_half_a_line_that_a_kill_left_is_no_record_and_goes_away(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.append(record(episode(0, 0)))
    line = to_json(record(episode(0, 1)))
    with (tmp_path / "episodes.jsonl").open("a") as stream:
        stream.write(line[:100])
    assert len(run.records()) == 1
    run.release()
    again = begin(tmp_path)
    again.append(record(episode(0, 1)))
    assert [r.spec.init for r in again.records()] == [episode(0, i).init for i in (0, 1)]
    assert (tmp_path / "episodes.jsonl").read_text().count("\n") == 2


def test_half_written_files_go_away(tmp_path: Path) -> None:
    begin(tmp_path).release()
    (tmp_path / "traces" / "libero_spatial").mkdir(parents=True)
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], check=True, capture_output=True)
    dead = tmp_path / "traces" / "libero_spatial" / f".00-r0.npz.{int(done.stdout)}.tmp"
    alive = tmp_path / "traces" / "libero_spatial" / f".01-r0.npz.{os.getpid()}.tmp"
    others = [tmp_path / ".settings.tmp", tmp_path / "mine" / f".x.{int(done.stdout)}.tmp"]
    others[1].parent.mkdir()
    for file in (dead, alive, *others):
        file.touch()
    begin(tmp_path)
    assert [file.exists() for file in (dead, alive, *others)] == [False, True, True, True]


def test_of_an_episode_run_again_the_last_result_counts(tmp_path: Path) -> None:
    run = begin(tmp_path)
    for outcome, error in ((Outcome.ERROR, "died"), (Outcome.SUCCESS, "")):
        run.append(record(episode(), outcome, error))
    assert [r.outcome for r in run.records()] == [Outcome.SUCCESS]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 7}, "seed: 0 there, 7 here"),
        ({"plan_sha256": "1" * 64}, "plan: 000000000000… there, 111111111111… here"),
        ({"renderer": "egl: NVIDIA H200"}, "renderer: nothing rendered there, egl: NVIDIA H200 here"),
        ({"versions": {"mujoco": "3.4.0"}}, "versions, mujoco: 3.2.3 there, 3.4.0 here"),
        ({"policy_code_sha256": "b" * 64}, "policy's source file: none there, bbbbbbbbbbbb… here"),
        ({"checkpoint_sha256": "a" * 64}, "checkpoint hash: none there, aaaaaaaaaaaa… here"),
        ({"ensemble": "open loop, 8 steps"}, "ensembling: open loop, whole chunk there, open loop, 8 steps here"),
        ({"batch_size": 4}, "batch size: 1 there, 4 here"),
        ({"dtype": "bfloat16"}, "dtype: not stated there, bfloat16 here"),
        ({"shard": "1/2"}, "shard: none there, 1/2 here"),
        ({"protocol": {"name": "openpi"}}, "protocol, name: openvla there, openpi here"),
        ({"instructions": {f"s/{i}": "x" for i in range(9)}}, "prompts: and 8 more"),
    ],
)
def test_another_run_in_the_folder_is_refused_with_the_difference_and_kept(
    tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    run = begin(tmp_path)
    run.append(record())
    run.release()
    with (tmp_path / "episodes.jsonl").open("a") as stream:
        stream.write("half a line")
    before = (tmp_path / "episodes.jsonl").read_bytes()
    other = RunDirectory.reserve(tmp_path)
    with pytest.raises(RunDirectoryError) as caught:
        other.begin(dataclasses.replace(manifest(), **changed))  # type: ignore[arg-type]
    assert f"{tmp_path} holds 1 episodes of another run; nothing was changed" in str(caught.value)
    assert message in str(caught.value)
    assert "choose another --output-dir" in str(caught.value)
    assert (len(other.records()), other.manifest()) == (1, manifest())
    assert (tmp_path / "episodes.jsonl").read_bytes() == before


@pytest.mark.parametrize("changed", [{"machine": "another"}, {"command_line": ["x"]}, {"git_revision": "abc"}])
def test_what_changes_no_result_may_differ(tmp_path: Path, changed: dict[str, object]) -> None:
    run = begin(tmp_path)
    run.append(record())
    run.release()
    RunDirectory.reserve(tmp_path).begin(dataclasses.replace(manifest(), **changed))  # type: ignore[arg-type]


def test_a_policy_server_may_move_but_not_change(tmp_path: Path) -> None:
    there = dataclasses.replace(manifest(), policy="ws://a:8000", policy_metadata={"model": "pi0"})
    run = RunDirectory.reserve(tmp_path)
    run.begin(there)
    run.append(record())
    run.begin(dataclasses.replace(there, policy="ws://b:9000"))
    with pytest.raises(RunDirectoryError, match="policy server's metadata, model: pi0 there, pi05 here"):
        run.begin(dataclasses.replace(there, policy_metadata={"model": "pi05"}))
    with pytest.raises(RunDirectoryError, match="policy: ws://a:8000 there, zero here"):
        run.begin(dataclasses.replace(there, policy="zero"))


def test_servers_that_say_nothing_of_themselves_may_not_even_move(tmp_path: Path) -> None:
    there = dataclasses.replace(manifest(), policy="ws://a:8000")
    run = RunDirectory.reserve(tmp_path)
    run.begin(there)
    run.append(record())
    with pytest.raises(RunDirectoryError, match="policy: ws://a:8000 there, ws://b:9000 here"):
        run.begin(dataclasses.replace(there, policy="ws://b:9000"))


def test_a_run_without_an_episode_makes_room_for_another(tmp_path: Path) -> None:
    begin(tmp_path).release()
    other = RunDirectory.reserve(tmp_path)
    other.begin(dataclasses.replace(manifest(), seed=9))
    assert other.manifest().seed == 9


def test_a_second_process_is_refused_with_the_firsts_pid(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from results.run_directory import RunDirectory\n"
        "run = RunDirectory.reserve(pathlib.Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(RunDirectoryError, match=rf"is in use by process {holder.pid} on .*Nothing was changed"):
        RunDirectory.reserve(tmp_path)
    holder.kill()
    holder.wait()
    begin(tmp_path)


def test_a_run_that_never_started_leaves_the_folder_free(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.log.write("session_started")
    run.abandon()
    run.release()
    again = begin(tmp_path)
    assert again.log.events() == []


def test_half_a_line_of_the_log_does_not_swallow_the_next(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.log.write("session_started")
    run.release()
    with (tmp_path / "log.jsonl").open("a") as stream:
        stream.write('{"utc": "20')
    assert [event.event for event in begin(tmp_path).log.events()] == ["session_started", "session_killed"]


def test_the_time_between_death_and_resumption_is_no_run_time(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.log.write("session_started", at_s=1000.0)
    run.append(record())
    with (tmp_path / "episodes.jsonl").open("a") as stream:
        stream.write("half a line")
    os.utime(tmp_path / "episodes.jsonl", (1060.0, 1060.0))
    run.release()
    assert begin(tmp_path).log.wall_s() == pytest.approx(60.0)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.append(record(episode(0, 0)))
    size = (tmp_path / "episodes.jsonl").stat().st_size
    with files_no_larger_than(size + 50), pytest.raises(OSError, match="No space left|File too large"):
        run.append(record(episode(0, 1)))
    assert (tmp_path / "episodes.jsonl").stat().st_size == size
    run.append(record(episode(0, 1)))
    assert len(run.records()) == 2


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.append(record(episode(0, 0)))
    with (tmp_path / "episodes.jsonl").open("ab") as stream:
        stream.write(b"\x00\xff garbage\n")
    run.append(record(episode(0, 1)))
    with pytest.raises(RecordError, match=r"episodes\.jsonl line 2 is damaged(.|\n)*Remove the line; its episode"):
        run.records()


def test_a_video_is_seen_as_soon_as_it_is_there(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.append(record())
    assert run.records()[0].video == ""
    video = tmp_path / "videos" / "libero_spatial" / "00" / "00-r0.mp4"
    video.parent.mkdir(parents=True)
    video.touch()
    assert run.records()[0].video == "videos/libero_spatial/00/00-r0.mp4"


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
