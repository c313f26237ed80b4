"""Which episodes a policy may hold state for, on whose behalf, and what it answered last."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.policies.openpi_wire import WireError
from tasks.interface import ActionChunk, Observation

MOST_EPISODES = 1024
"""Beyond this many, the one that was silent longest is finished."""


@dataclass(slots=True)
class LiveEpisode:
    """One episode of one client, from its step 0 to the next or to its end."""

    client: str
    session: int
    """The connection it is in."""
    step: int = -1
    reply: asyncio.Future[ActionChunk] | None = field(default=None)
    """To the observation of `step`; a client whose connection broke before it came asks again and gets this one."""


class LiveEpisodes:
    """The episodes in progress, by id, and the clients they belong to."""

    def __init__(self) -> None:
        self._episodes: OrderedDict[str, LiveEpisode] = OrderedDict()
        self._connections: dict[str, dict[int, Callable[[], bool]]] = {}

    def connected(self, client: str, session: int, is_open: Callable[[], bool]) -> None:
        """A client opened a connection; `is_open` says whether it still is."""
        self._connections.setdefault(client, {})[session] = is_open

    def disconnected(self, client: str, session: int) -> None:
        """A client's connection is over."""
        sessions = self._connections.get(client, {})
        sessions.pop(session, None)
        if not sessions:
            self._connections.pop(client, None)

    def is_connected(self, client: str) -> bool:
        """Whether the client has an open connection."""
        return any(is_open() for is_open in self._connections.get(client, {}).values())

    def enter(self, client: str, session: int, observation: Observation) -> tuple[LiveEpisode, list[str]]:
        """Find an observation's episode; step 0 begins it, or begins it again.

        Returns:
            The episode, and ids that must be finished to make room. A new episode has no reply yet.

        Raises:
            WireError: another client is in the middle of an episode of this id, or this one's beginning was not seen.
        """
        known = self._episodes.get(observation.episode_id)
        if known is not None and known.client != client and self.is_connected(known.client):
            raise WireError(
                f"another client is in the middle of {observation.episode_id}; a policy tells episodes apart by their ids. "
                "Start another vla-serve for another evaluation. If the other has just died, repeat the command in a minute."
            )
        if observation.step == 0:
            if known is not None and known.reply is not None:
                known.reply.cancel()  # if it still waits: of an attempt that is over
            self._episodes[observation.episode_id] = known = LiveEpisode(client=client, session=session)
        elif known is None or known.client != client:
            raise WireError(
                f"this server has not seen the beginning of {observation.episode_id}, only its step {observation.step}; "
                "was it restarted? Repeat the evaluation's command: finished episodes are kept, this one begins anew."
            )
        known.session = session
        self._episodes.move_to_end(observation.episode_id)
        crowded_out = []
        while len(self._episodes) > MOST_EPISODES:
            crowded_out.append(self._episodes.popitem(last=False)[0])
        return known, crowded_out

    def is_current(self, episode_id: str, episode: LiveEpisode) -> bool:
        """Whether `episode` has not been begun again, or ended, in the meantime."""
        return self._episodes.get(episode_id) is episode

    def leave(self, client: str, session: int, episode_id: str) -> list[str]:
        """A connection went on to another episode: the ids to finish; none if this one went on elsewhere."""
        known = self._episodes.get(episode_id)
        if known is None or (known.client, known.session) != (client, session):
            return []
        del self._episodes[episode_id]
        return [episode_id]

    def leave_all(self, client: str) -> list[str]:
        """A client is gone for good: the ids to finish."""
        ids = [episode_id for episode_id, episode in self._episodes.items() if episode.client == client]
        for episode_id in ids:
            del self._episodes[episode_id]
        return ids
