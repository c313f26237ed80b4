"""The command `vla-serve` against openpi's real client, against ours, and against wrong input."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from websockets.sync.client import connect

from harness.policies.openpi_wire import pack, resized, unpack
from harness.policies.remote import PolicyServerError, RemotePolicy
from harness.policies.simple import RandomPolicy
from harness.serving.cli import EXIT_USAGE, ServeArguments, run
from harness.terminal import Terminal
from tasks.interface import Observation
from tests.harness.openpi_environment import PROGRAMS, openpi_python, vla_serve
from tests.harness.test_remote import EPISODES, client, observation
from tests.harness.torch_policy import make_torch_policy

TORCH = ("--policy", "tests.harness.torch_policy:make_torch_policy")


def openpi_client(port: int, kind: str) -> list[dict[str, Any]]:
    command = [str(openpi_python()), str(PROGRAMS / "client.py"), str(port), kind]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- with openpi's client -------------------------------------------------------------------------------


def test_openpis_client_gets_actions() -> None:
    with vla_serve(*TORCH) as (_, port):
        metadata, *replies = openpi_client(port, "good")
    assert metadata["metadata"]["policy"] == TORCH[1]
    assert [np.array(reply["actions"]).shape for reply in replies] == [(20, 7)] * 3
    assert [(reply["dtype"], reply["timing"]) for reply in replies] == [("float64", ["infer_ms"])] * 3
    generator = np.random.default_rng(0)
    for step, reply in enumerate(replies):
        images = generator.integers(0, 255, (2, 256, 256, 3), dtype=np.uint8)
        seen = Observation(
            images=np.stack([resized(image) for image in images]),
            proprio=(np.arange(8) / 10 + step).astype(np.float32),
            instruction="pick up the black bowl",
            episode_id="",
            step=step,
        )
        here = make_torch_policy().act([seen] * 4)[0]  # four: the policy's batch size
        np.testing.assert_array_equal(reply["actions"], here.actions)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no_state", "expected 'observation/state': float (8,), got nothing; the keys are 'observation/image', "),
        (
            "wrong_image",
            "expected 'observation/image': uint8 (H, W, 3), at most 2048 a side, got float32 (224, 224, 3)",
        ),
    ],
)
def test_openpis_client_is_told_what_is_wrong(kind: str, message: str) -> None:
    with vla_serve(*TORCH) as (process, port):
        replies = openpi_client(port, kind)
        assert "actions" in replies[1]
        assert replies[2]["error"].startswith("RuntimeError: Error in inference server:\nTraceback")
        assert message in replies[2]["error"]
        assert len(openpi_client(port, "good")) == 4, "the server goes on"
        process.terminate()
        assert process.stderr is not None
        assert message in process.stderr.read()


def test_a_message_too_large_is_refused() -> None:
    with vla_serve(*TORCH, "--max-message-mib", "2") as (_, port):
        replies = openpi_client(port, "too_large")
        assert "actions" in replies[1]
        assert "ConnectionClosed" in replies[2]["error"]
        assert "1009" in replies[2]["error"]
        assert len(openpi_client(port, "good")) == 4


# --- with our client ------------------------------------------------------------------------------------


def test_a_served_policy_answers_as_it_does_at_home() -> None:
    at_home = make_torch_policy()
    with vla_serve(*TORCH) as (_, port), client(port) as served:
        assert served.needs.ensemble == at_home.needs.ensemble
        assert served.dtype == "float32"
        assert served.metadata["policy_code_sha256"]
        observations = [observation(episode_id) for episode_id in EPISODES[:4]]
        for there, here in zip(served.act(observations), at_home.act(observations), strict=True):
            np.testing.assert_array_equal(there.actions, here.actions)


def test_noise_follows_episode_and_step() -> None:
    at_home = RandomPolicy(seed=5)
    with vla_serve("--policy", "random", "--seed", "5") as (_, port), client(port) as served:
        assert served.needs.cameras == ()
        for step in (0, 8, 16):
            seen = observation(EPISODES[2], step)
            blind = Observation(
                images=np.empty((0, 1, 1, 3), np.uint8),
                proprio=seen.proprio,
                instruction=seen.instruction,
                episode_id=seen.episode_id,
                step=step,
            )
            np.testing.assert_array_equal(served.act([blind])[0].actions, at_home.act([blind])[0].actions)


def test_a_client_that_closes_leaves_nothing() -> None:
    with vla_serve("--policy", "zero") as (_, port):
        descriptors, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
        remote = RemotePolicy(f"ws://127.0.0.1:{port}", timeout_s=5)
        assert threading.active_count() == threads + 1
        remote.close()
        assert threading.active_count() == threads
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


# --- the command ----------------------------------------------------------------------------------------


def test_health_while_inference_is_busy(tmp_path: Path) -> None:
    """Inference runs off the event loop: the server answers meanwhile."""
    (tmp_path / "slow_policy.py").write_text(
        "import time\n"
        "from harness.policies.simple import ZeroPolicy\n"
        "class Slow(ZeroPolicy):\n"
        "    def act(self, observations):\n"
        "        time.sleep(6)\n"
        "        return super().act(observations)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with vla_serve("--policy", "slow_policy:Slow") as (_, port), connect(f"ws://127.0.0.1:{port}") as connection:
            connection.recv()
            connection.send(pack({"observation/state": np.zeros(8), "prompt": "x"}))
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=3) as response:
                assert (response.status, response.read()) == (200, b"OK\n")
            with pytest.raises(TimeoutError):
                connection.recv(timeout=1)
            assert unpack(connection.recv(timeout=20))["actions"].shape == (8, 7)  # type: ignore[arg-type]


def test_it_stops_at_once_though_the_policy_is_busy(tmp_path: Path) -> None:
    (tmp_path / "stuck_policy.py").write_text(
        "import time\n"
        "from harness.policies.simple import ZeroPolicy\n"
        "class Stuck(ZeroPolicy):\n"
        "    def act(self, observations):\n"
        "        time.sleep(600)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with (
            vla_serve("--policy", "stuck_policy:Stuck") as (process, port),
            connect(f"ws://127.0.0.1:{port}") as connection,
        ):
            connection.recv()
            connection.send(pack({"observation/state": np.zeros(8), "prompt": "x"}))
            time.sleep(0.5)
            process.terminate()
            assert process.wait(timeout=10) == 0


def test_a_server_that_stands_still_is_given_up() -> None:
    """Also while a request too large for the socket's buffers is being sent."""
    big = observation()
    big = Observation(
        images=np.zeros((2, 1024, 1024, 3), np.uint8),
        proprio=big.proprio,
        instruction=big.instruction,
        episode_id=big.episode_id,
        step=0,
    )
    with vla_serve(*TORCH) as (process, port), client(port, timeout_s=1.5) as remote:
        process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(PolicyServerError, match=r"gave no answer to .* within 1.5 s"):
                remote.act([big])
        finally:
            process.send_signal(signal.SIGCONT)


def test_it_listens_on_loopback_and_stops_when_told() -> None:
    with vla_serve("--policy", "zero") as (process, port):
        addresses = Path("/proc/net/tcp").read_text()
        assert f"0100007F:{port:04X} 00000000:0000 0A" in addresses
        assert f"00000000:{port:04X} 00000000:0000 0A" not in addresses
        process.terminate()
        assert process.wait(timeout=20) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "expert"}, "--policy expert cannot be served"),
        ({"policy": "replay:runs/x"}, "a replay belongs to its run"),
        ({"policy": "nonsense"}, "unknown policy 'nonsense'"),
        ({"policy": "no_module:make"}, "there is no module 'no_module'"),
        ({"policy": "a:b", "checkpoint": Path("/nothing")}, "no checkpoint at /nothing"),
        ({"policy": "zero", "max_message_mib": 0}, "--max-message-mib: expected at least 1, got 0"),
        ({"policy": "zero", "host": "no such host"}, "cannot listen on no such host port 8000"),
        ({"policy": "zero", "port": 99999}, "cannot listen on 127.0.0.1 port 99999"),
    ],
)
def test_wrong_input_is_explained(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with (tmp_path / "err").open("w+") as errors, (tmp_path / "out").open("w") as out:
        terminal = Terminal(out=Console(file=out), errors=Console(file=errors, width=300))
        assert run(ServeArguments(**arguments), terminal) == EXIT_USAGE
        errors.seek(0)
        assert message in errors.read()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as other, (tmp_path / "err").open("w+") as errors:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        terminal = Terminal(out=Console(file=errors), errors=Console(file=errors, width=300))
        assert run(ServeArguments(policy="zero", port=port), terminal) == EXIT_USAGE
        errors.seek(0)
        assert f"cannot listen on 127.0.0.1 port {port}" in errors.read()


def test_a_server_needs_no_simulator() -> None:
    code = "import sys, harness.serving.cli; print({'mujoco', 'robosuite', 'libero', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
