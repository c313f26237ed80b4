"""Our client against servers on openpi-client's own code, well-behaved and otherwise."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from harness.policies.remote import PolicyServerAddressError, PolicyServerError, RemotePolicy
from harness.rollout.batcher import Batcher
from tasks.interface import CAMERAS, Observation, OpenLoopSpec, Policy
from tests.harness.openpi_environment import openpi_server

EPISODES = [f"libero_spatial/00/{i:02d}/r0" for i in range(6)]


def observation(episode_id: str = EPISODES[0], step: int = 0) -> Observation:
    generator = np.random.default_rng(int(episode_id.split("/")[2]))
    return Observation(
        images=generator.integers(0, 255, (2, 256, 256, 3), dtype=np.uint8),
        proprio=generator.normal(size=8).astype(np.float32),
        instruction="pick up the black bowl",
        episode_id=episode_id,
        step=step,
    )


@contextmanager
def client(port: int, timeout_s: float = 30.0) -> Iterator[RemotePolicy]:
    policy = RemotePolicy(f"ws://127.0.0.1:{port}", timeout_s=timeout_s)
    try:
        yield policy
    finally:
        policy.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_what_a_server_gets_and_gives(tmp_path: Path) -> None:
    with openpi_server("good", tmp_path) as (_, port), client(port) as policy:
        assert isinstance(policy, Policy)
        assert policy.metadata == {"model": "a test", "reset_pose": [0.0, 1.0], "started": 0}
        assert (policy.needs.cameras, policy.needs.image_convention) == (CAMERAS, "rotated_180")
        assert policy.needs.ensemble == OpenLoopSpec(execute_steps=5), "openpi's replan_steps"
        sent = observation()
        (chunk,) = policy.act([sent])
        expected = np.zeros((10, 7), dtype=np.float32)
        expected[:, :3] = sent.proprio[:3] / 4
        np.testing.assert_array_equal(chunk.actions, expected)
    with np.load(tmp_path / "observation.npz") as got:
        assert set(got) == {"observation.image", "observation.wrist_image", "observation.state", "prompt"}
        for key in ("observation.image", "observation.wrist_image"):
            assert (got[key].shape, got[key].dtype) == ((224, 224, 3), np.uint8)
        np.testing.assert_array_equal(got["observation.state"], sent.proprio)
        assert str(got["prompt"]) == sent.instruction
        assert np.abs(got["observation.image"].astype(float).mean() - sent.images[0].mean()) < 1
        assert (got["observation.image"] != got["observation.wrist_image"]).any()


def test_a_batch_is_asked_for_in_parallel_and_padding_is_not_sent(tmp_path: Path) -> None:
    with openpi_server("slow", tmp_path) as (_, port), client(port) as policy:
        started = time.monotonic()
        observations = [observation(episode_id) for episode_id in EPISODES]
        chunks = Batcher(policy).act(observations)
        seconds = time.monotonic() - started
    assert seconds < 0.5 * len(EPISODES) / 2
    for sent, chunk in zip(observations, chunks, strict=True):
        np.testing.assert_array_equal(chunk.actions[0, :3], sent.proprio[:3] / np.float32(4))


def test_every_episode_has_a_fresh_connection(tmp_path: Path) -> None:
    """A server may take a connection for an episode. This one tells connections apart by their metadata."""
    with openpi_server("fickle", tmp_path) as (_, port), client(port) as policy:
        policy.act([observation(EPISODES[0])])
        policy.finish([EPISODES[0]])
        with pytest.raises(PolicyServerError, match="came back as another policy"):
            policy.act([observation(EPISODES[1])])


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (
            "wrong_shape",
            r"answered libero_spatial/00/00/r0 step 0 with no actions: .*shape \(T, 7\) .* got \(10, 6\)",
        ),
        ("nan", "answered libero_spatial/00/00/r0 step 0 with no actions: expected finite actions"),
        ("no_actions", "expected a map with 'actions', got act"),
        ("raises", r"failed on libero_spatial/00/00/r0 step 0; it says:\nTraceback(.|\n)*CUDA error: out of memory"),
        ("hangs_up", "broke the connection 5 times instead of answering libero_spatial/00/00/r0 step 0"),
    ],
)
def test_a_server_that_fails_is_quoted(tmp_path: Path, behaviour: str, message: str) -> None:
    with (
        openpi_server(behaviour, tmp_path) as (_, port),
        client(port) as policy,
        pytest.raises(PolicyServerError, match=message),
    ):
        policy.act([observation()])


def test_a_broken_connection_is_made_again_and_nothing_is_lost(tmp_path: Path) -> None:
    with openpi_server("drops", tmp_path) as (_, port), client(port) as policy:
        for step in range(8):
            sent = observation(EPISODES[step % 2], step)
            (chunk,) = policy.act([sent])
            np.testing.assert_array_equal(chunk.actions[0, :3], sent.proprio[:3] / np.float32(4))


def test_a_server_that_comes_back_is_waited_for(tmp_path: Path) -> None:
    port = free_port()
    with openpi_server("good", tmp_path, port) as (process, _), client(port) as policy:
        policy.act([observation()])
        process.kill()
        process.wait()
        answered: list[int] = []
        asking = threading.Thread(target=lambda: answered.append(len(policy.act([observation(step=5)]))))
        asking.start()
        time.sleep(1.0)
        assert answered == []
        with openpi_server("good", tmp_path, port):
            asking.join(timeout=30)
            assert answered == [1]


def test_a_proxy_that_says_not_yet_is_waited_for(tmp_path: Path) -> None:
    class NotYet(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        def log_message(self, *_: object) -> None: ...

    port = free_port()
    answered: list[int] = []
    with openpi_server("good", tmp_path, port) as (process, _), client(port) as policy:
        policy.act([observation()])
        process.kill()
        process.wait()
        with http.server.ThreadingHTTPServer(("127.0.0.1", port), NotYet) as proxy:
            threading.Thread(target=proxy.serve_forever).start()
            asking = threading.Thread(target=lambda: answered.append(len(policy.act([observation(step=5)]))))
            asking.start()
            time.sleep(1.0)
            proxy.shutdown()
        with openpi_server("good", tmp_path, port):
            asking.join(timeout=30)
            assert answered == [1]


def test_a_server_that_stays_away_is_given_up(tmp_path: Path) -> None:
    with openpi_server("good", tmp_path) as (process, port), client(port, timeout_s=1.5) as policy:
        policy.act([observation()])
        process.kill()
        process.wait()
        with pytest.raises(
            PolicyServerError, match=r"did not come back within 1.5 s(.|\n)*Start it and repeat the command"
        ):
            policy.act([observation(step=5)])


def test_another_policy_at_the_same_address_is_refused(tmp_path: Path) -> None:
    with openpi_server("fickle", tmp_path) as (_, port), client(port) as policy:
        policy.act([observation()])
        with pytest.raises(
            PolicyServerError, match=r"came back as another policy: its metadata was .*'started': 1.* is .*2"
        ):
            policy.act([observation(step=5)])


def test_no_answer_is_waited_for_so_long(tmp_path: Path) -> None:
    with (
        openpi_server("slow", tmp_path) as (_, port),
        client(port, timeout_s=0.2) as policy,
        pytest.raises(PolicyServerError, match=r"gave no answer to .* step 0 within 0.2 s \(--server-timeout-s\)"),
    ):
        policy.act([observation()])


@pytest.mark.parametrize(
    "address", ["ws://127.0.0.1:{closed}", "ws://", "ws://127.0.0.1:99999999", "ws://no such host"]
)
def test_no_server_at_the_address(address: str) -> None:
    with pytest.raises(PolicyServerAddressError, match=r"no policy server at ws|expected ws://HOST:PORT"):
        RemotePolicy(address.format(closed=free_port()), timeout_s=5)


def test_something_else_at_the_address(tmp_path: Path) -> None:
    with (
        openpi_server("text_first", tmp_path) as (_, port),
        pytest.raises(PolicyServerAddressError, match="got text: hello"),
    ):
        RemotePolicy(f"ws://127.0.0.1:{port}", timeout_s=5)
