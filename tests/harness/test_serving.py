"""`vla-serve` against openpi's real client, against ours, and against clients that misbehave."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from websockets.sync.client import connect

from harness.cli import EXIT_INCOMPLETE, EXIT_OK
from harness.policies.openpi_wire import pack, resized, unpack
from harness.policies.remote import PolicyServerError, RemotePolicy
from harness.policies.simple import BlindPolicy, RandomPolicy
from harness.serving.cli import EXIT_USAGE, ServeArguments, run
from harness.serving.server import PolicyServer, server_metadata
from harness.serving.session import MOST_EPISODES, LiveEpisodes, Session
from harness.terminal import Terminal
from results.run_directory import RunDirectory
from tasks.interface import (
    CAMERAS,
    ActionChunk,
    EpisodeSpec,
    ImageConvention,
    Observation,
    OpenLoopSpec,
    PolicyNeeds,
    TemporalEnsembleSpec,
)
from tests.harness.openpi_environment import PROGRAMS, openpi_python, openpi_server, vla_serve
from tests.harness.test_cli import call
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


# --- with ours ------------------------------------------------------------------------------------------


def test_a_served_policy_answers_as_it_does_at_home() -> None:
    at_home = make_torch_policy()
    with vla_serve(*TORCH) as (_, port), client(port) as served:
        assert served.needs.ensemble == at_home.needs.ensemble
        assert served.dtype == "float32"
        observations = [observation(episode_id) for episode_id in EPISODES[:4]]
        for there, here in zip(served.act(observations), at_home.act(observations), strict=True):
            np.testing.assert_array_equal(there.actions, here.actions)


def test_noise_follows_episode_and_step() -> None:
    at_home = RandomPolicy(seed=5)
    with vla_serve("--policy", "random", "--seed", "5") as (_, port), client(port) as served:
        assert served.needs.cameras == ()
        for step in (0, 8, 16):
            blind = observation(EPISODES[2], step)
            blind = Observation(
                images=np.empty((0, 1, 1, 3), np.uint8),
                proprio=blind.proprio,
                instruction=blind.instruction,
                episode_id=blind.episode_id,
                step=step,
            )
            np.testing.assert_array_equal(served.act([blind])[0].actions, at_home.act([blind])[0].actions)


class Recorder(BlindPolicy):
    """Keeps what it was asked."""

    needs = PolicyNeeds(
        cameras=CAMERAS, image_convention=None, batch_size=4, ensemble=TemporalEnsembleSpec(query_every=2)
    )

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []

    def start(self, specs: Sequence[EpisodeSpec]) -> None:
        self.calls.append(("start", [spec.episode_id for spec in specs]))

    def finish(self, episode_ids: Sequence[str]) -> None:
        self.calls.append(("finish", list(episode_ids)))

    def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
        real = [o for o in observations if o.episode_id != "padding"]
        assert len(observations) == 4
        if any("poison" in o.instruction for o in real):
            raise RuntimeError("cannot read this")
        self.calls.append(("act", [o.episode_id for o in real]))
        return [ActionChunk(actions=np.zeros((4, 7))) for _ in observations]


def serve_while(policy: BlindPolicy, work: Any) -> list[str]:
    """Run `work(port)` in a thread while a server in this process serves; what it complained about."""
    complaints: list[str] = []

    async def both() -> None:
        metadata = server_metadata(policy, name="test", checkpoint_sha256="", seed=0)
        server = PolicyServer(policy, metadata=metadata, max_message_bytes=2**24, on_error=complaints.append)
        stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(server.run("127.0.0.1", 0, port.set_result, stop))
        try:
            await asyncio.to_thread(work, await port)
        finally:
            stop.set()
            await serving

    asyncio.run(both())
    return complaints


def test_episodes_start_and_finish() -> None:
    policy = Recorder()

    def work(port: int) -> None:
        with client(port) as remote:
            assert remote.needs.ensemble == TemporalEnsembleSpec(query_every=2)
            remote.act([observation(EPISODES[0], 0)])
            remote.act([observation(EPISODES[0], 2)])
            remote.finish([EPISODES[0]])
            remote.act([observation(EPISODES[1], 0)])
            remote.act([observation(EPISODES[1], 0)])  # a retry

    assert serve_while(policy, work) == []
    first, second = EPISODES[:2]
    assert policy.calls == [
        ("start", [first]),
        ("act", [first]),
        ("act", [first]),
        ("finish", [first]),
        ("start", [second]),
        ("act", [second]),
        ("start", [second]),
        ("act", [second]),
    ]


def test_a_broken_connection_does_not_end_its_episode() -> None:
    policy = Recorder()

    def work(port: int) -> None:
        for step in (0, 2):
            with client(port) as remote:
                remote.act([observation(EPISODES[0], step)])

    assert serve_while(policy, work) == []
    assert [kind for kind, _ in policy.calls] == ["start", "act", "act"]


def test_an_episode_whose_beginning_is_unknown_is_refused() -> None:
    """A restarted server has lost what a policy may have remembered; answering would change numbers silently."""

    def work(port: int) -> None:
        with (
            client(port) as remote,
            pytest.raises(PolicyServerError, match="has not seen the beginning of libero_spatial"),
        ):
            remote.act([observation(EPISODES[0], 8)])

    assert "has not seen the beginning" in serve_while(Recorder(), work)[0]


def test_a_poisonous_observation_hurts_only_its_sender() -> None:
    policy = Recorder()
    results: list[object] = []

    def work(port: int) -> None:
        with client(port) as good, client(port) as bad:
            poison = observation(EPISODES[3])
            poison = Observation(
                images=poison.images,
                proprio=poison.proprio,
                instruction="poison",
                episode_id=poison.episode_id,
                step=0,
            )

            async def both() -> None:
                results.extend(
                    await asyncio.gather(
                        *(asyncio.to_thread(good.act, [observation(e)]) for e in EPISODES[:3]),
                        asyncio.to_thread(bad.act, [poison]),
                        return_exceptions=True,
                    )
                )

            asyncio.run(both())

    complaints = serve_while(policy, work)
    assert [type(result) for result in results] == [list, list, list, PolicyServerError]
    assert "RuntimeError: cannot read this" in str(results[3])
    assert len(complaints) == 1


def test_clients_without_episodes_have_one_each_and_it_ends_with_them() -> None:
    policy = Recorder()

    def work(port: int) -> None:
        for _ in range(2):
            with connect(f"ws://127.0.0.1:{port}") as connection:
                assert unpack(connection.recv())["policy"] == "test"  # type: ignore[arg-type]
                for _ in range(2):
                    image = np.zeros((224, 224, 3), np.uint8)
                    request = {"observation/image": image, "observation/wrist_image": image, "prompt": "x"}
                    connection.send(pack(request | {"observation/state": np.zeros(8)}))
                    assert unpack(connection.recv())["actions"].shape == (4, 7)  # type: ignore[arg-type]

    assert serve_while(policy, work) == []
    kinds = [(kind, ids) for kind, ids in policy.calls if kind != "act"]
    a, b = "remote/00/s0/r0", "remote/00/s1/r0"
    assert kinds == [("start", [a]), ("finish", [a]), ("start", [b]), ("finish", [b])]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("hello", "expected a binary msgpack frame, got text"),
        (b"\xc1", "not a msgpack frame"),
        (pack({}), "expected 'observation/image': uint8 (H, W, 3), got nothing; the keys are none"),
    ],
)
def test_nonsense_is_answered_with_a_text(message: str | bytes, expected: str) -> None:
    answers: list[object] = []

    def work(port: int) -> None:
        with connect(f"ws://127.0.0.1:{port}") as connection:
            connection.recv()
            connection.send(message)
            answers.append(connection.recv())

    serve_while(Recorder(), work)
    assert isinstance(answers[0], str)
    assert expected in answers[0]


@pytest.mark.parametrize("convention", ["rotated_180", "raw", "true_view", None])
def test_images_reach_the_policy_in_its_convention(convention: ImageConvention | None) -> None:
    """Sent rotated by 180°: a spot at the raw image's first row and column lies in the last ones."""
    needs = PolicyNeeds(cameras=("agentview",), image_convention=convention, batch_size=1, ensemble=OpenLoopSpec())
    raw = np.zeros((8, 8, 3), np.uint8)
    raw[0, 0] = 255
    request = {"observation/image": raw[::-1, ::-1], "observation/state": np.zeros(8), "prompt": "x"}
    (image,) = Session(0, needs).observation(request).images
    expected = {"rotated_180": raw[::-1, ::-1], "raw": raw, "true_view": raw[::-1], None: raw[::-1, ::-1]}
    np.testing.assert_array_equal(image, expected[convention])


def test_the_state_of_few_episodes_is_kept() -> None:
    live = LiveEpisodes()
    finished: list[str] = []
    for number in range(MOST_EPISODES + 2):
        begins, crowded_out = live.begin_or_continue(observation(f"libero_spatial/00/{number}/r0"))
        assert begins
        finished += crowded_out
    assert finished == [f"libero_spatial/00/{number}/r0" for number in range(2)]


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


def test_remote_policies_close(tmp_path: Path) -> None:
    with vla_serve("--policy", "zero") as (_, port):
        before = threading.active_count()
        remote = RemotePolicy(f"ws://127.0.0.1:{port}", timeout_s=5)
        assert threading.active_count() == before + 1
        remote.close()
        assert threading.active_count() == before


# --- a whole evaluation ---------------------------------------------------------------------------------


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
    with openpi_server("good", tmp_path) as (server, port):
        killer = threading.Timer(12.0, server.kill)
        killer.start()
        status, output, errors = call(
            tmp_path, suite=("libero_spatial",), tasks=("0",), policy=f"ws://127.0.0.1:{port}", server_timeout_s=2.0
        )
        killer.cancel()
    assert status == EXIT_INCOMPLETE
    assert "is gone and did not come back within 2 s (--server-timeout-s), at libero_spatial/00/" in errors
    assert "Traceback" not in errors
    assert "episodes have no result" in output


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
