"""Whole evaluations of a policy behind a websocket."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from harness.cli import EXIT_INCOMPLETE, EXIT_OK, EXIT_USAGE
from results.run_directory import RunDirectory
from tests.harness.openpi_environment import openpi_server, vla_serve
from tests.harness.test_cli import call
from tests.harness.test_vla_serve import TORCH


@pytest.mark.sim
def test_an_evaluation_over_the_wire_equals_one_at_home(tmp_path: Path) -> None:
    """The same final states bit for bit: several connections, full-size images, noise by episode and step."""
    flags = {"suite": ("libero_spatial",), "tasks": ("0", "8"), "episodes": 1, "workers": "2"}
    assert call(tmp_path, **flags, policy=TORCH[1], output_dir=tmp_path / "home")[0] == EXIT_OK
    with vla_serve(*TORCH) as (_, port):
        status, output, errors = call(tmp_path, **flags, policy=f"ws://127.0.0.1:{port}", output_dir=tmp_path / "wire")
    assert (status, errors) == (EXIT_OK, "")
    assert f"ws://127.0.0.1:{port}" in output
    home, wire = (
        {r.spec.episode_id: (r.steps, r.queries, r.final_state_sha256) for r in RunDirectory(tmp_path / run).records()}
        for run in ("home", "wire")
    )
    assert home == wire
    manifest = RunDirectory(tmp_path / "wire").manifest()
    assert manifest.policy_metadata["policy"] == TORCH[1]
    assert (manifest.dtype, manifest.ensemble) == ("float32", "open loop, whole chunk")


@pytest.mark.sim
def test_a_server_that_fails_ends_the_run_after_saving_and_resuming_completes_it(tmp_path: Path) -> None:
    flags = {"suite": ("libero_spatial",), "tasks": ("0",), "episodes": 1, "execute_steps": 10}
    with openpi_server("raises_later", tmp_path) as (_, port):
        address = f"ws://127.0.0.1:{port}"
        status, output, errors = call(tmp_path, **flags, policy=address)
        assert status == EXIT_INCOMPLETE
        assert f"{address} failed on libero_spatial/00/00/r0 step 30; it says:" in errors
        assert "RuntimeError: CUDA error: out of memory" in errors
        assert "remote.py" not in errors, "the server's traceback, not ours"
        assert "1 of 1 episodes have no result" in output
    with openpi_server("good", tmp_path, port):
        status, output, errors = call(tmp_path, **flags, policy=address)
        assert (status, errors) == (EXIT_OK, "")
        assert RunDirectory(tmp_path / "run").records()[0].queries == 22


@pytest.mark.sim
def test_a_server_that_dies_ends_the_run_after_saving(tmp_path: Path) -> None:
    """Every episode that has a trace has a record: also those that end while the server is waited for."""
    episodes = tmp_path / "run" / "episodes.jsonl"
    with openpi_server("good", tmp_path) as (server, port):

        def kill_after_one_episode() -> None:
            while not (episodes.is_file() and episodes.read_text()):
                time.sleep(0.05)
            server.kill()

        threading.Thread(target=kill_after_one_episode, daemon=True).start()
        status, output, errors = call(
            tmp_path,
            suite=("libero_spatial",),
            tasks=("0",),
            policy=f"ws://127.0.0.1:{port}",
            execute_steps=10,
            workers="2",
            server_timeout_s=3.0,
        )
    assert status == EXIT_INCOMPLETE
    assert "is gone and did not come back within 3 s (--server-timeout-s), at libero_spatial/00/" in errors
    assert "Traceback" not in errors
    assert "episodes have no result" in output
    saved = {record.trace for record in RunDirectory(tmp_path / "run").records()}
    assert saved
    assert saved == {str(file.relative_to(tmp_path / "run")) for file in (tmp_path / "run").rglob("*.npz")}


@pytest.mark.parametrize("checkpoint", [None, Path(__file__)])
def test_no_server_is_explained_before_anything_runs(tmp_path: Path, checkpoint: Path | None) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"ws://127.0.0.1:{probe.getsockname()[1]}"
    status, _, errors = call(tmp_path, suite=("libero_spatial",), policy=address, checkpoint=checkpoint)
    assert status == EXIT_USAGE
    expected = "the policy server has loaded its own" if checkpoint else f"no policy server at {address}: "
    assert expected in errors
    assert not (tmp_path / "run" / "manifest.json").exists()
