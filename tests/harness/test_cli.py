"""`vla-eval` as a user meets it: what it prints, writes and returns, above all when something is wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from harness.arguments import EvalArguments
from harness.cli import EXIT_INCOMPLETE, EXIT_OK, EXIT_USAGE, run
from harness.terminal import Terminal
from results.run_directory import RunDirectory
from results.trace import read_trace, write_trace
from tasks.interface import OpenLoopSpec, TemporalEnsembleSpec

ROOT = Path(__file__).parents[2]


def call(tmp_path: Path, **arguments: object) -> tuple[int, str, str]:
    """(exit status, output, errors) of a run in this process; its workers are real."""
    if "checkpoint" not in arguments:
        arguments.setdefault("policy", "expert")
    arguments.setdefault("output_dir", tmp_path / "run")
    arguments.setdefault("workers", "1")
    arguments.setdefault("videos", "none")
    with (tmp_path / "out").open("w+") as out, (tmp_path / "err").open("w+") as err:
        status = run(
            EvalArguments(**arguments),  # type: ignore[arg-type]
            Terminal(
                out=Console(file=out, width=200, force_terminal=False),
                errors=Console(file=err, width=200, force_terminal=False),
            ),
        )
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read()


def command(*flags: str, cwd: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The console command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "harness", *flags],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | (environment or {}),
    )


# --- wrong input: a message, exit status 2, and nothing written -----------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"suite": ("libero_spatal",)}, "unknown suite 'libero_spatal'. Did you mean 'libero_spatial'?"),
        (
            {"suite": ("libero_spatial",), "tasks": ("11",)},
            "unknown task '11' of libero_spatial. Give an index or a name:",
        ),
        ({}, "name at least one suite, such as --suite libero_spatial"),
        ({"suite": ("libero_spatial",), "episodes": 51}, "has 50 official init states, 51 episodes were asked for"),
        (
            {"suite": ("libero_spatial",), "only": ("libero_spatial/00/77/r0",)},
            "episode 'libero_spatial/00/77/r0' is not in the plan",
        ),
        ({"suite": ("libero_spatial",), "protocol": "mine"}, "unknown protocol 'mine'; valid protocols: openvla"),
        (
            {"suite": ("libero_spatial",), "policy": "pi0"},
            "unknown policy 'pi0'; expected one of vla-vggt, expert, zero, random",
        ),
        (
            {"suite": ("libero_spatial",), "policy": "replay:/nothing"},
            "expected a run directory or a .hdf5 file, there is nothing",
        ),
        (
            {"suite": ("libero_spatial",), "policy": "expert", "checkpoint": Path(__file__)},
            "the scripted expert loads none",
        ),
        ({"suite": ("libero_spatial",), "checkpoint": Path(__file__)}, "not a readable checkpoint"),
        ({"checkpoint": Path("/nothing")}, "expected a VLA-VGGT checkpoint at /nothing"),
        ({"suite": ("libero_90",), "tasks": ("18",)}, "the scripted expert cannot do libero_90/18"),
        ({"suite": ("libero_spatial",), "workers": "many"}, "--workers: expected auto, half or a number from 0 up"),
        (
            {"suite": ("libero_spatial",), "policy": "zero", "ensemble": "temporal", "execute_steps": 3},
            "--execute-steps is for open loop",
        ),
        (
            {"suite": ("libero_spatial",), "policy": "zero", "query_every": 3},
            "--query-every are for --ensemble temporal",
        ),
        ({"suite": ("libero_spatial",), "policy_batch": 2}, "--policy-batch does not apply to expert"),
        (
            {"suite": ("libero_spatial",), "policy": "zero", "policy_batch": 0},
            "--policy-batch: expected at least 1, got 0",
        ),
        ({"suite": ("libero_spatial",), "execute_steps": 3}, "do not apply: the expert decides on every action anew"),
        (
            {"policy": "replay:/nothing", "ensemble": "temporal"},
            "do not apply: a replay executes every recorded action",
        ),
        (
            {
                "suite": ("libero_spatial",),
                "policy": "harness.policies.simple:ZeroPolicy",
                "checkpoint": Path("/nothing"),
            },
            "no checkpoint at /nothing",
        ),
        ({"list": True, "suite": ("nonsense",)}, "unknown suite 'nonsense'"),
    ],
)
def test_wrong_input_is_explained_before_anything_runs(
    tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    status, _, errors = call(tmp_path, **arguments)
    assert status == EXIT_USAGE
    assert message in errors
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_an_unwritable_output_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, _, errors = call(tmp_path, suite=("libero_spatial",), output_dir=tmp_path / "file" / "run")
    assert status == EXIT_USAGE
    assert "cannot write to the output directory" in errors
    assert "Not a directory" in errors
    assert "Choose another with --output-dir" in errors


def test_a_missing_gl_library_for_a_policy_that_sees(tmp_path: Path) -> None:
    (tmp_path / "OpenGL").mkdir()
    (tmp_path / "OpenGL" / "__init__.py").write_text(
        "raise ImportError('libOSMesa.so.8: cannot open shared object file')"
    )
    done = command(
        "--suite",
        "libero_spatial",
        "--policy",
        "tests.harness.torch_policy:make_torch_policy",
        "--output-dir",
        "run",
        cwd=tmp_path,
        environment={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert done.returncode == EXIT_USAGE
    assert "no OpenGL context with MUJOCO_GL=osmesa: ImportError: libOSMesa.so.8" in done.stderr
    assert "apt-get install libosmesa6 libegl1 libgl1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_libgl_that_opencv_wants(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file: No such file')")
    done = command(
        "--suite",
        "libero_spatial",
        "--tasks",
        "0",
        "--episodes",
        "1",
        "--output-dir",
        "run",
        cwd=tmp_path,
        environment={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert done.returncode == EXIT_USAGE
    assert "the simulation stack cannot be imported: ImportError: libGL.so.1" in done.stderr
    assert "apt-get install libosmesa6 libegl1 libgl1" in done.stderr
    assert "opencv-python-headless" in done.stderr


# --- policies that fail ---------------------------------------------------------------------------------

POLICIES = """
import numpy as np
from harness.policies.simple import BlindPolicy
from tasks.interface import ActionChunk

class Base(BlindPolicy):
    def act(self, observations):
        return [ActionChunk(actions=self.actions(o)) for o in observations]

class Raises(Base):
    def actions(self, o):
        raise RuntimeError("CUDA error: out of memory")

class NanLater(Base):
    def actions(self, o):
        return np.full((8, 7), np.nan if o.step >= 16 else 0.0)

class TooWide(Base):
    def actions(self, o):
        return np.zeros((8, 8))
"""


@pytest.mark.sim
@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("Raises", "the policy failed on libero_spatial/00/00/r0 step 0: RuntimeError: CUDA error: out of memory"),
        ("NanLater", "step 16: ActionError: expected finite actions, got nan at chunk step 0, dimension 0"),
        ("TooWide", "step 0: ActionError: expected actions of shape (T, 7) with T >= 1, got (8, 8)"),
    ],
)
def test_a_failing_policy_ends_the_run_after_saving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, message: str
) -> None:
    (tmp_path / "failing_policies.py").write_text(POLICIES)
    monkeypatch.chdir(tmp_path)
    status, output, errors = call(
        tmp_path, suite=("libero_spatial",), tasks=("0",), episodes=2, policy=f"failing_policies:{policy}"
    )
    assert status == EXIT_INCOMPLETE
    assert message in errors
    assert "Traceback" in errors
    assert "failing_policies.py" in errors
    assert "what was finished is saved" in errors
    assert "2 of 2 episodes have no result" in output
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["tasks"][0]["missing"] == 2


# --- runs that work -------------------------------------------------------------------------------------


@pytest.mark.sim
def test_a_run_and_its_replay(tmp_path: Path) -> None:
    status, output, errors = call(tmp_path, suite=("libero_spatial",), tasks=("8", "0"), episodes=1, workers="2")
    assert (status, errors) == (EXIT_OK, "")
    assert "libero_spatial" in output
    assert "2/2" in output
    first = RunDirectory(tmp_path / "run")
    assert first.manifest().planned_episodes == {"libero_spatial/00": 1, "libero_spatial/08": 1}
    summary = json.loads((first.path / "summary.json").read_text())
    assert summary["suites"][0]["rate"] == 1.0
    assert (first.path / "summary.csv").read_text().count("\n") == 3
    for record in first.records():
        assert (first.path / record.trace).is_file()

    status, output, _ = call(tmp_path, policy=f"replay:{first.path}", output_dir=tmp_path / "again")
    assert status == EXIT_OK
    assert "Replay: 2 of 2 final states equal the recorded ones bit for bit." in output
    again = {r.spec.episode_id: r for r in RunDirectory(tmp_path / "again").records()}
    for record in first.records():
        assert again[record.spec.episode_id].final_state_sha256 == record.final_state_sha256
        assert again[record.spec.episode_id].steps == record.steps

    status, output, _ = call(
        tmp_path,
        policy=f"replay:{first.path}",
        only=("libero_spatial/08/00/r0",),
        workers="0",
        output_dir=tmp_path / "one",
    )
    assert status == EXIT_OK
    assert "Replay: 1 of 1 final states" in output

    # A recording that cannot be reproduced is reported, not broken off.
    for record in first.records():
        trace = read_trace(first.path / record.trace)
        write_trace(first.path / record.trace, dataclasses.replace(trace, actions=trace.actions[:40]))
    status, output, _ = call(tmp_path, policy=f"replay:{first.path}", output_dir=tmp_path / "tampered")
    assert status == EXIT_INCOMPLETE
    assert "Replay: 0 of 2 final states" in output
    assert "differs: libero_spatial/08/00/r0" in output


@pytest.mark.sim
@pytest.mark.parametrize("policy", ["zero", "random"])
def test_policies_without_eyes_fail(tmp_path: Path, policy: str) -> None:
    status, output, _ = call(tmp_path, suite=("libero_spatial",), tasks=("2",), episodes=2, policy=policy)
    assert status == EXIT_OK
    assert "0/2" in output
    assert all(record.steps == 220 for record in RunDirectory(tmp_path / "run").records())


@pytest.mark.sim
def test_in_this_process_an_exception_reaches_the_debugger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_policies.py").write_text(POLICIES)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match="CUDA error"):
        call(
            tmp_path, suite=("libero_spatial",), tasks=("0",), episodes=1, policy="failing_policies:Raises", workers="0"
        )


@pytest.mark.sim
def test_ctrl_c_prints_the_table_so_far_and_leaves_no_process(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            *("env", "--default-signal=INT"),  # tests run with a shell's `&` inherit that it is ignored
            sys.executable,
            "-m",
            "harness",
            "--suite",
            "libero_spatial",
            "--tasks",
            "0",
            "--episodes",
            "50",
            "--workers",
            "1",
            "--output-dir",
            "run",
            "--videos",
            "none",
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    episodes = tmp_path / "run" / "episodes.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (episodes.is_file() and episodes.read_text().count("\n") >= 2):
        time.sleep(0.2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; what was finished is saved" in errors
    assert "Traceback" not in errors
    assert "have no result" in output
    assert len(RunDirectory(tmp_path / "run").records()) >= 2
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_lists(tmp_path: Path) -> None:
    status, output, _ = call(tmp_path, list=True)
    assert status == EXIT_OK
    assert "libero_object_swap" in output
    status, output, _ = call(tmp_path, list=True, suite=("libero_goal",))
    assert "turn_on_the_stove" in output


def test_help_shows_every_flag_of_the_command(tmp_path: Path) -> None:
    text = command("--help", cwd=tmp_path).stdout
    for flag in (
        "suite",
        "tasks",
        "episodes",
        "only",
        "policy",
        "checkpoint",
        "device",
        "language-model",
        "execute-steps",
        "ensemble",
        "protocol",
        "seed",
        "workers",
        "max-errors",
        "output-dir",
        "mujoco-gl",
        "policy-batch",
        "repeats",
        "retry-errors",
        "shard",
        "merge",
        "videos",
        "video-size",
        "video-view",
        "render",
        "server-timeout-s",
        "list",
    ):
        assert f"--{flag}" in text


def test_ensemble_flags() -> None:
    recommended = TemporalEnsembleSpec(query_every=4)
    assert EvalArguments().ensemble_spec(recommended) == recommended
    assert EvalArguments(ensemble="open-loop").ensemble_spec(recommended) == OpenLoopSpec()
    assert EvalArguments(execute_steps=5).ensemble_spec(recommended) == OpenLoopSpec(execute_steps=5)
    assert EvalArguments(ensemble="temporal").ensemble_spec(OpenLoopSpec()) == TemporalEnsembleSpec()
    temporal = EvalArguments(ensemble="temporal", ensemble_decay=0.1, query_every=2)
    assert temporal.ensemble_spec(OpenLoopSpec()) == TemporalEnsembleSpec(decay=0.1, query_every=2)


@pytest.mark.sim
def test_a_full_disk_stops_the_run_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    appended: list[object] = []

    def append(self: RunDirectory, record: object) -> None:
        if appended:
            raise OSError(28, "No space left on device")
        appended.append(record)

    monkeypatch.setattr(RunDirectory, "append", append)
    status, output, errors = call(tmp_path, suite=("libero_spatial",), tasks=("0",), episodes=3, policy="zero")
    assert status == EXIT_INCOMPLETE
    assert "No space left on device" in errors
    assert "what was written before is safe" in errors
    assert "2 of 3 episodes have no result" in output
