"""Orders as alpaca-py places, reads, replaces and cancels them."""

from datetime import timedelta
from decimal import Decimal

import pytest
from alpaca.common.exceptions import APIError
from alpaca.trading.enums import OrderSide, OrderStatus, QueryOrderStatus, TimeInForce
from alpaca.trading.requests import (
    GetOrdersRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    ReplaceOrderRequest,
    StopLimitOrderRequest,
    StopOrderRequest,
)

from recon_pipeline.sandbox.exchange import HistoricFill, HistoricOrder
from recon_pipeline_tests.sandbox.exchange.conftest import NOON

ORDER_KEYS = {
    "asset_class",
    "asset_id",
    "canceled_at",
    "client_order_id",
    "created_at",
    "expired_at",
    "expires_at",
    "extended_hours",
    "failed_at",
    "filled_at",
    "filled_avg_price",
    "filled_qty",
    "hwm",
    "id",
    "legs",
    "limit_price",
    "notional",
    "order_class",
    "order_type",
    "position_intent",
    "qty",
    "replaced_at",
    "replaced_by",
    "replaces",
    "side",
    "source",
    "status",
    "stop_price",
    "submitted_at",
    "subtag",
    "symbol",
    "time_in_force",
    "trail_percent",
    "trail_price",
    "type",
    "updated_at",
}


def code(error: pytest.ExceptionInfo[APIError]) -> tuple[int, int]:
    return error.value.status_code, error.value.code


def test_a_market_order_is_answered_as_pending_and_read_as_filled(client, raw):
    placed = client.submit_order(
        MarketOrderRequest(
            symbol="AAPL", qty=2, side=OrderSide.BUY, time_in_force=TimeInForce.DAY, client_order_id="c1"
        )
    )
    assert placed.status is OrderStatus.PENDING_NEW
    read = raw.get("/orders:by_client_order_id", {"client_order_id": "c1"})
    assert read["id"] == str(placed.id)
    assert (read["status"], read["qty"], read["filled_qty"], read["filled_avg_price"]) == ("filled", "2", "2", "271.5")
    assert set(read) == ORDER_KEYS
    assert read["created_at"] == "2026-10-08T16:00:00Z"
    assert read["submitted_at"] == "2026-10-08T16:00:00.006277503Z"
    assert read["filled_at"] == "2026-10-08T16:00:00.009777914Z"
    assert read["expires_at"] == "2026-10-08T20:00:00Z"
    assert read["order_class"] == ""
    assert read["order_type"] == read["type"] == "market"


def test_submitted_at_of_the_answer_is_not_the_one_read_later(place, raw):
    placed = place()
    assert placed["submitted_at"] == placed["created_at"]
    assert raw.get_order_by_id(placed["id"])["submitted_at"] == "2026-10-08T16:00:00.006277503Z"


def test_a_limit_order_rests_until_the_price_comes_to_it(sim, client):
    order = client.submit_order(
        LimitOrderRequest(symbol="AAPL", qty=3, side=OrderSide.BUY, time_in_force=TimeInForce.GTC, limit_price=250)
    )
    assert client.get_order_by_id(order.id).status is OrderStatus.NEW
    sim.book.set_price("AAPL", "249.5")
    filled = client.get_order_by_id(order.id)
    assert (filled.status, filled.filled_avg_price) == (OrderStatus.FILLED, "249.5")


def test_a_stop_order_sells_once_the_price_falls_to_it(sim, client):
    client.submit_order(MarketOrderRequest(symbol="AAPL", qty=1, side=OrderSide.BUY, time_in_force=TimeInForce.DAY))
    stop = client.submit_order(
        StopOrderRequest(symbol="AAPL", qty=1, side=OrderSide.SELL, time_in_force=TimeInForce.GTC, stop_price=260)
    )
    sim.book.set_price("AAPL", "265")
    assert client.get_order_by_id(stop.id).status is OrderStatus.NEW
    sim.book.set_price("AAPL", "259")
    assert client.get_order_by_id(stop.id).filled_avg_price == "259"


def test_a_stop_limit_order_that_was_set_off_waits_for_its_limit(sim, client):
    order = client.submit_order(
        StopLimitOrderRequest(
            symbol="AAPL", qty=1, side=OrderSide.BUY, time_in_force=TimeInForce.GTC, stop_price=280, limit_price=281
        )
    )
    sim.book.set_price("AAPL", "285")
    assert client.get_order_by_id(order.id).status is OrderStatus.NEW
    sim.book.set_price("AAPL", "279")  # below the stop again: it has been set off, and the limit holds
    assert client.get_order_by_id(order.id).filled_avg_price == "279"


def test_a_notional_order_has_no_quantity_and_fills_nine_places(place, raw):
    order = raw.get_order_by_id(place(qty=None, notional="100")["id"])
    assert order["qty"] is None
    assert order["notional"] == "100"
    assert order["filled_qty"] == "0.368324125"  # 100 / 271.5, cut
    assert order["status"] == "filled"


def test_parts_fill_over_time_and_the_last_takes_the_rest(sim, place, raw):
    sim.book.set_liquidity("AAPL", 3, 60)
    order_id = place(qty="10")["id"]
    seen = [raw.get_order_by_id(order_id)]
    for _ in range(2):
        sim.book.advance(61)
        seen.append(raw.get_order_by_id(order_id))
    assert [(order["status"], order["filled_qty"]) for order in seen] == [
        ("partially_filled", "3"),
        ("partially_filled", "6"),
        ("filled", "10"),
    ]
    fills = raw.get("/account/activities/FILL", {"order_id": order_id, "direction": "asc"})
    assert [(fill["type"], fill["qty"], fill["cum_qty"], fill["leaves_qty"]) for fill in fills] == [
        ("partial_fill", "3", "3", "7"),
        ("partial_fill", "3", "6", "4"),
        ("fill", "4", "10", "0"),
    ]


def test_ioc_keeps_what_it_got_and_cancels_the_rest(sim, place, raw):
    sim.book.set_liquidity("AAPL", 2, 60)
    order = raw.get_order_by_id(place(qty="4", time_in_force="ioc")["id"])
    assert (order["status"], order["filled_qty"]) == ("canceled", "2")


def test_fok_that_cannot_trade_is_canceled_untouched(place, raw):
    order = raw.get_order_by_id(place(type="limit", limit_price="1", time_in_force="fok")["id"])
    assert (order["status"], order["filled_qty"]) == ("canceled", "0")


def test_a_canceled_order_keeps_what_was_filled(sim, place, client, raw):
    order_id = place(type="limit", limit_price="250", qty="5")["id"]
    sim.book.fill(order_id, "2", price="249.99")
    client.cancel_order_by_id(order_id)
    order = raw.get_order_by_id(order_id)
    assert (order["status"], order["filled_qty"], order["filled_avg_price"]) == ("canceled", "2", "249.99")
    assert order["canceled_at"] == "2026-10-08T16:00:00Z"


def test_cancel_answers_204_and_refuses_a_second_time(http, place):
    order_id = place(type="limit", limit_price="250")["id"]
    first, second = http("DELETE", f"/v2/orders/{order_id}"), http("DELETE", f"/v2/orders/{order_id}")
    assert (first.status_code, first.content) == (204, b"")
    assert second.status_code == 422
    assert second.json() == {"code": 42210000, "message": 'order is already in "canceled" state'}


def test_cancel_all_answers_207_with_one_status_per_open_order(http, place):
    ids = {place(type="limit", limit_price="250")["id"] for _ in range(3)}
    place()
    answer = http("DELETE", "/v2/orders")
    assert answer.status_code == 207
    assert {row["id"]: row["status"] for row in answer.json()} == dict.fromkeys(ids, 200)
    assert http("DELETE", "/v2/orders").json() == []


def test_a_replacement_is_a_new_order_in_a_chain(sim, client, raw, place):
    first = place(type="limit", limit_price="250", qty="5", client_order_id="chain")["id"]
    sim.book.fill(first, "1", price="250")
    second = str(client.replace_order_by_id(first, ReplaceOrderRequest(limit_price=251, qty=6)).id)
    third = str(client.replace_order_by_id(second, ReplaceOrderRequest(limit_price=272)).id)
    one, two, three = (raw.get_order_by_id(order_id) for order_id in (first, second, third))
    assert [order["status"] for order in (one, two, three)] == ["replaced", "replaced", "filled"]
    assert (one["replaced_by"], two["replaces"], two["replaced_by"], three["replaces"]) == (
        second,
        first,
        third,
        second,
    )
    assert one["filled_qty"] == "1"
    assert one["replaced_at"] is not None
    assert (three["qty"], three["limit_price"], three["filled_qty"]) == ("6", "272", "6")
    assert len({one["client_order_id"], two["client_order_id"], three["client_order_id"]}) == 3


def test_an_order_that_is_over_cannot_be_replaced(client, place):
    order_id = place()["id"]
    with pytest.raises(APIError) as refused:
        client.replace_order_by_id(order_id, ReplaceOrderRequest(qty=2))
    assert code(refused) == (422, 42210000)


def test_a_day_order_expires_at_the_close_and_gtc_after_ninety_days(sim, place, raw):
    day = place(type="limit", limit_price="1")["id"]
    gtc = place(type="limit", limit_price="1", time_in_force="gtc")["id"]
    sim.book.advance(4 * 3600)
    assert raw.get_order_by_id(day)["status"] == "expired"
    assert raw.get_order_by_id(day)["expired_at"] == "2026-10-08T20:00:00Z"
    assert raw.get_order_by_id(gtc)["status"] == "new"
    sim.book.advance(timedelta(days=91))
    assert raw.get_order_by_id(gtc)["status"] == "expired"


def test_with_market_hours_an_equity_order_waits_for_the_open(sim, place, raw):
    sim.book.desk.rules.market_hours = True
    sim.book.advance(6 * 3600)
    order_id = place()["id"]
    assert raw.get_order_by_id(order_id)["status"] == "accepted"
    sim.book.advance(16 * 3600)
    order = raw.get_order_by_id(order_id)
    assert order["status"] == "filled"
    assert order["created_at"].startswith("2026-10-08T22:00:00")
    assert order["submitted_at"].startswith("2026-10-09T14:00:00")


@pytest.mark.parametrize(
    ("body", "status", "number", "message"),
    [
        ({"symbol": None}, 422, 40010001, "symbol is required"),
        ({"qty": None}, 422, 40010001, "qty or notional is required"),
        ({"notional": "5"}, 422, 40010001, "only one of qty or notional is accepted"),
        ({"qty": "-1"}, 422, 40010001, "qty must be > 0"),
        ({"qty": "NaN"}, 422, 40010001, "invalid qty: 'NaN'"),
        ({"side": "hold"}, 422, 40010001, "invalid side: hold"),
        ({"type": "limit"}, 422, 40010001, "limit orders require limit price"),
        ({"type": "stop"}, 422, 40010001, "stop orders require stop price"),
        ({"limit_price": "5"}, 422, 40010001, "market orders require no limit price"),
        ({"client_order_id": "x" * 129}, 422, 40010001, "client_order_id must be no more than 128 characters"),
        ({"symbol": "NOPE"}, 422, 42210000, 'asset "NOPE" not found'),
        ({"symbol": "BTC/USD"}, 422, 42210000, "invalid crypto time_in_force"),
        ({"qty": "0.5", "time_in_force": "gtc"}, 422, 42210000, "fractional orders must be DAY orders"),
        ({"qty": "0.5", "symbol": "BRK.A"}, 403, 40310000, 'asset "BRK.A" is not fractionable'),
        ({"qty": "5000"}, 403, 40310000, "insufficient buying power"),
        (
            {"symbol": "ETH/USD", "side": "sell", "time_in_force": "gtc"},
            403,
            40310000,
            "insufficient balance for ETH (requested: 1, available: 0)",
        ),
        ({"side": "sell", "qty": "0.5"}, 422, 42210000, "fractional orders cannot be sold short"),
        ({"order_class": "bracket"}, 422, 42210000, "order_class bracket is not simulated"),
    ],
)
def test_a_wrong_order_is_refused_with_alpacas_code(http, body, status, number, message):
    given = {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day", **body}
    answer = http("POST", "/v2/orders", json={name: value for name, value in given.items() if value is not None})
    assert (answer.status_code, answer.json()["code"], answer.json()["message"]) == (status, number, message)
    assert http("GET", "/v2/orders?status=all").json() == []


def test_a_client_order_id_is_unique_for_ever(client, place):
    client.cancel_order_by_id(place(type="limit", limit_price="1", client_order_id="once")["id"])
    with pytest.raises(APIError) as refused:
        place(client_order_id="once")
    assert code(refused) == (422, 40010001)
    assert refused.value.message == "client_order_id must be unique"


def test_selling_more_than_is_free_names_the_orders_in_the_way(http, place):
    place(qty="3")
    resting = place(side="sell", qty="2", type="limit", limit_price="400")["id"]
    answer = http(
        "POST",
        "/v2/orders",
        json={"symbol": "AAPL", "qty": "2", "side": "sell", "type": "market", "time_in_force": "day"},
    )
    assert answer.status_code == 403
    assert answer.json() == {
        "available": "1",
        "code": 40310000,
        "existing_qty": "3",
        "held_for_orders": "2",
        "message": "insufficient qty available for order (requested: 2, available: 1)",
        "related_orders": [resting],
        "symbol": "AAPL",
    }


def test_an_unknown_order_is_404_with_its_id(client, http):
    missing = "61e69015-8549-4bfd-b9c3-01e75843f47d"
    with pytest.raises(APIError) as unknown:
        client.get_order_by_id(missing)
    assert code(unknown) == (404, 40410000)
    assert unknown.value.message == f"order not found for {missing}"
    assert http("GET", "/v2/orders:by_client_order_id?client_order_id=nobody").json()["code"] == 40410000


def test_a_body_that_is_not_json_is_refused(http):
    answer = http("POST", "/v2/orders", data="{not json")
    assert (answer.status_code, answer.json()["code"]) == (400, 40010000)


def test_the_list_filters_by_status_side_symbol_class_and_time(sim, raw, client):
    told = [
        HistoricOrder("AAPL", "buy", Decimal(1), NOON - timedelta(days=3), (_fill(1, 3),), client_order_id="old"),
        HistoricOrder("AAPL", "sell", Decimal(2), NOON - timedelta(days=2), client_order_id="open-sell"),
        HistoricOrder("BTC/USD", "buy", Decimal(1), NOON - timedelta(days=1), (_fill(1, 1),), client_order_id="coin"),
        HistoricOrder(
            "MSFT", "buy", Decimal(5), NOON - timedelta(hours=1), status="canceled", client_order_id="canceled"
        ),
    ]
    sim.book.inject("PA1", told)

    def ids(**query):
        return [order["client_order_id"] for order in raw.get("/orders", query)]

    assert ids() == ["open-sell"]
    assert ids(status="closed") == ["canceled", "coin", "old"]
    assert ids(status="all", direction="asc") == ["old", "open-sell", "coin", "canceled"]
    assert ids(status="all", side="buy", direction="asc") == ["old", "coin", "canceled"]
    assert ids(status="all", symbols="BTCUSD,MSFT") == ["canceled", "coin"]
    assert ids(status="all", symbols="BTC/USD") == ["coin"]
    assert ids(status="all", asset_class="crypto") == ["coin"]
    assert ids(status="all", limit=2) == ["canceled", "coin"]
    assert ids(status="all", after="2026-10-06T16:00:00Z", direction="asc") == ["coin", "canceled"]  # exclusive
    assert ids(status="all", until="2026-10-06T16:00:00Z") == ["old"]
    assert ids(status="all", after="2026-10-07") == ["canceled", "coin"]
    found = client.get_orders(
        GetOrdersRequest(status=QueryOrderStatus.ALL, after=NOON - timedelta(days=2), symbols=["BTC/USD"], nested=True)
    )
    assert [order.client_order_id for order in found] == ["coin"]


def _fill(qty: int, days_ago: int) -> HistoricFill:
    return HistoricFill(Decimal(qty), Decimal(100), NOON - timedelta(days=days_ago))


@pytest.mark.parametrize(
    "query",
    [
        "limit=501",
        "limit=0",
        "limit=many",
        "status=nearly",
        "direction=up",
        "after=yesterday",
        "before_order_id=a&after_order_id=b",
        "after_order_id=a&after=2026-01-01",
    ],
)
def test_a_wrong_list_query_is_refused(http, query):
    answer = http("GET", f"/v2/orders?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, 40010001)


def test_subtag_and_source_come_back_only_if_they_were_sent(raw, place):
    tagged, plain = place(subtag="desk-7")["id"], place()["id"]
    assert raw.get_order_by_id(tagged)["subtag"] == "desk-7"
    assert raw.get_order_by_id(plain)["subtag"] is None
