"""The endpoints of ``recon serve``: which path answers with what, for whom, with which headers.

What belongs here: HTTP. What does not: what is said (``health``, ``trading``, ``metrics``, ``page``: pure functions of a
snapshot), how snapshots come about (``reading``, ``keeper``), and the process (``cli.serve``).

``build_app`` gets the renderers as values::

    views = Views(
        metrics=lambda latest, now: metrics.render(latest.snapshot, policy=..., now=now),         # -> bytes
        page=lambda latest, query, now: page.render(latest.snapshot, query, now=now, ...),        # -> str
        ...)

They are pure functions, called at most once for each reading (every few seconds) and, for the page, each query; their answers
are kept as bytes until the next reading. ``snapshot`` is there when they are called: before the first reading the endpoints
say 503 themselves. ``latest.error`` is why the last reading failed, if it did (the page says so).

Only GET and HEAD are answered. No request reaches the database.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from recon_pipeline.ops.access import Access, Guard
from recon_pipeline.ops.latest import Latest

Clock: TypeAlias = Callable[[], dt.datetime]
Answer: TypeAlias = tuple[Mapping[str, Any], bool]
"""A body for JSON, and whether all is well"""

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PAGES_KEPT: Final = 64
LONGEST_VALUE: Final = 200


@dataclass(frozen=True)
class Views:
    """What the endpoints say. Each is a pure function of a reading (whose snapshot is there) and the instant."""

    health: Callable[[Latest, dt.datetime], Answer]
    """/internal/health; also asked before the first reading, with a snapshot of None"""
    trading: Callable[[Latest, dt.datetime], Mapping[str, Any]]
    metrics: Callable[[Latest, dt.datetime], bytes]
    page: Callable[[Latest, Mapping[str, str], dt.datetime], str]
    """The mapping is the query: of a name that is there twice the last, values cut at 200 characters"""
    page_parameters: tuple[str, ...] = ("profile", "status")
    """names of the query that make a difference to the page; all others are ignored, and never reach it"""


@dataclass
class _Said:
    """What was said of one reading."""

    latest: Latest
    health_second: int = -1
    health: Response | None = None
    trading: Response | None = None
    metrics: Response | None = None
    pages: OrderedDict[tuple[str, ...], Response] = field(default_factory=OrderedDict)


class Endpoints:
    """The handlers, and the answers that they keep until the next reading."""

    def __init__(self, latest: Callable[[], Latest], views: Views, clock: Clock) -> None:
        self._latest = latest
        self._views = views
        self._clock = clock
        self._said = _Said(latest())
        self._rendering = asyncio.Lock()

    async def health(self, _: Request) -> Response:
        """Say whether all is well; with time alone it may stop being so, hence once a second."""
        said, now = self._current(), self._clock()
        second = int(now.timestamp())
        if said.health is None or said.health_second != second:
            body, well = self._views.health(said.latest, now)
            said.health = _json(body, HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE)
            said.health_second = second
        return said.health

    async def trading(self, _: Request) -> Response:
        """Say whether trading runs."""
        said = self._current()
        if said.latest.snapshot is None:
            return _nothing_read(said.latest)
        if said.trading is None:
            said.trading = _json(self._views.trading(said.latest, self._clock()), HTTPStatus.OK)
        return said.trading

    async def metrics(self, _: Request) -> Response:
        """Say it to Prometheus."""
        said = self._current()
        if said.latest.snapshot is None:
            return _nothing_read(said.latest)
        if said.metrics is None:
            async with self._rendering:
                if said.metrics is None:
                    text = await run_in_threadpool(self._views.metrics, said.latest, self._clock())
                    said.metrics = Response(text, media_type=None, headers={"content-type": METRICS_TYPE})
        return said.metrics

    async def page(self, request: Request) -> Response:
        """Show it to people."""
        said = self._current()
        if said.latest.snapshot is None:
            return _nothing_read(said.latest)
        given = dict(parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True))
        query = {name: given[name][:LONGEST_VALUE] for name in self._views.page_parameters if given.get(name)}
        key = tuple(query.get(name, "") for name in self._views.page_parameters)
        if key not in said.pages:
            async with self._rendering:
                if key not in said.pages:
                    text = await run_in_threadpool(self._views.page, said.latest, query, self._clock())
                    said.pages[key] = Response(
                        text.encode("utf-8", "replace"), headers={"content-type": "text/html; charset=utf-8"}
                    )
                    while len(said.pages) > PAGES_KEPT:
                        said.pages.popitem(last=False)
        return said.pages[key]

    def _current(self) -> _Said:
        latest = self._latest()
        if latest is not self._said.latest:
            self._said = _Said(latest)
        return self._said


def build_app(
    latest: Callable[[], Latest],
    *,
    views: Views,
    access: Access,
    clock: Clock = lambda: dt.datetime.now(dt.UTC),
) -> Starlette:
    """Return the ASGI app over ``latest`` (``Keeper.latest``, or in a test ``lambda: Latest(snapshot)``)."""
    endpoints = Endpoints(latest, views, clock)
    app = Starlette(
        routes=[
            Route("/internal/health", endpoints.health, methods=["GET"]),
            Route("/internal/trading/status", endpoints.trading, methods=["GET"]),
            Route("/metrics", endpoints.metrics, methods=["GET"]),
            Route("/", endpoints.page, methods=["GET"]),
        ],
        middleware=[Middleware(Guard, access=access)],
        exception_handlers={HTTPException: _refusal},
    )
    app.router.redirect_slashes = False
    return app


def _json(body: Mapping[str, Any], status: HTTPStatus) -> Response:
    text = json.dumps(body, default=str, allow_nan=False, separators=(",", ":"))
    return Response(text, status, headers={"content-type": "application/json"})


def _nothing_read(latest: Latest) -> Response:
    why = f"the database can't be read: {latest.error}" if latest.error else "the first reading is under way"
    return PlainTextResponse(f"Nothing to show yet: {why}\n", HTTPStatus.SERVICE_UNAVAILABLE, {"retry-after": "5"})


def _refusal(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.BAD_REQUEST
    headers = error.headers if isinstance(error, HTTPException) else None
    return PlainTextResponse(f"{HTTPStatus(status).phrase}\n", status, headers)
