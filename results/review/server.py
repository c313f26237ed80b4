"""The local server behind the review page.

No path comes from outside: runs are named by number, episodes by ids that must be among the run's records. Only pages of its own
may change anything, and only requests to a name of this machine are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from results.review.content import (
    OutsideError,
    comparison_content,
    episode_content,
    is_inside,
    readable_records,
    run_content,
    version,
)
from results.review.renders import Renders
from results.run_directory import RunDirectory
from results.tags import TagError, check_review, write_review
from results.trace import TraceError
from results.video import video_path
from tasks.interface import EpisodeRecord

PAGE = Path(__file__).parent / "page"
PAGE_FILES = {
    "review.css": "text/css",
    "review.js": "text/javascript",
    "grid.js": "text/javascript",
    "player.js": "text/javascript",
    "plots.js": "text/javascript",
    "source.js": "text/javascript",
    "exported.js": "text/javascript",
}
POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
LARGEST_BODY = 64 * 1024
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]", "::1")


class ReviewServer:
    """Shows one run, or two side by side.

    Args:
        runs: run directories.
        names: what to call them.
        renders: draws missing videos.
    """

    def __init__(self, runs: Sequence[Path], names: Sequence[str], renders: Renders | None = None) -> None:
        self._runs = [RunDirectory(path.resolve()) for path in runs]
        self._names = list(names)
        self._renders = renders or Renders()
        self._records: dict[int, tuple[str, dict[str, EpisodeRecord]]] = {}

    def app(self, hosts: Sequence[str] = LOOPBACK_NAMES) -> ASGIApp:
        """The ASGI application.

        Args:
            hosts: names it answers to: a page elsewhere must not reach it under a name of its own.
        """
        routes = [
            Route("/", self._index),
            Route("/page/{name}", self._page),
            Route("/api/runs", self._count),
            Route("/api/comparison", self._comparison),
            Route("/api/runs/{run:int}", self._run),
            Route("/api/runs/{run:int}/version", self._version),
            Route("/api/runs/{run:int}/episode", self._episode),
            Route("/api/runs/{run:int}/video", self._video),
            Route("/api/runs/{run:int}/review", self._review, methods=["POST"]),
            Route("/api/runs/{run:int}/render", self._render, methods=["GET", "POST"]),
        ]
        middleware = [
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)),
            Middleware(_Headers),
            Middleware(GZipMiddleware, minimum_size=2000),
        ]
        errors: Any = {HTTPException: _said}
        return Starlette(routes=routes, middleware=middleware, lifespan=self._lifespan, exception_handlers=errors)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        work = asyncio.ensure_future(self._renders.work())
        try:
            yield
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work

    async def _index(self, request: Request) -> Response:
        return FileResponse(PAGE / "index.html", media_type="text/html")

    async def _page(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in PAGE_FILES:
            raise HTTPException(404, f"no page {name!r}")
        return FileResponse(PAGE / name, media_type=PAGE_FILES[name])

    async def _count(self, request: Request) -> Response:
        return JSONResponse({"runs": self._names})

    async def _comparison(self, request: Request) -> Response:
        if len(self._runs) < 2:
            raise HTTPException(404, "there is one run only")
        return JSONResponse(await run_in_threadpool(comparison_content, self._runs, self._names))

    async def _run(self, request: Request) -> Response:
        number = self._number(request)
        try:
            content = await run_in_threadpool(run_content, self._runs[number], self._names[number])
        except ValueError as error:
            raise HTTPException(409, str(error)) from error
        return JSONResponse(content)

    async def _version(self, request: Request) -> Response:
        return JSONResponse({"version": version(self._runs[self._number(request)])})

    async def _episode(self, request: Request) -> Response:
        number, record = await self._found(request, request.query_params.get("id"))
        try:
            return JSONResponse(await run_in_threadpool(episode_content, self._runs[number], record))
        except TraceError as error:
            raise HTTPException(410, str(error)) from error
        except OutsideError as error:
            raise HTTPException(403, str(error)) from error

    async def _video(self, request: Request) -> Response:
        number, record = await self._found(request, request.query_params.get("id"))
        policy_view = request.query_params.get("view") == "policy"
        file = self._runs[number].path / video_path(record.spec.episode_id, policy_view=policy_view)
        if not file.is_file():
            raise HTTPException(404, "this episode has no such video")
        if not is_inside(self._runs[number].path, file):
            raise HTTPException(403, "this video lies outside the run")
        return FileResponse(file, media_type="video/mp4")  # byte ranges and all

    async def _review(self, request: Request) -> Response:
        said = await _body(request)
        number, record = await self._found(request, said.get("id"))
        try:
            review = check_review(said.get("tags"), said.get("note"))
            await run_in_threadpool(write_review, self._runs[number].path, record.spec.episode_id, review)
        except TagError as error:
            raise HTTPException(422, str(error)) from error
        except OSError as error:
            raise HTTPException(507, f"the review cannot be saved: {error}") from error
        return JSONResponse({"tags": review.tags, "note": review.note})

    async def _render(self, request: Request) -> Response:
        asked = await _body(request) if request.method == "POST" else dict(request.query_params)
        number, record = await self._found(request, asked.get("id"))
        view = "policy" if asked.get("view") == "policy" else "true"
        if not record.trace:
            raise HTTPException(409, "this episode ended in an error and left nothing to see")
        if view == "policy" and not self._runs[number].manifest().cameras:
            raise HTTPException(409, "the policy of this run saw no images")
        run, episode_id = self._runs[number].path, record.spec.episode_id
        asks = request.method == "POST"
        render = self._renders.ask(run, episode_id, view) if asks else self._renders.find(run, episode_id, view)
        if render is None:
            return JSONResponse({"state": "not asked for"})
        state = {"state": render.state, "frame": render.frame, "frames": render.frames, "error": render.error}
        return JSONResponse(state)

    def _number(self, request: Request) -> int:
        number: int = request.path_params["run"]
        if not 0 <= number < len(self._runs):
            raise HTTPException(404, f"expected a run from 0 to {len(self._runs) - 1}")
        return number

    async def _found(self, request: Request, episode_id: Any) -> tuple[int, EpisodeRecord]:
        """The run's number and the record."""
        number = self._number(request)
        run, now = self._runs[number], version(self._runs[number])
        if self._records.get(number, ("",))[0] != now:
            records, _ = await run_in_threadpool(readable_records, run)
            self._records[number] = (now, {record.spec.episode_id: record for record in records})
        record = self._records[number][1].get(episode_id) if isinstance(episode_id, str) else None
        if record is None:
            raise HTTPException(404, "there is no such episode in this run")
        return number, record


async def _body(request: Request) -> dict[str, Any]:
    """A JSON object from a page of this server."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise HTTPException(415, "expected application/json")
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise HTTPException(403, "only pages of this server may change anything")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise HTTPException(413, f"expected at most {LARGEST_BODY} bytes")
    try:
        content = json.loads(body)
    except ValueError as error:
        raise HTTPException(400, f"expected JSON: {error}") from error
    if not isinstance(content, dict):
        raise HTTPException(400, "expected a JSON object")
    return content


async def _said(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


class _Headers:
    """Adds what keeps a page to itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                    (b"cache-control", b"no-cache"),
                ]
            await send(message)

        await self._app(scope, receive, with_headers)
