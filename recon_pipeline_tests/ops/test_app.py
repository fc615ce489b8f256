"""The endpoints as ASGI: what is answered with which status and headers, and how often anything is rendered."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import ASGIApp

from recon_pipeline.ops.access import Access
from recon_pipeline.ops.app import RENDERED_KEPT, Views, build_app
from recon_pipeline.ops.latest import Latest
from recon_pipeline.ops.trading import trading_status
from recon_pipeline_tests.ops.snapshots import NOW, ago, snapshot

PATHS = ("/internal/health", "/internal/trading/status", "/metrics", "/")


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Service:
    """The app over a reading that a test may change, with renderers that count how often they are asked."""

    latest: Latest = field(default_factory=lambda: Latest(snapshot()))
    now: dt.datetime = NOW
    access: Access = field(default_factory=Access)
    rendered: Counter[str] = field(default_factory=Counter)
    queries: list[Mapping[str, str]] = field(default_factory=list)
    app: ASGIApp = field(init=False)

    def __post_init__(self) -> None:
        views = Views(
            health=self._health,
            trading=lambda read, _: self._count("trading") or trading_status(read),
            metrics=lambda latest, _: self._slowly("metrics") or f"reading {latest.snapshot.taken_at}\n".encode(),
            page=self._page,
            page_policy="default-src 'none'; script-src 'sha256-x'",
        )
        self.app = build_app(lambda: self.latest, views=views, access=self.access, clock=lambda: self.now)

    def _count(self, name: str) -> None:
        self.rendered[name] += 1

    def _slowly(self, name: str) -> None:
        self._count(name)
        time.sleep(0.02)

    def _health(self, latest: Latest, _: dt.datetime) -> tuple[dict[str, Any], bool]:
        self._count("health")
        return {"error": latest.error}, not latest.error

    def _page(self, latest: Latest, query: Mapping[str, str], _: dt.datetime) -> str:
        self._count("page")
        self.queries.append(query)
        return "nothing" if latest.snapshot is None else f"<p>{json.dumps(query)} {latest.error}"

    async def asked(self, path: str, query: bytes = b"", method: str = "GET", **headers: str) -> Answer:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        given = {"host": "localhost"} | headers
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query}
        scope |= {"headers": [(name.encode(), text.encode()) for name, text in given.items()], "http_version": "1.1"}
        scope |= {"scheme": "http", "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}
        await self.app(scope, receive, send)
        start = sent[0]
        told = {name.decode(): text.decode() for name, text in start["headers"]}
        return Answer(start["status"], told, b"".join(message.get("body", b"") for message in sent[1:]))

    def ask(self, path: str, query: bytes = b"", method: str = "GET", **headers: str) -> Answer:
        return asyncio.run(self.asked(path, query, method, **headers))

    def ask_at_once(self, *requests: tuple[str, bytes]) -> list[Answer]:
        async def together() -> list[Answer]:
            return await asyncio.gather(*(self.asked(path, query) for path, query in requests))

        return asyncio.run(together())


def test_each_path_answers_in_its_own_type() -> None:
    service = Service()
    types = {path: service.ask(path).headers["content-type"] for path in PATHS}
    assert types == {
        "/internal/health": "application/json",
        "/internal/trading/status": "application/json",
        "/metrics": "text/plain; version=0.0.4; charset=utf-8",
        "/": "text/html; charset=utf-8",
    }
    assert [service.ask(path).status for path in PATHS] == [200, 200, 200, 200]
    assert [service.ask(path, method="HEAD").status for path in PATHS] == [200, 200, 200, 200]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"])
def test_whatever_is_not_reading_is_not_allowed(method: str) -> None:
    for path in PATHS:
        answer = Service().ask(path, method=method)
        assert (answer.status, set(answer.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})


@pytest.mark.parametrize(
    "path", ["/x", "/metrics/", "//", "/internal", "/internal/health/../health", "/METRICS", "", "/\x00", "/%2e"]
)
def test_every_other_path_is_not_found(path: str) -> None:
    assert Service().ask(path).status == 404


def test_every_answer_forbids_framing_sniffing_and_keeping_a_refusal_too() -> None:
    service = Service(access=Access("token"))
    answers = [service.ask(path, authorization="Bearer token") for path in (*PATHS, "/nowhere")]
    answers += [service.ask("/"), service.ask("/", method="POST", authorization="Bearer token")]
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 404, 401, 405]
    for answer in answers:
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        kept = {
            name: answer.headers[name]
            for name in ("x-content-type-options", "x-frame-options", "referrer-policy", "cache-control")
        }
        assert list(kept.values()) == ["nosniff", "DENY", "no-referrer", "no-store"]
    assert answers[3].headers["content-security-policy"] == "default-src 'none'; script-src 'sha256-x'"
    assert answers[5].headers["www-authenticate"] == 'Basic realm="recon", charset="UTF-8"'


def test_what_may_not_ask_learns_nothing() -> None:
    service = Service(access=Access("token"))
    for path in (*PATHS, "/nowhere"):
        assert service.ask(path).status == 401
    assert Service().ask("/", host="evil.example").status == 421
    assert service.rendered == Counter()


def test_many_at_once_are_answered_from_one_rendering_until_the_next_reading() -> None:
    service = Service()
    answers = service.ask_at_once(
        *[(path, b"profile=p1") for path in PATHS if "trading" not in path] * 20, (PATHS[1], b"")
    )
    assert {answer.status for answer in answers} == {200}
    assert service.rendered == Counter(health=1, trading=1, metrics=1, page=1)


def test_after_a_new_reading_the_answer_before_is_given_until_the_new_one_is_rendered() -> None:
    service = Service()

    async def asking() -> None:
        first = await service.asked("/metrics")
        service.latest, service.now = Latest(snapshot(taken_at=NOW)), NOW + dt.timedelta(seconds=1)
        meanwhile = await asyncio.gather(*(service.asked("/metrics") for _ in range(20)))
        assert {answer.body for answer in meanwhile} == {first.body}
        deadline = time.monotonic() + 10
        while (now := await service.asked("/metrics")).body == first.body:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
        assert now.body == b"reading 2026-11-20 12:00:00+00:00\n"
        assert service.rendered["metrics"] == 2

    asyncio.run(asking())


@pytest.mark.parametrize("path", ["/metrics", "/"])
def test_who_asks_after_readings_that_nobody_asked_for_gets_the_newest(path: str) -> None:
    service = Service()
    first = service.ask(path)
    for seconds in (5, 10, 15):
        at = NOW + dt.timedelta(seconds=seconds)
        service.latest, service.now = Latest(snapshot(taken_at=at), f"at {seconds}"), at
    newest = service.ask(path).body
    assert newest != first.body
    assert newest == (b"<p>{} at 15" if path == "/" else b"reading 2026-11-20 12:00:15+00:00\n")


def test_a_rendering_that_failed_is_tried_again() -> None:
    service = Service()
    service.latest = Latest(None, "down", NOW)
    fails = iter([True, False])
    views = Views(
        health=service._health,
        trading=lambda read, _: trading_status(read),
        metrics=lambda *_: b"",
        page=lambda *_: 1 / 0 if next(fails) else "well",
    )
    service.app = build_app(lambda: service.latest, views=views, access=Access())
    with pytest.raises(ZeroDivisionError):
        service.ask("/")
    assert service.ask("/").body == b"well"


def test_health_is_judged_again_when_a_second_has_passed() -> None:
    service = Service()
    for second in (0.0, 0.4, 1.1, 1.9, 5.0):
        service.now = NOW + dt.timedelta(seconds=second)
        service.ask("/internal/health")
    assert service.rendered["health"] == 3


def test_an_unhealthy_answer_is_503_and_says_why() -> None:
    service = Service(latest=Latest(snapshot(), "refused", NOW))
    answer = service.ask("/internal/health")
    assert (answer.status, json.loads(answer.body)) == (503, {"error": "refused"})


def test_programs_are_told_nothing_of_a_reading_that_is_too_old_and_people_are() -> None:
    service = Service(
        latest=Latest(snapshot(taken_at=ago(seconds=60)), "server closed the connection", ago(seconds=50))
    )
    assert [service.ask(path).status for path in PATHS] == [503, 200, 200, 200]
    service.now = NOW + dt.timedelta(seconds=1)
    answers = {path: service.ask(path) for path in PATHS}
    assert {path: answer.status for path, answer in answers.items()} == dict(
        zip(PATHS, [503, 503, 503, 200], strict=True)
    )
    assert (
        answers["/metrics"].body == b"Nothing fresh to tell: the database can't be read: server closed the connection\n"
    )
    assert b"server closed the connection" in answers["/"].body


def test_before_the_first_reading_everything_is_unavailable_and_the_page_says_so() -> None:
    service = Service(latest=Latest())
    answers = {path: service.ask(path) for path in PATHS}
    assert answers["/internal/trading/status"].body == b"Nothing fresh to tell: the first reading is under way\n"
    assert (answers["/metrics"].status, answers["/metrics"].headers["retry-after"]) == (503, "5")
    assert (answers["/"].status, answers["/"].body) == (503, b"nothing")


def test_a_profile_asks_for_its_own_trading_state() -> None:
    pause = {"scope": "p2", "state": "PAUSED", "source": "ops", "since": ago(hours=1), "reason": "why"}
    service = Service(latest=Latest(snapshot(trading=(pause,))))
    own = json.loads(service.ask("/internal/trading/status", b"profile=p2").body)
    assert (own["state"], own["since"], own["scope"]) == ("PAUSED", "2026-11-20T11:00:00.000Z", "p2")
    assert json.loads(service.ask("/internal/trading/status", b"profile=p1").body)["state"] == "RUNNING"
    assert service.ask("/internal/trading/status", b"profile=p9").status == 404
    assert service.ask("/internal/trading/status", b"profile=").status == 404


def test_the_page_gets_only_the_parameters_it_knows_the_last_of_each_and_not_too_long() -> None:
    service = Service()
    service.ask("/", b"profile=a&status=&status=new&x=1&profile=b%20c&__proto__=2")
    service.ask("/", b"profile=" + b"z" * 5_000)
    service.ask("/", b"profile=%ff%fe%00&&=&;status")
    assert service.queries == [
        {"status": "new", "profile": "b c"},
        {"profile": "z" * 200},
        {"profile": "\ufffd\ufffd\0"},
    ]


def test_strangers_queries_do_not_fill_the_memory_and_the_ones_in_use_stay() -> None:
    service = Service()
    for number in range(3 * RENDERED_KEPT):
        service.ask("/", f"profile=p{number}".encode())
        service.ask("/")
    assert service.rendered["page"] == 3 * RENDERED_KEPT + 1
    service.ask("/", b"profile=p0")
    assert service.rendered["page"] == 3 * RENDERED_KEPT + 2
