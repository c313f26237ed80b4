"""One thread that alone touches the policy, and answers what waits in batches."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from harness.rollout.batcher import Batcher
from tasks.interface import ActionChunk, EpisodeSpec, Observation, Policy


class Inference:
    """Runs a policy off the event loop.

    The thread is a daemon: a policy that hangs does not keep the process from ending.

    Args:
        policy: what to run.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._batcher = Batcher(policy)
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = queue.SimpleQueue()
        self._waiting: list[tuple[Observation, asyncio.Future[ActionChunk]]] = []
        self._busy = False
        threading.Thread(target=self._work, name="inference", daemon=True).start()

    async def start(self, spec: EpisodeSpec) -> None:
        """`Policy.start` for one episode."""
        await self._call(lambda: self._policy.start([spec]))

    def finish_soon(self, episode_ids: Sequence[str]) -> None:
        """`Policy.finish`, if there is anything to finish, before anything that is asked later."""
        if episode_ids:
            self._put(lambda: self._policy.finish(episode_ids)).add_done_callback(_seen)

    def ask(self, observation: Observation) -> asyncio.Future[ActionChunk]:
        """The chunk for an observation, when it is there. Whatever waits when the thread gets free is one batch.

        A batch that fails fails for all in it: asking again would advance a policy that keeps state.
        """
        reply: asyncio.Future[ActionChunk] = asyncio.get_running_loop().create_future()
        self._waiting.append((observation, reply))
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().create_task(self._answer())
        return reply

    async def _answer(self) -> None:
        try:
            while self._waiting:
                wanted = [(observation, reply) for observation, reply in self._waiting if not reply.done()]
                size = self._policy.needs.batch_size
                batch, self._waiting = wanted[:size], wanted[size:]
                if batch:
                    await self._answer_batch(batch)
        finally:
            self._busy = False

    async def _answer_batch(self, batch: Sequence[tuple[Observation, asyncio.Future[ActionChunk]]]) -> None:
        try:
            chunks = await self._call(lambda: self._batcher.act([observation for observation, _ in batch]))
        except Exception as error:
            for _, reply in batch:
                if not reply.done():
                    reply.set_exception(error)
                    reply.exception()  # seen: its client may be gone
            return
        for (_, reply), chunk in zip(batch, chunks, strict=True):
            if not reply.done():
                reply.set_result(chunk)

    async def _call(self, work: Callable[[], Any]) -> Any:
        return await self._put(work)

    def _put(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls.put((work, done))
        return done

    def _work(self) -> None:
        while True:
            work, done = self._calls.get()
            try:
                result, error = work(), None
            except BaseException as raised:  # a policy that exits must not leave its clients waiting
                result = None
                error = raised if isinstance(raised, Exception) else RuntimeError(f"the policy raised {raised!r}")
            try:
                done.get_loop().call_soon_threadsafe(_settle, done, result, error)
            except RuntimeError:
                return  # the loop is closed: the server stopped


def _seen(done: asyncio.Future[Any]) -> None:
    """A `finish` that raises has nobody to tell but the log."""
    if not done.cancelled() and done.exception() is not None:
        logging.getLogger(__name__).error("the policy's finish raised", exc_info=done.exception())


def _settle(done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if done.done():
        return  # cancelled
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
