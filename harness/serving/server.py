"""Serves a policy in openpi's protocol.

Per connection: a metadata map first, then one reply per observation, strictly in turn. An error is sent as text with
its traceback, then the connection is closed, as openpi's server does. Inference runs on a thread of its own, in batches
of whatever observations wait, padded to the policy's batch size.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from harness.policies.ensemble_wire import ensemble_to_plain
from harness.policies.openpi_wire import ACTIONS_KEY, EXTENSION_KEY, WireError, pack, unpack
from harness.rollout.batcher import Batcher
from harness.serving.session import LiveEpisodes, Session, remote_episode
from tasks.interface import ActionChunk, Observation, Policy

HEALTH_PATH = "/healthz"


def server_metadata(policy: Policy, *, name: str, checkpoint_sha256: str, seed: int) -> dict[str, Any]:
    """What a client is told first; it changes whenever the policy's answers may."""
    return {
        "policy": name,
        "checkpoint_sha256": checkpoint_sha256,
        "seed": seed,
        "dtype": str(getattr(policy, "dtype", "not stated")),
        EXTENSION_KEY: {
            "version": 1,
            "cameras": list(policy.needs.cameras),
            "batch_size": policy.needs.batch_size,
            "ensemble": ensemble_to_plain(policy.needs.ensemble),
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
        self._policy = policy
        self._batcher = Batcher(policy)
        self._metadata = pack(metadata)
        self._max_message_bytes = max_message_bytes
        self._on_error = on_error
        self._live = LiveEpisodes()
        self._numbers = itertools.count()
        self._waiting: asyncio.Queue[tuple[Observation, asyncio.Future[ActionChunk]]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")

    async def run(self, host: str, port: int, on_ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set.

        Args:
            port: 0 takes a free one.
            on_ready: called with the port.

        Raises:
            OSError: the address cannot be listened on.
        """
        inference = asyncio.create_task(self._infer_forever())
        try:
            async with serve(
                self._converse,
                host,
                port,
                compression=None,
                max_size=self._max_message_bytes,
                process_request=_health,
                ping_timeout=60,
                close_timeout=1,
            ) as server:
                on_ready(_port(server))
                await stop.wait()
        finally:
            inference.cancel()
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _converse(self, connection: ServerConnection) -> None:
        session = Session(next(self._numbers), self._policy.needs)
        try:
            await connection.send(self._metadata)
            async for message in connection:
                await connection.send(await self._answer(session, message))
        except ConnectionClosed:
            pass  # the client's right; a request too large ends here too, with close code 1009
        except Exception as error:
            self._on_error(f"{session.episode_id or 'a first request'}: {type(error).__name__}: {error}")
            try:
                await connection.send(traceback.format_exc())
                await connection.close(CloseCode.INTERNAL_ERROR, "Traceback included in previous frame.")
            except ConnectionClosed:
                pass  # nobody to tell
        finally:
            if session.ends_with_connection:
                await self._finish(self._live.end(session.episode_id))

    async def _answer(self, session: Session, message: str | bytes) -> bytes:
        if isinstance(message, str):
            raise WireError("expected a binary msgpack frame, got text")
        before = session.episode_id
        observation = session.observation(unpack(message))
        if before and before != observation.episode_id:
            await self._finish(self._live.end(before))
        begins, crowded_out = self._live.begin_or_continue(observation)
        await self._finish(crowded_out)
        if begins:
            await self._on_thread(self._policy.start, [remote_episode(observation)])
        started = time.perf_counter()
        reply: asyncio.Future[ActionChunk] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((observation, reply))
        chunk = await reply
        milliseconds = 1000 * (time.perf_counter() - started)
        return pack({ACTIONS_KEY: chunk.actions, "server_timing": {"infer_ms": milliseconds}})

    async def _finish(self, episode_ids: Sequence[str]) -> None:
        if episode_ids:
            await self._on_thread(self._policy.finish, episode_ids)

    async def _on_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """The policy is touched by one thread only."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    async def _infer_forever(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while not self._waiting.empty() and len(batch) < self._policy.needs.batch_size:
                batch.append(self._waiting.get_nowait())
            await self._infer(batch)

    async def _infer(self, batch: Sequence[tuple[Observation, asyncio.Future[ActionChunk]]]) -> None:
        """Answer a batch; if it fails, each of its observations alone, so that only the culprit's client hears of it."""
        try:
            chunks = await self._on_thread(self._batcher.act, [observation for observation, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                _settle(batch[0][1], error)
            else:
                for single in batch:
                    await self._infer([single])
            return
        for (_, reply), chunk in zip(batch, chunks, strict=True):
            _settle(reply, chunk)


def _settle(reply: asyncio.Future[ActionChunk], result: ActionChunk | Exception) -> None:
    if reply.done():
        return  # its client hung up
    if isinstance(result, Exception):
        reply.set_exception(result)
    else:
        reply.set_result(result)


def _health(connection: ServerConnection, request: Request) -> Response | None:
    """`GET /healthz`; everything else goes on to the websocket handshake."""
    return connection.respond(HTTPStatus.OK, "OK\n") if request.path == HEALTH_PATH else None


def _port(server: Server) -> int:
    return int(next(iter(server.sockets)).getsockname()[1])
