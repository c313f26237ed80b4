"""Videos that somebody asks for while looking: rendered one after another in a process of their own."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

COMMAND = (sys.executable, "-W", "ignore", "-m", "harness.sim.render_episode")
SIZE_PX = 256
"""Height and width of each camera's picture."""
LAST_WORDS = 2000
"""Characters of a failure's message that are kept."""


@dataclass(slots=True)
class Render:
    """One that was asked for."""

    run: Path
    episode_id: str
    view: str
    state: str = "waiting"
    """waiting, rendering, done or failed."""
    frame: int = 0
    frames: int = 0
    error: str = ""


class Renders:
    """A queue of one process at a time.

    Args:
        command: what renders: is given run, episode id, view and size, and prints `FRAME of FRAMES`.
    """

    def __init__(self, command: tuple[str, ...] = COMMAND) -> None:
        self._command = command
        self._asked: dict[tuple[Path, str, str], Render] = {}
        self._queue: asyncio.Queue[Render] = asyncio.Queue()
        self._process: asyncio.subprocess.Process | None = None

    def ask(self, run: Path, episode_id: str, view: str) -> Render:
        """Ask for a video; one that is waiting or being drawn is not asked for twice."""
        key = (run, episode_id, view)
        found = self._asked.get(key)
        if found is None or found.state in ("done", "failed"):
            found = self._asked[key] = Render(run, episode_id, view)
            self._queue.put_nowait(found)
        return found

    def find(self, run: Path, episode_id: str, view: str) -> Render | None:
        """What became of one that was asked for."""
        return self._asked.get((run, episode_id, view))

    async def work(self) -> None:
        """Render what is asked for, until cancelled."""
        try:
            while True:
                render = await self._queue.get()
                render.state = "rendering"
                try:
                    await self._render(render)
                except OSError as error:
                    render.state, render.error = "failed", str(error)
        finally:
            if self._process is not None and self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()

    async def _render(self, render: Render) -> None:
        pipe = asyncio.subprocess.PIPE
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command, str(render.run), render.episode_id, render.view, str(SIZE_PX), stdout=pipe, stderr=pipe
        )
        assert process.stdout is not None
        assert process.stderr is not None
        errors = asyncio.ensure_future(process.stderr.read())
        async for line in process.stdout:
            if said := re.fullmatch(r"(\d+) of (\d+)", line.decode(errors="replace").strip()):
                render.frame, render.frames = int(said[1]), int(said[2])
        status, text = await process.wait(), (await errors).decode(errors="replace").strip()
        render.state = "done" if status == 0 else "failed"
        render.error = "" if status == 0 else text[-LAST_WORDS:] or f"ended with exit status {status}"
