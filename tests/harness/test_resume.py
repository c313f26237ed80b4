"""Long runs: resumed, cut in shards, killed, out of disk. Real processes, real simulator."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from harness.cli import EXIT_INCOMPLETE, EXIT_OK, EXIT_USAGE
from results.records import to_json
from results.run_directory import RunDirectory
from results.trace import trace_path
from scripts.kill_and_resume import Arguments, differences, disturb, shared_memory, start
from tasks.interface import Outcome
from tests.harness.test_cli import ROOT, call

SPATIAL = {"suite": ("libero_spatial",), "tasks": ("0",)}


def states(run_dir: Path) -> dict[str, str]:
    return {r.spec.episode_id: r.final_state_sha256 for r in RunDirectory(run_dir).records()}


def without_time(run_dir: Path) -> str:
    content = json.loads((run_dir / "summary.json").read_text())
    del content["time"]
    return json.dumps(content, indent=2)


@pytest.mark.sim
def test_the_same_command_resumes(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    status, output, _ = call(tmp_path, **SPATIAL, episodes=3, policy="zero", output_dir=whole)
    assert status == EXIT_OK
    assert "Resuming" not in output

    run = tmp_path / "run"  # as if killed after one episode, in the middle of a line
    run.mkdir()
    (run / "manifest.json").write_bytes((whole / "manifest.json").read_bytes())
    first, second, _ = (whole / "episodes.jsonl").read_text().splitlines()
    (run / "episodes.jsonl").write_text(f"{first}\n{second[:200]}")
    finished = RunDirectory(run).records()[0]
    (run / finished.trace).parent.mkdir(parents=True)
    (run / finished.trace).write_bytes((whole / finished.trace).read_bytes())

    status, output, _ = call(tmp_path, **SPATIAL, episodes=3, policy="zero")
    assert status == EXIT_OK
    assert "Resuming: 1 are finished, 2 are left to run." in output
    assert states(run) == states(whole)
    assert (run / "episodes.jsonl").read_text().splitlines()[0] == first, "what was finished is not touched"
    assert without_time(run) == without_time(whole)

    before = (run / "episodes.jsonl").read_bytes()
    status, output, _ = call(tmp_path, **SPATIAL, episodes=3, policy="zero")
    assert status == EXIT_OK
    assert "Resuming: 3 are finished, 0 are left to run." in output
    assert "0/3" in output
    assert (run / "episodes.jsonl").read_bytes() == before

    status, _, errors = call(tmp_path, **SPATIAL, episodes=3, policy="zero", execute_steps=4)
    assert status == EXIT_USAGE
    assert "ensembling: open loop, whole chunk there, open loop, 4 steps here" in errors
    assert (run / "episodes.jsonl").read_bytes() == before


@pytest.mark.sim
def test_errors_are_tried_again_unless_told_otherwise(tmp_path: Path) -> None:
    call(tmp_path, **SPATIAL, episodes=2, policy="zero")
    run = RunDirectory(tmp_path / "run")
    good = states(run.path)
    broken = run.records()[0]
    content = json.loads(to_json(broken)) | {"outcome": "error", "error": "the machine was tired", "trace": ""}
    with (run.path / "episodes.jsonl").open("a") as stream:
        stream.write(json.dumps(content) + "\n")
    assert Counter(r.outcome for r in run.records()) == {Outcome.ERROR: 1, Outcome.TIMEOUT: 1}

    status, output, _ = call(tmp_path, **SPATIAL, episodes=2, policy="zero", retry_errors=False)
    assert status == EXIT_INCOMPLETE
    assert "1 of 2 episodes have no result" in output
    status, output, _ = call(tmp_path, **SPATIAL, episodes=2, policy="zero")
    assert status == EXIT_OK
    assert "Resuming: 1 are finished, 1 are left to run." in output
    assert states(run.path) == good


@pytest.mark.sim
def test_two_shards_merged_equal_one_run(tmp_path: Path) -> None:
    flags = {"suite": ("libero_spatial",), "tasks": ("0", "2", "8"), "episodes": 2}
    assert call(tmp_path, **flags, output_dir=tmp_path / "whole", workers="2")[0] == EXIT_OK
    for shard in ("1/2", "2/2"):
        status, output, _ = call(tmp_path, **flags, shard=shard, output_dir=tmp_path / shard.replace("/", "of"))
        assert status == EXIT_OK
        assert f"(shard {shard})" in output
        assert "3/3" in output
    status, output, errors = call(
        tmp_path, merge=(tmp_path / "2of2", tmp_path / "1of2"), output_dir=tmp_path / "merged"
    )
    assert (status, errors) == (EXIT_OK, "")
    assert "6/6" in output
    assert without_time(tmp_path / "merged") == without_time(tmp_path / "whole")
    assert (tmp_path / "merged" / "summary.csv").read_bytes() == (tmp_path / "whole" / "summary.csv").read_bytes()
    assert states(tmp_path / "merged") == states(tmp_path / "whole")
    status, output, _ = call(tmp_path, policy=f"replay:{tmp_path / 'merged'}", output_dir=tmp_path / "replay")
    assert status == EXIT_OK
    assert "Replay: 6 of 6 final states equal" in output

    status, _, errors = call(tmp_path, merge=(tmp_path / "2of2",), output_dir=tmp_path / "half")
    assert status == EXIT_USAGE
    assert "shard 1/2 is missing" in errors


@pytest.mark.sim
def test_killed_workers_and_a_killed_parent_change_nothing(tmp_path: Path) -> None:
    """`scripts/kill_and_resume.py` does the same with forty episodes, ten workers and three parents."""
    arguments = Arguments(tasks=("0", "4"), episodes=5, worker_kills=2, parent_kills=1, pause_s=(1.0, 2.5))
    before = shared_memory()
    assert start(arguments, tmp_path / "undisturbed").wait() == 0
    done = disturb(arguments, tmp_path / "disturbed")
    assert done.kills == Counter(worker=2, parent=1)
    assert done.sessions == 2
    assert differences(tmp_path / "undisturbed", tmp_path / "disturbed", done) == []
    assert shared_memory() - before == set()
    events = Counter(event.event for event in RunDirectory(tmp_path / "disturbed").log.events())
    assert events["session_killed"] == 1
    assert events["worker_replaced"] == 2
    said = (tmp_path / "disturbed.log").read_text()
    assert "killed from outside once" in said
    assert "a worker died or stalled and was replaced 2 times" in said.replace("\n", " ")


@pytest.mark.sim
def test_a_second_process_on_the_same_directory_is_refused_with_the_firsts_pid(tmp_path: Path) -> None:
    arguments = Arguments(tasks=("0",), episodes=50, workers=1)
    first = start(arguments, tmp_path / "run")
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (tmp_path / "run" / "episodes.jsonl").exists():
            time.sleep(0.2)
        status, _, errors = call(tmp_path, **SPATIAL, episodes=50)
        assert status == EXIT_USAGE
        assert f"is in use by process {first.pid} on " in errors
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    assert len(RunDirectory(tmp_path / "run").records()) >= 1


@pytest.mark.sim
def test_a_disk_that_fills_up_while_a_trace_is_written(tmp_path: Path) -> None:
    """No file may grow beyond 60 kB, as the kernel sees to; a trace is larger. Then there is room again."""

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))

    command = [sys.executable, "-m", "harness", "--suite", "libero_spatial", "--tasks", "0", "--episodes", "2"]
    command += ["--workers", "1", "--policy", "zero", "--output-dir", "run", "--videos", "none"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=tmp_path, preexec_fn=no_room, env=environment
    )
    assert done.returncode == EXIT_INCOMPLETE
    assert "cannot write the trace" in done.stderr
    assert "File too large. Free some space there and repeat the command." in done.stderr
    assert "Traceback" not in done.stderr
    assert "2 of 2 episodes have no result" in done.stdout
    assert not list((tmp_path / "run").rglob("*.npz*"))
    assert RunDirectory(tmp_path / "run").records() == []

    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == EXIT_OK
    assert len(states(tmp_path / "run")) == 2
    assert (tmp_path / "run" / trace_path("libero_spatial/00/01/r0")).is_file()


def test_a_damaged_line_stops_before_anything_runs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "episodes.jsonl").write_text("nonsense\n")
    status, _, errors = call(tmp_path, **SPATIAL, episodes=1)
    assert status == EXIT_USAGE
    assert "episodes.jsonl line 1 is damaged" in errors
    assert (run / "episodes.jsonl").read_text() == "nonsense\n"
