"""`recon serve` over real sockets: what it answers, that no request breaks it, that it never writes, how it starts and ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
import requests
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from recon_pipeline.ledger.database import connect
from recon_pipeline_tests.ops.served import BOOK, Serving, ready, start, stop
from recon_pipeline_tests.postgres import TestServer

PATHS = ("/internal/health", "/internal/trading/status", "/metrics", "/")
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
NAMES = [
    *(
        b"Host",
        b"Authorization",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Connection",
        b"Expect",
        b"Upgrade",
        b"Range",
    ),
    *(
        b"Accept-Encoding",
        b"Cookie",
        b"X-Forwarded-For",
        b"X-Http-Method-Override",
        b"If-None-Match",
        b"Sec-WebSocket-Key",
    ),
]
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "BREW")


@pytest.fixture(scope="module")
def serving(postgres: TestServer) -> Iterator[Serving]:
    """One process for the tests of a module, without a token."""
    url = postgres.new_database(migrated=True)
    with connect(url) as connection:
        connection.execute(BOOK.encode())
    running = start(url)
    running.before = contents(url)
    ready(running)
    yield running
    status, logged = stop(running)
    postgres.drop(url)
    assert (status, logged) == (0, "")


def contents(database_url: str) -> dict[str, list[str]]:
    """Every row of every table of the bots and of the pipeline, as text."""
    with connect(database_url) as connection:
        tables = connection.execute(
            b"SELECT schemaname || '.' || tablename AS name FROM pg_tables WHERE schemaname IN ('public', 'recon')"
        ).fetchall()
        return {
            row["name"]: [
                found["row"]
                for found in connection.execute(f"SELECT t::text AS row FROM {row['name']} AS t ORDER BY 1")
            ]
            for row in tables
        }


def test_everything_is_answered_from_the_database(serving: Serving) -> None:
    health = serving.get("/internal/health")
    assert (health.status_code, health.json()["status"]) == (200, "ok"), health.text
    assert (health.json()["reconciliationMismatchCount"], health.json()["reconciliationNoGoTrades"]) == (4, 2)
    trading = serving.get("/internal/trading/status").json()
    assert (trading["state"], trading["profiles"]["p1"]["state"], trading["profiles"]["p1"]["source"]) == (
        "RUNNING",
        "PAUSED",
        "ops",
    )
    metrics = serving.get("/metrics")
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert re.search(r"^# TYPE \S+ gauge$", metrics.text, re.MULTILINE)
    page = serving.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "o-40" in page.text
    assert "<script>alert" not in page.text
    assert "<b>&" not in page.text


def test_head_answers_like_get_without_a_body(serving: Serving) -> None:
    for path in PATHS:
        raw = serving.send(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head, _, body = raw.partition(b"\r\n\r\n")
        assert (head.split()[1], body) == (b"200", b"")
        assert int(head.lower().partition(b"content-length:")[2].split()[0]) > 50


def test_what_happens_in_the_database_shows_within_seconds(serving: Serving) -> None:
    with connect(serving.database_url) as connection:
        connection.execute(
            b"INSERT INTO recon.batches (batch_id, profile_id, kind, state) VALUES ('b', 'p1', 'k', 'PENDING_APPLY')"
        )
        deadline = time.monotonic() + 10
        while serving.get("/internal/health").json()["batchesPending"] != 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        connection.execute(b"DELETE FROM recon.batches")


tokens = st.text("abcXYZ019-_", min_size=1, max_size=12).map(str.encode)
encoded = st.binary(max_size=30).map(lambda raw: b"".join(b"%%%02x" % byte for byte in raw))
values = st.one_of(
    encoded, tokens, st.sampled_from([b"p1", b"%3Cb%3E", b"pending_new", b"%00", b"%ed%a0%80", b"-1", b"1", b"9" * 400])
)
fields = st.sampled_from([b"profile", b"status", b"live", b"all", b"limit", b"", b"%00", b"__class__"])
queries = st.lists(st.builds(lambda name, value: name + b"=" + value, fields, values), max_size=4).map(b"&".join)
targets = st.one_of(
    st.builds(lambda path, query: path.encode() + b"?" + query, st.sampled_from(PATHS), queries),
    st.builds(lambda path, query: b"/" + path + b"?" + query, st.one_of(encoded, tokens), queries),
    st.sampled_from(
        [
            b"*",
            b"//",
            b"/" * 9_000,
            b"/?" + b"a=b&" * 9_000,
            b"http://localhost/metrics",
            b"/..%2f..%2f",
            b"/%",
            b"/%zz",
        ]
    ),
    st.sampled_from(
        [
            b"/\xff\xfe?\xff",
            b"localhost:80",
            b"/internal/health#x",
            b"/?#",
            b"/?profile=a%",
            "/\u2028?status=ä".encode(),
        ]
    ),
)
extra_headers = st.one_of(
    st.builds(lambda name, value: name + b": " + value, tokens, st.one_of(tokens, encoded)),
    st.builds(
        lambda name, value: name + b": " + value,
        st.sampled_from(NAMES),
        st.one_of(
            tokens,
            st.sampled_from(
                [b"", b"-1", b"chunked", b"close", b"websocket", b"Basic Og==", b"bytes=9-1", b"x" * 20_000]
            ),
        ),
    ),
)


@st.composite
def requests_of_people_and_robots(draw: st.DrawFn) -> bytes:
    """Requests that the server can parse, mostly."""
    method = draw(st.one_of(st.just("GET"), st.just("GET"), st.sampled_from(METHODS))).encode()
    lines = [b"Host: localhost", *draw(st.lists(extra_headers, max_size=2))]
    body = draw(st.one_of(st.just(b""), st.binary(max_size=100)))
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([method + b" " + draw(targets) + b" HTTP/1.1", *lines, b"Connection: close", b"", body])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Such a request with some bytes replaced, or cut short, or no request at all."""
    whole = draw(st.one_of(requests_of_people_and_robots(), st.binary(min_size=1, max_size=200)))
    at = draw(st.integers(0, len(whole)))
    return whole[:at] + draw(st.binary(max_size=6)) + whole[at + draw(st.integers(0, 40)) :]


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(raw=st.one_of(requests_of_people_and_robots(), requests_of_people_and_robots(), damaged()))
@example(raw=b"GET /?profile=%ed%a0%80%00&status=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n")
@example(raw=b"GET /\xff\xfe?\xff HTTP/1.1\r\nHost: localhost\r\n\r\n")
@example(raw=b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
@example(
    raw=b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n"
)
@example(raw=b"GET /internal/trading/status?profile=%00 HTTP/1.1\r\nHost: localhost\r\n\r\n")
def test_no_request_is_answered_with_an_error_of_the_server(serving: Serving, raw: bytes) -> None:
    answer = serving.send(raw)
    statuses = [int(status) for status in STATUS.findall(answer)]
    assert all(status < 500 for status in statuses), answer[:300]
    assert answer == b"" or statuses, answer[:300]


def test_the_fuzzed_service_still_answers_and_has_written_nothing(serving: Serving) -> None:
    before = serving.before
    assert sum(map(len, before.values())) > 80
    for path in PATHS:
        for method in METHODS:
            answer = requests.request(method, serving.url + path + "?profile=p1", data=b"{}", timeout=20)
            expected = {200} if method in {"GET", "HEAD"} else {400, 405}
            assert answer.status_code in expected, (method, path)
    assert contents(serving.database_url) == before
    with connect(serving.database_url) as connection:
        [row] = connection.execute(
            b"SELECT DISTINCT usename IS NOT NULL AS there, backend_xid FROM pg_stat_activity "
            b"WHERE application_name = 'recon serve' AND datname = current_database()"
        ).fetchall()
    assert row == {"there": True, "backend_xid": None}


def test_a_slow_or_silent_caller_holds_nobody_up(serving: Serving) -> None:
    silent = [socket.create_connection(serving.address) for _ in range(50)]
    for connection in silent[:25]:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: local")
    began = time.monotonic()
    assert serving.get("/internal/health").status_code == 200
    assert time.monotonic() - began < 5
    for connection in silent:
        connection.close()


def test_a_request_is_cheap_enough_for_five_hundred_a_second_on_half_a_core(serving: Serving) -> None:
    """Work is counted, not time, so that other work on the machine does not count; `make bench-serve` measures the time."""
    process = psutil.Process(serving.process.pid)
    with requests.Session() as session:
        for path in PATHS:
            session.get(serving.url + path, timeout=20)
            before = sum(process.cpu_times()[:2])
            for _ in range(200):
                assert session.get(serving.url + path, timeout=20).status_code == 200
            assert (sum(process.cpu_times()[:2]) - before) / 200 < 0.001, path


def test_a_stranger_s_name_for_this_machine_is_refused(serving: Serving) -> None:
    assert serving.get("/metrics", Host="evil.example").status_code == 421
    assert serving.get("/metrics", Host="localhost:99").status_code == 200


def refused(database_url: str, *options: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "recon_pipeline.cli", "serve", *options],
        env={**os.environ, "RECON_DATABASE_URL": database_url, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    return done.stderr


def test_an_address_that_others_reach_is_not_served_without_a_token() -> None:
    assert refused("postgresql://x", RECON_SERVE_HOST="0.0.0.0") == (
        "Error: 0.0.0.0 can be reached from outside: set RECON_SERVE_TOKEN, or bind to 127.0.0.1\n"
    )


def test_a_port_in_use_and_a_missing_database_are_errors_that_say_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"127.0.0.1, port {port}, can't be bound" in refused("postgresql://x", "--port", port)
    assert "RECON_DATABASE_URL is not set" in refused("")


@pytest.mark.timeout(120)
def test_with_a_token_it_needs_it_and_it_outlives_its_database(postgres: TestServer) -> None:
    url = postgres.new_database(migrated=True)
    with connect(url) as connection:
        connection.execute(BOOK.encode())
    served = start(url, "--host", "0.0.0.0", RECON_SERVE_TOKEN="sesame")
    served.url = served.url.replace("0.0.0.0", "127.0.0.1")
    token = {"Authorization": "Bearer sesame"}
    ready(served, **token)
    assert [served.get(path).status_code for path in PATHS] == [401] * 4
    assert [served.get(path, **token).status_code for path in PATHS] == [200] * 4
    assert requests.get(served.url, auth=("me", "sesame"), timeout=10).status_code == 200
    postgres.drop(url)
    deadline = time.monotonic() + 20
    while served.get("/internal/health", **token).status_code != 503:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    body = served.get("/internal/health", **token).json()
    assert [reason["reason"] for reason in body["reasons"]] == ["database_unreadable"]
    assert served.get("/", **token).status_code == 200
    status, logged = stop(served, signal.SIGINT)
    assert status == 0
    assert "the database can't be read" in logged
    assert "sesame" not in logged
