"""Single requests: exact numbers, errors as types, retries that end, and no secret in any text."""

from __future__ import annotations

import ast
import inspect
import json
import traceback
from collections.abc import Callable
from decimal import Decimal

import pytest
from alpaca.trading.client import TradingClient

from recon_pipeline.exchange import gateway
from recon_pipeline.exchange.alpaca import AlpacaClient, ClientLimits
from recon_pipeline.exchange.credentials import AccountCredentials
from recon_pipeline.exchange.gateway import (
    Absent,
    ConnectionFailedError,
    CredentialsError,
    DeadlineError,
    ExchangeError,
    Found,
    NoAnswerInTimeError,
    NotFoundError,
    RateLimitedError,
    RequestError,
    ServerError,
    UnreadableAnswerError,
)
from recon_pipeline.exchange.rate_budget import RateBudget
from recon_pipeline_tests.adapters.exchange.raw_server import (
    RawServer,
    Script,
    answer,
    chunked,
    hang_up,
    raw_server,
    silence,
    trickle,
)
from recon_pipeline_tests.adapters.exchange.world import ElasticTime

SECRET, KEY = "very-secret-text", "PKVISIBLE"
FAST = ClientLimits(connect_seconds=1, read_seconds=0.3, answer_seconds=0.6, attempts=3)


def client(server: RawServer, time: ElasticTime | None = None, limits: ClientLimits = FAST) -> AlpacaClient:
    time = time or ElasticTime()
    keys = AccountCredentials("A1", KEY, SECRET, server.url)
    return AlpacaClient(keys, budget=RateBudget(timing=time.timing), limits=limits, timing=time.timing)


def body(value: object) -> bytes:
    return json.dumps(value).encode()


def test_numbers_are_exact_whether_they_are_sent_as_text_or_as_numbers() -> None:
    sent = b'[{"id":"o","qty":0.1234567890123456789,"big":123456789012345678901.5,"tiny":1e-9,"text":"0.10"}]'
    with raw_server(answer(sent)) as server, client(server) as c:
        (order,) = c.orders_page()
    assert order["qty"] == Decimal("0.1234567890123456789")
    assert order["big"] == Decimal("123456789012345678901.5")
    assert order["tiny"] == Decimal("1E-9")
    assert order["text"] == "0.10"


def test_requests_are_what_alpaca_documents() -> None:
    with raw_server(answer(b"[]")) as server, client(server) as c:
        c.orders_page(after_order_id="o-1")
        c.fills(after="2026-11-01T00:00:00Z", page_token="a::b", order_id="o-2")
        c.open_orders()
        c.positions()
    assert server.requests == [
        "GET /v2/orders?status=all&direction=asc&limit=500&nested=false&after_order_id=o-1 HTTP/1.1",
        (
            "GET /v2/account/activities/FILL?direction=asc&page_size=100&after=2026-11-01T00%3A00%3A00Z"
            "&page_token=a%3A%3Ab&order_id=o-2 HTTP/1.1"
        ),
        "GET /v2/orders?status=open&direction=asc&limit=500&nested=false HTTP/1.1",
        "GET /v2/positions HTTP/1.1",
    ]


def test_an_id_is_one_part_of_the_path_whatever_is_in_it() -> None:
    missing = answer(body({"code": 40410000, "message": "order not found for x"}), "404 Not Found")
    with raw_server(missing) as server, client(server) as c:
        assert c.order("../account?x=1") == Absent(("../account?x=1",))
        assert c.order_by_client_id("a&b=c") == Absent(("a&b=c",))
    assert server.requests == [
        "GET /v2/orders/..%2Faccount%3Fx%3D1 HTTP/1.1",
        "GET /v2/orders:by_client_order_id?client_order_id=a%26b%3Dc HTTP/1.1",
    ]


ERRORS: list[tuple[Script, type[ExchangeError], int]] = [
    (answer(body({"code": 40110000, "message": "request is not authorized"}), "401 Unauthorized"), CredentialsError, 1),
    (answer(body({"message": "forbidden."}), "403 Forbidden"), CredentialsError, 1),
    (answer(b"<html>no such page</html>", "404 Not Found"), RequestError, 1),
    (answer(body({"code": 40410001, "message": "x"}), "404 Not Found"), RequestError, 1),
    (answer(body({"code": 42210000, "message": "x"}), "422 Unprocessable Entity"), RequestError, 1),
    (answer(b"", "302 Found", "Location: http://elsewhere.invalid/"), RequestError, 1),
    (answer(b"", "408 Request Timeout"), NoAnswerInTimeError, 3),
    (answer(body({"code": 50010000, "message": "x"}), "500 Internal Server Error"), ServerError, 3),
    (answer(b"<html>", "502 Bad Gateway"), ServerError, 3),
    (answer(b"", "503 Service Unavailable"), ServerError, 3),
    (answer(b"null"), UnreadableAnswerError, 3),
    (answer(b""), UnreadableAnswerError, 3),
    (answer(b"", "204 No Content"), UnreadableAnswerError, 3),
    (answer(b"<html><body>maintenance</body></html>"), UnreadableAnswerError, 3),
    (answer(b'[{"id":"o-1"},{"id":'), UnreadableAnswerError, 3),
    (answer(b'[{"id":"o-1","qty":NaN}]'), UnreadableAnswerError, 3),
    (answer(b"[null]"), UnreadableAnswerError, 3),
    (answer(b"{}"), UnreadableAnswerError, 3),
    (answer(b'"text"'), UnreadableAnswerError, 3),
    (answer(b"17"), UnreadableAnswerError, 3),
    (answer(b'[{"qty":"1"}]'), UnreadableAnswerError, 3),
    (answer(b'[{"id":"\xff"}]'), UnreadableAnswerError, 3),
    (answer(b"[" * 100_000), UnreadableAnswerError, 3),
    (answer(b'[{"id":"o-1"}', length=500), ConnectionFailedError, 3),
    (chunked(b'[{"id":"o-1"}', end=False), ConnectionFailedError, 3),
    (hang_up, ConnectionFailedError, 3),
    (silence(1.0), NoAnswerInTimeError, 3),
    (trickle(3.0), NoAnswerInTimeError, 3),
]


@pytest.mark.parametrize(("script", "error", "calls"), ERRORS, ids=range(len(ERRORS)))
def test_every_failure_has_its_type_and_is_repeated_only_where_that_can_help(
    script: Script, error: type[ExchangeError], calls: int
) -> None:
    with raw_server(script) as server, client(server) as c:
        with pytest.raises(ExchangeError) as caught:
            c.orders_page()
        assert type(caught.value) is error
        assert caught.value.transient is (calls > 1)
        assert c.calls == calls
        assert caught.value.advice in str(caught.value)
        assert "GET /orders at 127.0.0.1" in str(caught.value) or "/v2/orders" in str(caught.value)


def test_an_answer_repeating_the_keys_is_told_without_them() -> None:
    said = body({"code": 40110000, "message": f"key {KEY} with secret {SECRET} is not known"})
    with raw_server(answer(said, "401 Unauthorized")) as server, client(server) as c:
        with pytest.raises(CredentialsError) as caught:
            c.account()
        text = str(caught.value) + repr(caught.value) + "".join(traceback.format_exception(caught.value))
        assert SECRET not in text
        assert KEY not in text
        assert "key *** with secret *** is not known" in text
        assert SECRET not in repr(c._credentials)


def test_a_failure_that_passes_is_not_seen() -> None:
    scripts = (hang_up, answer(b"null"), answer(b"", "503 x"), answer(b'[{"id":"o"}]'))
    time = ElasticTime()
    limits = ClientLimits(read_seconds=0.3, attempts=4)
    with raw_server(*scripts) as server, client(server, time, limits) as c:
        assert c.orders_page() == [{"id": "o"}]
        assert (c.calls, len(time.slept)) == (4, 3)
        assert all(0 < seconds <= limits.backoff_cap_seconds for seconds in time.slept)


def test_nobody_listening_is_a_failed_connection() -> None:
    with raw_server(hang_up) as server:
        url = server.url
    with client(RawServer(url)) as c, pytest.raises(ConnectionFailedError):
        c.positions()


def test_a_429_waits_for_the_reset_that_the_exchange_names() -> None:
    date = "Date: Tue, 03 Nov 2026 15:00:00 GMT"
    limits = ("X-Ratelimit-Limit: 200", "X-Ratelimit-Remaining: 0", "X-Ratelimit-Reset: 1793718042", date)
    refused = answer(body({"code": 42910000, "message": "rate limit exceeded"}), "429 Too Many Requests", *limits)
    time = ElasticTime()
    with raw_server(refused, answer(b"[]")) as server, client(server, time) as c:
        assert c.positions() == []
        assert c.calls == 2
        assert 42 <= sum(time.slept) < 44


def test_a_429_that_stays_ends_at_the_deadline() -> None:
    reset = ("X-Ratelimit-Remaining: 0", "X-Ratelimit-Reset: 1793718005", "Date: Tue, 03 Nov 2026 15:00:00 GMT")
    for headers, calls in (((), 1), (reset, 6)):  # without a reset the rest of our own window is waited out
        time = ElasticTime()
        refused = answer(body({"code": 42910000, "message": "rate limit exceeded"}), "429 x", *headers)
        with raw_server(refused) as server, client(server, time, ClientLimits(deadline_seconds=30)) as c:
            with pytest.raises(RateLimitedError):
                c.positions()
            assert sum(time.slept) < 30
            assert 1 <= c.calls <= calls


def test_after_the_deadline_nothing_is_sent() -> None:
    time = ElasticTime()
    with raw_server(answer(b"[]")) as server, client(server, time, ClientLimits(deadline_seconds=10)) as c:
        c.positions()
        time.sleep(11)
        with pytest.raises(DeadlineError):
            c.positions()
        assert len(server.requests) == 1


def test_a_wait_for_the_budget_that_would_pass_the_deadline_is_not_begun() -> None:
    spent = answer(b"[]", "200 OK", "X-Ratelimit-Limit: 200", "X-Ratelimit-Remaining: 3")
    time = ElasticTime()
    with raw_server(spent) as server, client(server, time, ClientLimits(deadline_seconds=10)) as c:
        c.positions()
        with pytest.raises(RateLimitedError, match="used up for another"):
            c.positions()
        assert time.slept == []
        assert c.rate_remaining == 3


def test_only_the_exchange_itself_can_say_that_an_order_is_absent() -> None:
    absent = answer(body({"code": 40410000, "message": "order not found for o-1"}), "404 Not Found")
    with raw_server(absent) as server, client(server) as c:
        assert c.order("o-1") == Absent(("o-1",))
        with pytest.raises(NotFoundError):
            c.account()
    others = (
        answer(b"<html>", "404 x"),
        answer(b'{"code":40410001}', "404 x"),
        answer(b"null"),
        answer(b"", "410 Gone"),
    )
    for script in others:
        with raw_server(script) as server, client(server) as c, pytest.raises(ExchangeError):
            c.order("o-1")


def test_another_order_than_the_one_asked_for_is_no_answer() -> None:
    with raw_server(answer(b'{"id":"o-2","client_order_id":"c-2"}')) as server, client(server) as c:
        assert isinstance(c.order("o-2"), Found)
        for ask in (lambda: c.order("o-1"), lambda: c.order_by_client_id("c-1")):
            with pytest.raises(UnreadableAnswerError, match="than the one asked for"):
                ask()


def test_nothing_but_get_is_ever_sent() -> None:
    with raw_server(answer(b"{}")) as server, client(server) as c:
        for send in (c._wire.post, c._wire.patch, c._wire.delete):
            with pytest.raises(RequestError, match="only reads"):
                send("/orders")
        assert server.requests == []


def test_alpaca_py_still_has_the_seam_that_the_client_replaces() -> None:
    source = inspect.getsource(TradingClient._request)
    assert "self._one_request(method, url, opts, retry)" in source
    assert list(inspect.signature(TradingClient._one_request).parameters) == ["self", "method", "url", "opts", "retry"]
    assert hasattr(TradingClient("k", "s"), "_session")


def test_the_tree_of_errors_in_the_docstring_is_the_tree_there_is() -> None:
    documented = [line.split("── ")[-1].split()[0] for line in (gateway.__doc__ or "").splitlines() if "──" in line]
    names = [node.name for node in ast.parse(inspect.getsource(gateway)).body if isinstance(node, ast.ClassDef)]
    tree = [name for name in names if name.endswith("Error") and name != "ExchangeError"]
    assert sorted(documented) == sorted(tree)


@pytest.mark.parametrize(
    "make",
    [
        lambda: AccountCredentials("A1", "", "s", "https://x"),
        lambda: AccountCredentials("A1", "k", "s\n", "https://x"),
        lambda: AccountCredentials("A1", "k", "s", "ftp://x"),
    ],
)
def test_keys_that_can_not_work_are_refused_at_once(make: Callable[[], AccountCredentials]) -> None:
    with pytest.raises(ValueError, match="of account 'A1'"):
        make()
