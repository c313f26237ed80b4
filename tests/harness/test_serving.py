"""The policy server in this process: who may hold which episode, what is answered once, what is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from harness.policies.openpi_wire import CLIENT_KEY, EPISODE_KEY, STEP_KEY, WireError, pack, unpack
from harness.policies.remote import PolicyServerError, RemotePolicy
from harness.policies.simple import BlindPolicy
from harness.serving.episodes import MOST_EPISODES, LiveEpisodes
from harness.serving.inference import Inference
from harness.serving.server import PolicyServer, server_metadata
from harness.serving.session import Session
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
from tests.harness.test_remote import EPISODES, client, observation


class Recorder(BlindPolicy):
    """Keeps what it was asked; slow where told to be."""

    needs = PolicyNeeds(
        cameras=CAMERAS, image_convention=None, batch_size=4, ensemble=TemporalEnsembleSpec(query_every=2)
    )

    def __init__(self, slow_step: int = -1) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.steps: list[int] = []
        self._slow_step = slow_step

    def start(self, specs: Sequence[EpisodeSpec]) -> None:
        self.calls.append(("start", [spec.episode_id for spec in specs]))

    def finish(self, episode_ids: Sequence[str]) -> None:
        self.calls.append(("finish", list(episode_ids)))

    def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
        real = [o for o in observations if o.episode_id != "padding"]
        assert len(observations) == 4
        self.calls.append(("act", [o.episode_id for o in real]))
        self.steps += [o.step for o in real]
        if any("poison" in o.instruction for o in real):
            raise RuntimeError("cannot read this")
        if any(o.step == self._slow_step for o in real):
            time.sleep(1.0)
        return [ActionChunk(actions=np.full((4, 7), len(self.steps) / 100)) for _ in observations]


def serve_while(policy: BlindPolicy, work: Callable[[int], None]) -> list[str]:
    """Run `work(port)` in a thread while a server in this process serves; what it complained about."""
    complaints: list[str] = []

    async def both() -> None:
        metadata = server_metadata(policy, name="test", code_sha256="", checkpoint_sha256="", seed=0)
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


def request(client_name: str = "", episode_id: str = "", step: int = 0) -> bytes:
    """A frame, openpi's own unless a client is named."""
    image = np.zeros((224, 224, 3), np.uint8)
    content: dict[str, Any] = {"observation/image": image, "observation/wrist_image": image, "prompt": "x"}
    content["observation/state"] = np.zeros(8)
    named = {CLIENT_KEY: client_name, EPISODE_KEY: episode_id, STEP_KEY: step} if client_name else {}
    return pack(content | named)


def actions(reply: str | bytes) -> np.ndarray:
    assert isinstance(reply, bytes), reply
    return np.asarray(unpack(reply)["actions"])


def test_episodes_start_and_finish() -> None:
    policy = Recorder()

    def work(port: int) -> None:
        with client(port) as remote:
            assert remote.needs.ensemble == TemporalEnsembleSpec(query_every=2)
            assert remote.needs.image_convention is None, "the protocol's, as at home"
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


def break_connections(remote: RemotePolicy) -> None:
    for connection in remote._connections.values():
        remote._loop.call_soon_threadsafe(connection.transport.abort)
    time.sleep(0.3)


def test_a_broken_connection_does_not_end_its_episode() -> None:
    policy = Recorder()

    def work(port: int) -> None:
        with client(port) as remote:
            remote.act([observation(EPISODES[0], 0)])
            break_connections(remote)
            remote.act([observation(EPISODES[0], 2)])

    assert serve_while(policy, work) == []
    assert [kind for kind, _ in policy.calls] == ["start", "act", "act"]


def test_an_observation_sent_again_is_answered_once() -> None:
    """The connection breaks between request and reply: a policy with a memory must not see the observation twice."""
    policy = Recorder(slow_step=2)
    replies: list[np.ndarray] = []

    def work(port: int) -> None:
        with connect(f"ws://127.0.0.1:{port}") as connection:
            connection.recv()
            connection.send(request("me", "a", 0))
            replies.append(actions(connection.recv()))
            connection.send(request("me", "a", 2))
            time.sleep(0.3)
            connection.socket.close()
        with connect(f"ws://127.0.0.1:{port}") as connection:
            connection.recv()
            connection.send(request("me", "a", 2))
            replies.append(actions(connection.recv()))
            connection.send(request("me", "a", 4))
            replies.append(actions(connection.recv()))

    assert serve_while(policy, work) == []
    assert policy.steps == [0, 2, 4]
    assert [reply[0, 0] for reply in replies] == [0.01, 0.02, 0.03]


def test_an_episode_begun_again_elsewhere_is_not_ended_by_its_old_connection() -> None:
    """A retry may come over another connection, and the old one then carries the next episode."""
    policy = Recorder()

    def work(port: int) -> None:
        with connect(f"ws://127.0.0.1:{port}") as old, connect(f"ws://127.0.0.1:{port}") as new:
            for connection in (old, new):
                connection.recv()
            for connection, episode_id, step in (
                (old, "a", 0),
                (new, "a", 0),
                (old, "b", 0),
                (new, "a", 2),
                (new, "c", 0),
            ):
                connection.send(request("me", episode_id, step))
                assert actions(connection.recv()).shape == (4, 7)

    assert serve_while(policy, work) == []
    kinds = [(kind, ids[0]) for kind, ids in policy.calls if kind != "act"]
    assert kinds == [("start", "a"), ("start", "a"), ("start", "b"), ("finish", "a"), ("start", "c")]


def test_a_first_observation_sent_again_begins_the_episode_once_more_and_leaves_no_ghost() -> None:
    policy = Recorder(slow_step=0)

    def work(port: int) -> None:
        with connect(f"ws://127.0.0.1:{port}") as connection:
            connection.recv()
            connection.send(request("me", "a", 0))
            time.sleep(0.3)
            connection.socket.close()
        with connect(f"ws://127.0.0.1:{port}") as connection:
            connection.recv()
            connection.send(request("me", "a", 0))
            connection.recv()
            connection.send(request("me", "a", 2))
            connection.recv()
        time.sleep(0.3)
        with client(port) as other:  # the first client is gone for good: its episode is free
            other.act([observation("libero_spatial/00/00/r0", 0)])
        with connect(f"ws://127.0.0.1:{port}") as connection:
            connection.recv()
            connection.send(request("you", "a", 0))
            assert actions(connection.recv()).shape == (4, 7)

    complaints = serve_while(policy, work)
    assert all("was begun again over another connection" in text for text in complaints)
    of_a = [kind for kind, ids in policy.calls if "a" in ids]
    assert of_a == ["start", "act", "start", "act", "act", "start", "act"]


def test_a_client_that_dies_while_it_waits_is_gone_at_once() -> None:
    """The command is killed and repeated, before the policy has answered the dead one."""
    policy = Recorder(slow_step=2)

    def work(port: int) -> None:
        with connect(f"ws://127.0.0.1:{port}") as connection:
            connection.recv()
            connection.send(request("dead", "a", 0))
            connection.recv()
            connection.send(request("dead", "a", 2))
            time.sleep(0.2)
            connection.socket.close()
        with connect(f"ws://127.0.0.1:{port}") as connection:
            connection.recv()
            time.sleep(0.2)
            connection.send(request("resumed", "a", 0))
            assert actions(connection.recv()).shape == (4, 7)

    serve_while(policy, work)
    assert policy.steps == [0, 2, 0]


def test_a_policy_that_exits_leaves_nobody_waiting() -> None:
    class Exits(Recorder):
        def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
            raise SystemExit(3)

    def work(port: int) -> None:
        for _ in range(2):
            with client(port) as remote, pytest.raises(PolicyServerError, match=r"the policy raised SystemExit\(3\)"):
                remote.act([observation(EPISODES[0], 0)])

    serve_while(Exits(), work)


def test_two_evaluations_cannot_share_an_episode() -> None:
    def work(port: int) -> None:
        with client(port) as first, client(port) as second:
            first.act([observation(EPISODES[0], 0)])
            with pytest.raises(PolicyServerError, match="another client is in the middle of libero_spatial/00/00/r0"):
                second.act([observation(EPISODES[0], 0)])
            first.act([observation(EPISODES[0], 2)])
        with client(port) as third:
            third.act([observation(EPISODES[0], 0)])  # the first is gone: a resumed run may begin anew

    assert len(serve_while(Recorder(), work)) == 1


def test_an_episode_whose_beginning_is_unknown_is_refused() -> None:
    """A restarted server has lost what a policy may have remembered; answering would change numbers silently."""

    def work(port: int) -> None:
        with (
            client(port) as remote,
            pytest.raises(PolicyServerError, match="has not seen the beginning of libero_spatial"),
        ):
            remote.act([observation(EPISODES[0], 8)])

    assert "has not seen the beginning" in serve_while(Recorder(), work)[0]


def test_a_batch_that_fails_fails_for_all_in_it_and_is_not_tried_again() -> None:
    policy = Recorder()

    async def ask() -> list[object]:
        inference = Inference(policy)
        asked = [observation(episode_id) for episode_id in EPISODES[:3]]
        asked[1] = Observation(
            **{name: getattr(asked[1], name) for name in Observation.__slots__} | {"instruction": "poison"}
        )
        results = await asyncio.gather(*(inference.ask(o) for o in asked), return_exceptions=True)
        good = await inference.ask(observation(EPISODES[4]))
        assert isinstance(good, ActionChunk)
        return list(results)

    results = asyncio.run(ask())
    assert all("RuntimeError: cannot read this" in str(result) for result in results)
    assert policy.calls == [("act", EPISODES[:3]), ("act", [EPISODES[4]])]


def test_clients_without_names_have_one_episode_each_and_it_ends_with_them() -> None:
    policy = Recorder()

    def work(port: int) -> None:
        for _ in range(2):
            with connect(f"ws://127.0.0.1:{port}") as connection:
                greeting = connection.recv()
                assert isinstance(greeting, bytes)
                assert unpack(greeting)["policy"] == "test"
                for _ in range(2):
                    connection.send(request())
                    assert actions(connection.recv()).shape == (4, 7)
            time.sleep(0.2)

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
        (pack({str(i): {} for i in range(5000)}), "not a msgpack frame: ValueError: 5000 exceeds max_map_len"),
        (request("x" * 300, "a", 0), "expected 'client': printable text of at most 200 characters"),
        (request("x", "\x1b[2J", 0), "expected 'episode_id': printable text"),
        (request("x", "a", -1), "expected 'step': a number from 0 up, got -1"),
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


def test_a_web_page_is_refused() -> None:
    """A browser names the page's origin; otherwise any page could talk to a server on loopback."""

    def work(port: int) -> None:
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"ws://127.0.0.1:{port}", origin="https://evil.example")  # type: ignore[arg-type]

    serve_while(Recorder(), work)


@pytest.mark.parametrize("convention", ["rotated_180", "raw", "true_view", None])
def test_openpis_images_reach_the_policy_in_its_convention(convention: ImageConvention | None) -> None:
    """Sent rotated by 180°: a spot at the raw image's first row and column lies in the last ones."""
    needs = PolicyNeeds(cameras=("agentview",), image_convention=convention, batch_size=1, ensemble=OpenLoopSpec())
    raw = np.zeros((8, 8, 3), np.uint8)
    raw[0, 0] = 255
    content = {"observation/image": raw[::-1, ::-1], "observation/state": np.zeros(8), "prompt": "x"}
    (image,) = Session(0, needs).observation(content).images
    expected = {"rotated_180": raw[::-1, ::-1], "raw": raw, "true_view": raw[::-1], None: raw[::-1, ::-1]}
    np.testing.assert_array_equal(image, expected[convention])
    # `vla-eval` has read the policy's needs and sends what they say.
    named = content | {"observation/image": expected[convention], CLIENT_KEY: "me", EPISODE_KEY: "a", STEP_KEY: 0}
    (image,) = Session(0, needs).observation(named).images
    np.testing.assert_array_equal(image, expected[convention])


def test_one_client_per_connection() -> None:
    session = Session(0, PolicyNeeds(cameras=(), image_convention=None, batch_size=1, ensemble=OpenLoopSpec()))
    content = {"observation/state": np.zeros(8), "prompt": "x", EPISODE_KEY: "a", STEP_KEY: 0}
    session.observation(content | {CLIENT_KEY: "me"})
    with pytest.raises(WireError, match="expected one client per connection, got 'you' after 'me'"):
        session.observation(content | {CLIENT_KEY: "you"})


def test_the_state_of_few_episodes_is_kept() -> None:
    live = LiveEpisodes()
    live.connected("me", 1, lambda: True)
    finished: list[str] = []
    for number in range(MOST_EPISODES + 2):
        _, crowded_out = live.enter("me", 1, observation(f"libero_spatial/00/{number}/r0"))
        finished += crowded_out
    assert finished == [f"libero_spatial/00/{number}/r0" for number in range(2)]
    assert live.leave("you", 1, "libero_spatial/00/5/r0") == []
    assert live.leave("me", 2, "libero_spatial/00/5/r0") == []
    assert live.leave("me", 1, "libero_spatial/00/5/r0") == ["libero_spatial/00/5/r0"]
    live.disconnected("me", 1)
    assert not live.is_connected("me")
    assert len(live.leave_all("me")) == MOST_EPISODES - 1
