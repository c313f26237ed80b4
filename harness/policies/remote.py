"""A policy behind a websocket: any server that speaks openpi's protocol, openpi's own and `vla-serve` among them.

One connection per episode in flight, because the protocol takes turns strictly; to plain servers a fresh one for every
episode. A connection that breaks is made again with back-off, and the observation sent once more: a server is expected to answer
from the observation alone, as openpi's do, or to know episodes by their names, as `vla-serve` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus, InvalidURI, WebSocketException
from websockets.protocol import State

from harness.policies.ensemble_wire import ensemble_from_plain
from harness.policies.openpi_wire import (
    ACTIONS_KEY,
    CLIENT_KEY,
    EPISODE_KEY,
    EXTENSION_KEY,
    IMAGE_CONVENTION,
    IMAGE_KEYS,
    PROMPT_KEY,
    STATE_KEY,
    STEP_KEY,
    WireError,
    pack,
    plain,
    resized,
    unpack,
)
from harness.rollout.batcher import ExplainedPolicyError
from tasks.interface import (
    CAMERAS,
    PADDING_ID,
    ActionChunk,
    ActionError,
    EpisodeSpec,
    Observation,
    OpenLoopSpec,
    PolicyNeeds,
)

OPENPI_REPLAN_STEPS = 5
"""Actions of a chunk that openpi's LIBERO example executes before it asks again (examples/libero/main.py)."""
CALLS_AT_ONCE = 16
"""Observations sent in parallel at most."""
FIRST_CONTACT_S = 10.0
MAX_LOST_REPLIES = 5
HTTP_SERVER_ERRORS = 500
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 10.0
MAX_REPLY_BYTES = 64 * 2**20

Result = TypeVar("Result")


class PolicyServerError(ExplainedPolicyError):
    """The server cannot be reached, failed, or sent something else than actions."""


class PolicyServerAddressError(ValueError):
    """There is no policy server at the address."""


class RemotePolicy:
    """Asks a policy server. `tasks.interface.Policy`.

    Args:
        address: ws://HOST:PORT.
        timeout_s: longest wait for a reply, and for a server that went away to come back.

    Raises:
        PolicyServerAddressError: no policy server answers there.
    """

    def __init__(self, address: str, *, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._client = secrets.token_hex(8)
        self._connections: dict[str, ClientConnection] = {}
        self._spare: list[ClientConnection] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="policy-server", daemon=True)
        self._thread.start()
        try:
            first, self.metadata = self._wait_for(self._first_contact())
            self._spare.append(first)
            extension = self.metadata.get(EXTENSION_KEY)
            self._extended = isinstance(extension, dict)
            self.needs = _needs(extension if isinstance(extension, dict) else {})
            self.dtype = str(self.metadata.get("dtype", "decided by the server"))
        except BaseException:
            self.close()
            raise

    # --- the policy --------------------------------------------------------------------------------

    def start(self, specs: Sequence[EpisodeSpec]) -> None:
        """`vla-serve` learns of an episode, and of its repetition, from step 0; others from a new connection."""
        if not self._extended:
            self.finish([spec.episode_id for spec in specs])

    def finish(self, episode_ids: Sequence[str]) -> None:
        """`vla-serve` learns of an end from the next episode on the connection; others from its closing."""
        for episode_id in episode_ids:
            connection = self._connections.pop(episode_id, None)
            if connection is not None and self._extended:
                self._spare.append(connection)
            elif connection is not None:
                self._wait_for(connection.close())

    def act(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
        """One chunk per observation, asked for in parallel; padding is not sent.

        Raises:
            PolicyServerError: see there.
        """
        real = [o for o in observations if o.episode_id != PADDING_ID]
        chunks = self._wait_for(self._ask_all(real))
        return [*chunks, *[chunks[0]] * (len(observations) - len(real))]

    def close(self) -> None:
        """Hang up."""

        async def hang_up() -> None:
            connections = (*self._connections.values(), *self._spare)
            await asyncio.gather(*(connection.close() for connection in connections), return_exceptions=True)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        if self._loop.is_running():
            with contextlib.suppress(TimeoutError):  # a server that does not say goodbye
                asyncio.run_coroutine_threadsafe(hang_up(), self._loop).result(timeout=5)
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=2)
        if not self._loop.is_running():
            self._loop.close()

    def _wait_for(self, work: Coroutine[Any, Any, Result]) -> Result:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C while a server thinks
            raise

    # --- connections -------------------------------------------------------------------------------

    async def _open(self) -> tuple[ClientConnection, dict[str, Any]]:
        """A connection and the server's metadata.

        Raises:
            ConnectionError: it cannot be made, for now.
            PolicyServerError: what answers is no policy server.
        """
        try:
            connection = await connect(
                self._address,
                compression=None,
                max_size=MAX_REPLY_BYTES,
                open_timeout=FIRST_CONTACT_S,
                close_timeout=1,
                ping_interval=None,  # openpi's server computes on its event loop and answers no ping meanwhile
                proxy=None,
            )
        except InvalidStatus as error:
            if error.response.status_code >= HTTP_SERVER_ERRORS:
                raise ConnectionError(_reason(error)) from error  # a proxy before a server that is starting
            raise PolicyServerError(f"{self._address} is no policy server: {_reason(error)}") from error
        except (OSError, InvalidMessage) as error:  # InvalidMessage: gone in the middle of the handshake
            raise ConnectionError(_reason(error)) from error
        except (InvalidURI, ValueError) as error:
            raise PolicyServerAddressError(f"--policy {self._address}: expected ws://HOST:PORT; {error}") from error
        except WebSocketException as error:
            raise PolicyServerError(f"{self._address} speaks no websocket: {_reason(error)}") from error
        try:
            return connection, await self._greeting(connection)
        except BaseException:
            await connection.close()
            raise

    async def _greeting(self, connection: ClientConnection) -> dict[str, Any]:
        """The metadata, which a server sends first."""
        try:
            return plain(unpack(_binary(await asyncio.wait_for(connection.recv(), self._timeout_s))))
        except WireError as error:
            raise PolicyServerError(
                f"{self._address} is no server of openpi's protocol: its first frame should be a metadata map; {error}"
            ) from error
        except (OSError, ConnectionClosed) as error:
            raise ConnectionError(f"it sent no metadata: {_reason(error)}") from error

    async def _first_contact(self) -> tuple[ClientConnection, dict[str, Any]]:
        parts = urlsplit(self._address)
        if not parts.hostname:
            raise PolicyServerAddressError(f"--policy {self._address}: expected ws://HOST:PORT")
        try:
            return await self._open()
        except (ConnectionError, PolicyServerError) as error:
            raise PolicyServerAddressError(
                f"no policy server at {self._address}: {error}. Start one, such as openpi's scripts/serve_policy.py or "
                "vla-serve, and check host and port."
            ) from error

    async def _connection(self, episode_id: str) -> ClientConnection:
        """The episode's connection, made (again) if need be."""
        if episode_id not in self._connections:
            self._spare = [connection for connection in self._spare if connection.state is State.OPEN]
            if self._spare:
                self._connections[episode_id] = self._spare.pop()
            else:
                connection, metadata = await self._open()
                if metadata != self.metadata:
                    await connection.close()
                    raise PolicyServerError(
                        f"{self._address} came back as another policy: its metadata was {self.metadata} and is {metadata}. "
                        "Start the first one again and repeat the command."
                    )
                self._connections[episode_id] = connection
        return self._connections[episode_id]

    # --- asking ------------------------------------------------------------------------------------

    async def _ask_all(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        return list(await asyncio.gather(*(self._ask(observation) for observation in observations)))

    async def _ask(self, observation: Observation) -> ActionChunk:
        who = f"{observation.episode_id} step {observation.step}"
        frame = await self._exchange(observation.episode_id, pack(self._request(observation)), who)
        if isinstance(frame, str):
            raise PolicyServerError(f"{self._address} failed on {who}; it says:\n{frame}")
        try:
            reply = unpack(frame)
            if ACTIONS_KEY not in reply:
                raise WireError(
                    f"expected a map with {ACTIONS_KEY!r}, got {', '.join(map(str, reply)) or 'an empty one'}"
                )
            return ActionChunk(actions=np.asarray(reply[ACTIONS_KEY], dtype=np.float64))
        except (WireError, ActionError, TypeError, ValueError) as error:
            raise PolicyServerError(f"{self._address} answered {who} with no actions: {error}") from error

    def _request(self, observation: Observation) -> dict[str, Any]:
        request: dict[str, Any] = {
            STATE_KEY: observation.proprio,
            PROMPT_KEY: observation.instruction,
        }
        for camera, image in zip(self.needs.cameras, observation.images, strict=True):
            request[IMAGE_KEYS[camera]] = np.ascontiguousarray(image) if self._extended else resized(image)
        if self._extended:
            request |= {CLIENT_KEY: self._client, EPISODE_KEY: observation.episode_id, STEP_KEY: observation.step}
        return request

    async def _exchange(self, episode_id: str, request: bytes, who: str) -> str | bytes:
        """Send and receive, over as many connections as it takes."""
        gone_since = 0.0
        lost_replies, pause_s = 0, FIRST_PAUSE_S
        while True:
            try:
                connection = await self._connection(episode_id)
                gone_since = 0.0
                return await asyncio.wait_for(_in_turn(connection, request), self._timeout_s)
            except ConnectionClosed as error:
                lost_replies += 1
                reason = _reason(error)
            except TimeoutError:
                self._connections.pop(episode_id)  # its reply may still come, and would be taken for another's
                raise PolicyServerError(
                    f"{self._address} gave no answer to {who} within {self._timeout_s:g} s (--server-timeout-s)"
                ) from None
            except ConnectionError as error:
                gone_since = gone_since or time.monotonic()
                reason = _reason(error)
            self._connections.pop(episode_id, None)
            if lost_replies >= MAX_LOST_REPLIES:
                raise PolicyServerError(
                    f"{self._address} broke the connection {lost_replies} times instead of answering {who}: {reason}"
                )
            if gone_since and time.monotonic() + pause_s - gone_since > self._timeout_s:
                raise PolicyServerError(
                    f"{self._address} is gone and did not come back within {self._timeout_s:g} s (--server-timeout-s), "
                    f"at {who}: {reason}. Start it and repeat the command."
                )
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def _in_turn(connection: ClientConnection, request: bytes) -> str | bytes:
    await connection.send(request)
    return await connection.recv()


def _needs(extension: dict[str, Any]) -> PolicyNeeds:
    """What to give a server: what `vla-serve` says, or what openpi's LIBERO example does."""
    ensemble = extension.get("ensemble")
    return PolicyNeeds(
        cameras=tuple(extension.get("cameras", CAMERAS)),
        image_convention=extension.get("image_convention", IMAGE_CONVENTION),
        batch_size=CALLS_AT_ONCE,
        ensemble=ensemble_from_plain(ensemble) if ensemble else OpenLoopSpec(execute_steps=OPENPI_REPLAN_STEPS),
        min_image_px=extension.get("min_image_px", 1),
    )


def _binary(frame: str | bytes) -> bytes:
    if isinstance(frame, str):
        raise WireError(f"got text: {frame[:500]}")
    return frame


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
