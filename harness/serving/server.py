"""Serves a policy in openpi's protocol.

Per connection: a metadata map first, then one reply per observation, strictly in turn. An error is sent as text with
its traceback, then the connection is closed, as openpi's server does.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import traceback
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.protocol import State

from harness.policies.ensemble_wire import ensemble_to_plain
from harness.policies.openpi_wire import ACTIONS_KEY, EXTENSION_KEY, WireError, pack, unpack
from harness.serving.episodes import LiveEpisodes
from harness.serving.inference import Inference
from harness.serving.session import Session, remote_episode
from results.manifest import installed_versions
from tasks.interface import ActionChunk, Policy

HEALTH_PATH = "/healthz"
KEEP_EPISODES_S = 300.0
"""So long a client without a connection keeps its episodes."""


def server_metadata(
    policy: Policy, *, name: str, code_sha256: str, checkpoint_sha256: str, seed: int
) -> dict[str, Any]:
    """What a client is told first; it changes whenever the policy's answers may."""
    return {
        "policy": name,
        "policy_code_sha256": code_sha256,
        "checkpoint_sha256": checkpoint_sha256,
        "seed": seed,
        "dtype": str(getattr(policy, "dtype", "not stated")),
        "versions": installed_versions(),
        EXTENSION_KEY: {
            "version": 1,
            "cameras": list(policy.needs.cameras),
            "image_convention": policy.needs.image_convention,
            "batch_size": policy.needs.batch_size,
            "ensemble": ensemble_to_plain(policy.needs.ensemble),
            "min_image_px": policy.needs.min_image_px,
        },
    }


class PolicyServer:
    """One policy, any number of clients.

    Args:
        policy: what to serve.
        metadata: sent to each client first.
        max_message_bytes: larger requests are refused.
        on_error: told of every failed request.
    """

    def __init__(
        self, policy: Policy, *, metadata: dict[str, Any], max_message_bytes: int, on_error: Callable[[str], None]
    ) -> None:
        self._needs = policy.needs
        self._inference = Inference(policy)
        self._metadata = pack(metadata)
        self._max_message_bytes = max_message_bytes
        self._on_error = on_error
        self._live = LiveEpisodes()
        self._numbers = itertools.count()
        self._conversations: set[asyncio.Task[None]] = set()
        self._leaving: dict[str, asyncio.TimerHandle] = {}

    async def run(self, host: str, port: int, on_ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then end at once, whatever the policy is doing.

        Args:
            port: 0 takes a free one.
            on_ready: called with the port.

        Raises:
            OSError: the address cannot be listened on.
        """
        server = await serve(
            self._converse,
            host,
            port,
            compression=None,
            max_size=self._max_message_bytes,
            origins=[None],  # browsers name one: no web page may use a policy on this machine
            process_request=_health,
            ping_timeout=60,
            close_timeout=1,
        )
        on_ready(int(next(iter(server.sockets)).getsockname()[1]))
        await stop.wait()
        for conversation in self._conversations:
            conversation.cancel()
        server.close()
        await server.wait_closed()

    async def _converse(self, connection: ServerConnection) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)
        session = Session(next(self._numbers), self._needs)
        try:
            await connection.send(self._metadata)
            async for message in connection:
                await connection.send(await self._answer(connection, session, message))
        except ConnectionClosed:
            pass  # the client's right; a request too large ends here too, with close code 1009
        except Exception as error:
            self._on_error(f"{session.episode_id or 'a first request'}: {type(error).__name__}: {error}")
            await _explain(connection)
        finally:
            self._disconnected(session)

    def _connected(self, connection: ServerConnection, session: Session) -> None:
        self._live.connected(session.client, session.number, lambda: connection.state is State.OPEN)
        self._stay(session.client)

    def _stay(self, client: str) -> None:
        leaving = self._leaving.pop(client, None)
        if leaving is not None:
            leaving.cancel()

    def _disconnected(self, session: Session) -> None:
        """A client's last connection is gone: its episodes end, unless it is one that may come back, and does."""
        if not session.client:
            return
        self._live.disconnected(session.client, session.number)
        if not self._live.is_connected(session.client):
            self._stay(session.client)  # until its last connection is over, too
            wait_s = 0.0 if session.is_anonymous else KEEP_EPISODES_S
            loop = asyncio.get_running_loop()
            self._leaving[session.client] = loop.call_later(wait_s, self._forget, session.client)

    def _forget(self, client: str) -> None:
        self._leaving.pop(client, None)
        self._inference.finish_soon(self._live.leave_all(client))

    async def _answer(self, connection: ServerConnection, session: Session, message: str | bytes) -> bytes:
        if isinstance(message, str):
            raise WireError("expected a binary msgpack frame, got text")
        started = time.perf_counter()
        newcomer = not session.client
        observation = session.observation(unpack(message))
        if newcomer:
            self._connected(connection, session)
        before, session.episode_id = session.episode_id, observation.episode_id
        if before and before != observation.episode_id:
            self._inference.finish_soon(self._live.leave(session.client, session.number, before))
        episode, crowded_out = self._live.enter(session.client, session.number, observation)
        self._inference.finish_soon(crowded_out)
        if observation.step == 0:
            await self._inference.start(remote_episode(observation))
            if not self._live.is_current(observation.episode_id, episode):
                raise WireError(f"{observation.episode_id} was begun again over another connection")
        if episode.reply is None or episode.step != observation.step:
            episode.step, episode.reply = observation.step, self._inference.ask(observation)
        chunk = await _wanted_again(episode.reply, observation.episode_id)
        milliseconds = 1000 * (time.perf_counter() - started)
        return pack({ACTIONS_KEY: chunk.actions, "server_timing": {"infer_ms": milliseconds}})


async def _wanted_again(reply: asyncio.Future[ActionChunk], episode_id: str) -> ActionChunk:
    """The reply, which outlives this connection: where it breaks, the client asks again.

    Raises:
        WireError: the episode was begun again over another connection.
    """
    try:
        return await asyncio.shield(reply)
    except asyncio.CancelledError:
        if reply.cancelled():
            raise WireError(f"{episode_id} was begun again over another connection") from None
        raise


async def _explain(connection: ServerConnection) -> None:
    """Send the traceback of the exception being handled, and hang up."""
    try:
        await connection.send(traceback.format_exc())
        await connection.close(CloseCode.INTERNAL_ERROR, "Traceback included in previous frame.")
    except ConnectionClosed:
        pass  # nobody to tell


def _health(connection: ServerConnection, request: Request) -> Response | None:
    """`GET /healthz`; everything else goes on to the websocket handshake."""
    return connection.respond(HTTPStatus.OK, "OK\n") if request.path == HEALTH_PATH else None
