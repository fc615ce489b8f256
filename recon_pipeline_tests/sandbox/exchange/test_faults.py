"""Faults on demand, as a client meets them."""

import time
from datetime import timedelta
from decimal import Decimal

import pytest
import requests
from alpaca.common.exceptions import APIError

from recon_pipeline.sandbox.exchange import Fault, FaultKind, HistoricFill, HistoricOrder
from recon_pipeline_tests.sandbox.exchange.conftest import NOON

MARKET = {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day"}


@pytest.fixture
def history(sim):
    """Ten filled orders, one a minute."""
    times = [NOON - timedelta(hours=1) + timedelta(minutes=n) for n in range(10)]
    told = [HistoricOrder("AAPL", "buy", Decimal(1), at, (HistoricFill(Decimal(1), Decimal(100), at),)) for at in times]
    return [order.id for order in sim.book.inject("PA1", told)]


def fills(http, **query):
    rows = http("GET", "/v2/account/activities/FILL", params={"direction": "asc", **query}).json()
    return rows, [row["order_id"] for row in rows]


def test_errors_strike_as_often_as_they_are_told_and_only_where(sim, http):
    fault = sim.faults.add(Fault(FaultKind.ERROR, path="/v2/orders*", method="GET", status=503, count=2, skip=1))
    answers = [http("GET", "/v2/orders").status_code for _ in range(4)]
    assert answers == [200, 503, 503, 200]
    assert http("GET", "/v2/account").status_code == 200
    assert fault.struck == 2


def test_a_fault_can_be_for_one_account_only(sim, http):
    other = sim.book.add_account("PA2")
    sim.faults.add(Fault(FaultKind.ERROR, account="PA2", status=500))
    keys = {"APCA-API-KEY-ID": other.keys.key_id, "APCA-API-SECRET-KEY": other.keys.secret_key}
    assert http("GET", "/v2/account").status_code == 200
    answer = requests.get(f"{sim.url}/v2/account", headers=keys, timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (500, 50000000)


def test_probability_is_repeatable(sim, http):
    def run():
        sim.faults.clear()
        sim.faults.add(Fault(FaultKind.ERROR, probability=0.5, seed=3))
        return [http("GET", "/v2/clock").status_code for _ in range(12)]

    first = run()
    assert first == run()
    assert set(first) == {200, 500}


@pytest.mark.parametrize("headers", [True, False])
def test_429_comes_with_and_without_rate_headers(sim, http, headers):
    sim.faults.add(Fault(FaultKind.RATE_LIMITED, headers=headers, count=1))
    answer = http("GET", "/v2/orders")
    assert (answer.status_code, answer.json()["code"]) == (429, 42910000)
    assert ("X-Ratelimit-Reset" in answer.headers) is headers


def test_an_html_page_is_no_json(sim, client):
    sim.faults.add(Fault(FaultKind.HTML, status=502, count=1))
    with pytest.raises(APIError) as failed:
        client.get_account()
    assert failed.value.status_code == 502
    assert "<h1>502</h1>" in str(failed.value)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FaultKind.DROP, requests.exceptions.ConnectionError),
        (FaultKind.DROP_MID_BODY, requests.exceptions.ChunkedEncodingError),
    ],
)
def test_a_dropped_connection_is_no_answer(sim, raw, history, kind, error):
    sim.faults.add(Fault(kind, count=1))
    with pytest.raises(error):
        raw.get("/orders", {"status": "all"})
    assert len(raw.get("/orders", {"status": "all"})) == len(history)


def test_a_drop_after_the_effect_leaves_the_order_placed(sim, raw):
    sim.faults.add(Fault(FaultKind.DROP, method="POST", after=True, count=1))
    with pytest.raises(requests.exceptions.ConnectionError):
        raw.post("/orders", {**MARKET, "client_order_id": "lost-answer"})
    assert raw.get("/orders:by_client_order_id", {"client_order_id": "lost-answer"})["status"] == "filled"


def test_a_504_makes_alpaca_py_place_the_order_twice(sim, raw):
    raw._retry_wait = 0
    sim.faults.add(Fault(FaultKind.ERROR, method="POST", status=504, after=True, count=1))
    raw.post("/orders", MARKET)
    assert raw.get_open_position("AAPL")["qty"] == "2"


def test_latency_and_timeouts_keep_the_client_waiting(sim, http):
    sim.faults.add(Fault(FaultKind.LATENCY, seconds=0.3, count=1))
    started = time.monotonic()
    assert http("GET", "/v2/clock").status_code == 200
    assert time.monotonic() - started >= 0.3
    sim.faults.add(Fault(FaultKind.TIMEOUT, seconds=30, count=1))
    with pytest.raises(requests.exceptions.ReadTimeout):
        http("GET", "/v2/clock", timeout=0.3)
    assert http("GET", "/v2/clock").status_code == 200


def test_a_truncated_page_is_short_although_there_is_more(sim, http, history):
    sim.faults.add(Fault(FaultKind.TRUNCATE, path="/v2/account/activities*", keep=3, count=1))
    rows, ids = fills(http, page_size=5)
    assert ids == history[:3]
    assert fills(http, page_size=5, page_token=rows[-1]["id"])[1] == history[3:8]


def test_pages_can_repeat_what_the_page_before_had_and_still_lose_nothing(sim, http, history):
    sim.faults.add(Fault(FaultKind.DUPLICATE, path="/v2/account/activities*", keep=2, skip=1))
    rows, ids = fills(http, page_size=5)
    pages = [ids]
    while len(rows) >= 5:
        rows, ids = fills(http, page_size=5, page_token=rows[-1]["id"])
        pages.append(ids)
    assert pages[1][:2] == history[3:5]
    walked = [order_id for page in pages for order_id in page]
    assert len(walked) > len(history)
    assert list(dict.fromkeys(walked)) == history


def test_a_busy_account_trades_between_two_pages(sim, http, history):
    sim.faults.add(Fault(FaultKind.BUSY, path="/v2/account/activities*", skip=1, count=1, symbol="F", qty=Decimal(2)))
    rows, first = fills(http, page_size=5)
    _, second = fills(http, page_size=100, page_token=rows[-1]["id"])
    assert first + second[:5] == history
    assert len(second) == 6
    assert http("GET", "/v2/positions/F").json()["qty"] == "2"


def test_a_stale_reading_is_the_state_of_some_time_ago(sim, http, raw):
    order_id = raw.post("/orders", {**MARKET, "type": "limit", "limit_price": "250", "qty": "4"})["id"]
    sim.book.advance(60)
    sim.book.fill(order_id, "1")
    sim.book.advance(60)
    sim.book.fill(order_id, "3")
    sim.book.advance(30)

    def seen(seconds):
        sim.faults.clear()
        sim.faults.add(Fault(FaultKind.STALE, seconds=seconds))
        order = http("GET", f"/v2/orders/{order_id}")
        positions = http("GET", "/v2/positions").json()
        return (
            order.json().get("status"),
            order.json().get("filled_qty"),
            [position["qty"] for position in positions],
            len(fills(http)[1]),
            len(http("GET", "/v2/orders?status=open").json()),
        )

    assert seen(0) == ("filled", "4", ["4"], 2, 0)
    assert seen(60) == ("partially_filled", "1", ["1"], 1, 1)
    assert seen(120) == ("new", "0", [], 0, 1)
    assert seen(3600) == (None, None, [], 0, 0)


def test_bodies_can_be_null_empty_or_full_of_nulls(sim, http, history):
    kinds = [FaultKind.NULL_BODY, FaultKind.EMPTY_BODY, FaultKind.EMPTY_LIST]
    for kind in kinds:
        sim.faults.add(Fault(kind, path="/v2/positions", count=1, skip=kinds.index(kind)))
    assert [http("GET", "/v2/positions").content for _ in kinds] == [b"null", b"", b"[]"]
    sim.faults.add(Fault(FaultKind.NULL_FIELDS, path="/v2/positions", fields=("qty", "side"), count=1))
    (position,) = http("GET", "/v2/positions").json()
    assert (position["symbol"], position["qty"], position["side"]) == ("AAPL", None, None)


def test_faults_are_commanded_over_http_too(sim, http):
    told = requests.post(f"{sim.url}/sim/faults", json={"kind": "error", "status": 503, "count": 1}, timeout=5)
    assert told.json()["kind"] == "error"
    assert [http("GET", "/v2/clock").status_code for _ in range(2)] == [503, 200]
    assert requests.get(f"{sim.url}/sim/faults", timeout=5).json()[0]["struck"] == 1
    assert requests.delete(f"{sim.url}/sim/faults", timeout=5).json() == []
    assert sim.faults.all() == []
    assert requests.post(f"{sim.url}/sim/faults", json={"kind": "gremlin"}, timeout=5).status_code == 422
