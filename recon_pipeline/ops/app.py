"""The endpoints of ``recon serve``: which path answers with what, for whom, with which headers.

What belongs here: HTTP. What does not: what is said (``health``, ``trading``, ``metrics``, ``page``: pure functions of a
snapshot), how snapshots come about (``reading``, ``keeper``), and the process (``cli.serve``).

``build_app`` gets the renderers as values (``views.standard_views``). They are pure functions, called at most once for each
reading (every few seconds) and, for the page, each query; their answers are kept as bytes until the next reading.

Only GET and HEAD are answered. No request reaches the database. What trading status and metrics say is taken for the truth by
programs, so neither is said of a reading that is too old; the page says how old it is.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from recon_pipeline.ops.access import CONTENT_POLICY, Access, Guard
from recon_pipeline.ops.latest import Latest
from recon_pipeline.ops.snapshot import Snapshot

Clock: TypeAlias = Callable[[], dt.datetime]
Answer: TypeAlias = tuple[Mapping[str, Any], bool]
"""A body for JSON, and whether all is well"""

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PAGE_TYPE: Final = "text/html; charset=utf-8"
RENDERED_KEPT: Final = 256
"""pages that are kept of a reading, so many filters can be asked for by turns; the one not asked for longest goes first"""
GIVEN_FOR: Final = dt.timedelta(seconds=10)
"""An answer rendered of an earlier reading is given, while that of the newest is on its way, as long as its reading is not older:
the one before the newest, as a rule. Nobody may have asked for hours, and then none is young enough."""
LONGEST_VALUE: Final = 200


@dataclass(frozen=True)
class Views:
    """What the endpoints say. Each is a pure function of a reading and the instant."""

    health: Callable[[Latest, dt.datetime], Answer]
    """/internal/health; also asked before the first reading"""
    trading: Callable[[Snapshot, dt.datetime], Mapping[str, Any]]
    """/internal/trading/status; under ``profiles`` a mapping of profile to what is said of it alone"""
    metrics: Callable[[Latest, dt.datetime], bytes]
    """/metrics; the snapshot is there"""
    page: Callable[[Latest, Mapping[str, str], dt.datetime], str]
    """/; also asked before the first reading. The mapping is the query: of a name that is there twice the last, values cut at
    200 characters, only the names below"""
    page_parameters: tuple[str, ...] = ("profile", "status")
    """names of the query that make a difference to the page; all others never reach it"""
    page_policy: str = CONTENT_POLICY
    """its Content-Security-Policy"""
    max_age: dt.timedelta = dt.timedelta(seconds=60)
    """an older reading is not told to programs"""


Key: TypeAlias = tuple[str, ...]


@dataclass
class _Said:
    """What was said of one reading."""

    latest: Latest
    before: Mapping[Key, Response] = field(default_factory=dict)
    """what was rendered of an earlier reading"""
    before_taken_at: dt.datetime | None = None
    """when that was read"""
    rendered: OrderedDict[Key, Response] = field(default_factory=OrderedDict)
    under_way: dict[Key, asyncio.Task[Response]] = field(default_factory=dict)
    health_second: int = -1
    health: Response | None = None
    trading: Response | None = None
    trading_of: dict[str, Response] = field(default_factory=dict)


class Endpoints:
    """The handlers, and the answers that they keep until the next reading.

    Rendering takes milliseconds and runs in one thread beside the event loop. Right after a new reading those who ask for what
    was rendered of the one before get that until the new one is rendered (``GIVEN_FOR``).
    """

    def __init__(self, latest: Callable[[], Latest], views: Views, clock: Clock) -> None:
        self._latest = latest
        self._views = views
        self._clock = clock
        self._said = _Said(latest())
        self._renderer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rendering")

    async def health(self, _: Request) -> Response:
        """Say whether all is well; with time alone it may stop being so, hence once a second."""
        said, now = self._current(), self._clock()
        second = int(now.timestamp())
        if said.health is None or said.health_second != second:
            body, well = self._views.health(said.latest, now)
            said.health = _json(body, HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE)
            said.health_second = second
        return said.health

    async def trading(self, request: Request) -> Response:
        """Say whether trading runs, or with ``?profile=`` whether it does for one profile."""
        said, now = self._current(), self._clock()
        snapshot = said.latest.snapshot
        if snapshot is None or now - snapshot.taken_at > self._views.max_age:
            return _nothing_fresh(said.latest)
        if said.trading is None:
            body = self._views.trading(snapshot, now)
            said.trading = _json(body)
            said.trading_of = {profile: _json(each) for profile, each in body["profiles"].items()}
        profile = _query(request).get("profile")
        if profile is None:
            return said.trading
        return said.trading_of.get(profile) or _plain("No such profile", HTTPStatus.NOT_FOUND)

    async def metrics(self, _: Request) -> Response:
        """Say it to Prometheus."""
        said, now = self._current(), self._clock()
        snapshot = said.latest.snapshot
        if snapshot is None or now - snapshot.taken_at > self._views.max_age:
            return _nothing_fresh(said.latest)

        def render() -> Response:
            return Response(self._views.metrics(said.latest, now), headers={"content-type": METRICS_TYPE})

        return await self._rendered(said, ("metrics",), render, now)

    async def page(self, request: Request) -> Response:
        """Show it to people, also how old it is."""
        said, now, given = self._current(), self._clock(), _query(request)
        query = {name: given[name][:LONGEST_VALUE] for name in self._views.page_parameters if given.get(name)}

        def render() -> Response:
            text = self._views.page(said.latest, query, now).encode("utf-8", "replace")
            status = HTTPStatus.OK if said.latest.snapshot is not None else HTTPStatus.SERVICE_UNAVAILABLE
            return Response(
                text, status, {"content-type": PAGE_TYPE, "content-security-policy": self._views.page_policy}
            )

        key = ("page", *(query.get(name, "") for name in self._views.page_parameters))
        return await self._rendered(said, key, render, now)

    async def _rendered(self, said: _Said, key: Key, render: Callable[[], Response], now: dt.datetime) -> Response:
        found = said.rendered.get(key)
        if found is not None:
            said.rendered.move_to_end(key)
            return found
        task = said.under_way.get(key)
        if task is None:
            task = said.under_way[key] = asyncio.create_task(self._render(said, key, render))
        if key in said.before and said.before_taken_at is not None and now - said.before_taken_at < GIVEN_FOR:
            return said.before[key]
        return await asyncio.shield(task)

    async def _render(self, said: _Said, key: Key, render: Callable[[], Response]) -> Response:
        try:
            response = await asyncio.get_running_loop().run_in_executor(self._renderer, render)
        finally:
            del said.under_way[key]
        said.rendered[key] = response
        if len(said.rendered) > RENDERED_KEPT:
            said.rendered.popitem(last=False)
        return response

    def _current(self) -> _Said:
        latest = self._latest()
        if latest is not self._said.latest:
            before = self._said.latest.snapshot
            taken_at = None if before is None else before.taken_at
            self._said = _Said(latest, self._said.rendered, taken_at)
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


def _query(request: Request) -> dict[str, str]:
    text = request.scope["query_string"].decode("latin-1")
    return dict(parse_qsl(text, keep_blank_values=True, errors="replace"))


def _json(body: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Response:
    text = json.dumps(body, allow_nan=False, separators=(",", ":"))
    return Response(text, status, headers={"content-type": "application/json"})


def _plain(text: str, status: HTTPStatus, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{text}\n", status, headers)


def _nothing_fresh(latest: Latest) -> Response:
    if latest.error:
        why = f"the database can't be read: {latest.error}"
    elif latest.snapshot is None:
        why = "the first reading is under way"
    else:
        why = f"the last reading began at {latest.snapshot.taken_at:%Y-%m-%d %H:%M:%S} UTC"
    return _plain(f"Nothing fresh to tell: {why}", HTTPStatus.SERVICE_UNAVAILABLE, {"retry-after": "5"})


def _refusal(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise TypeError(f"{type(error).__name__} is no refusal")
    return _plain(HTTPStatus(error.status_code).phrase, HTTPStatus(error.status_code), error.headers)
