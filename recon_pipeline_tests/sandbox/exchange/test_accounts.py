"""Accounts, positions, activities, fees, keys, the request budget, assets and time."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
import requests
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.requests import ClosePositionRequest, GetCalendarRequest

from recon_pipeline.sandbox.exchange import (
    AccountSettings,
    ExchangeBook,
    HistoricFill,
    HistoricOrder,
    SimClock,
    running_exchange,
)
from recon_pipeline_tests.sandbox.exchange.conftest import KEYS, NOON

FILL_KEYS = {
    "activity_type",
    "cum_qty",
    "id",
    "leaves_qty",
    "order_id",
    "order_status",
    "price",
    "qty",
    "side",
    "symbol",
    "transaction_time",
    "type",
}
POSITION_KEYS = {
    "asset_class",
    "asset_id",
    "asset_marginable",
    "avg_entry_price",
    "change_today",
    "cost_basis",
    "current_price",
    "exchange",
    "lastday_price",
    "market_value",
    "qty",
    "qty_available",
    "side",
    "symbol",
    "unrealized_intraday_pl",
    "unrealized_intraday_plpc",
    "unrealized_pl",
    "unrealized_plpc",
}
ACCOUNT_KEYS = {
    "account_blocked",
    "account_number",
    "accrued_fees",
    "admin_configurations",
    "balance_asof",
    "buying_power",
    "cash",
    "created_at",
    "crypto_status",
    "crypto_tier",
    "currency",
    "effective_buying_power",
    "equity",
    "id",
    "initial_margin",
    "intraday_adjustments",
    "last_equity",
    "last_maintenance_margin",
    "long_market_value",
    "maintenance_margin",
    "multiplier",
    "non_marginable_buying_power",
    "options_approved_level",
    "options_buying_power",
    "options_trading_level",
    "pending_reg_taf_fees",
    "portfolio_value",
    "position_market_value",
    "regt_buying_power",
    "short_market_value",
    "shorting_enabled",
    "sma",
    "status",
    "trade_suspended_by_user",
    "trading_blocked",
    "transfers_blocked",
    "user_configurations",
}


def test_the_account_has_the_measured_keys_and_whole_cents(raw, client, place):
    place(qty="0.333333333")
    account = raw.get_account()
    assert set(account) == ACCOUNT_KEYS
    assert account["cash"] == "99909.5"  # 100000 - 0.333333333 * 271.5, in cents
    assert account["equity"] == "100000"
    assert client.get_account().status == "ACTIVE"


def test_a_crypto_fee_is_taken_from_the_coins_bought(sim, raw, place):
    order = raw.get_order_by_id(place(symbol="BTC/USD", qty="0.5", time_in_force="gtc")["id"])
    assert order["filled_qty"] == "0.5"  # gross
    assert raw.get_open_position("BTCUSD")["qty"] == "0.49875"  # net of 25 basis points
    assert raw.get("/account/activities/CFEE", {}) == []  # posted at the end of the day
    sim.book.advance(timedelta(days=1))
    (fee,) = raw.get("/account/activities/CFEE", {})
    assert (fee["symbol"], fee["qty"], fee["net_amount"], fee["date"]) == ("BTCUSD", "-0.00125", "0", "2026-10-08")
    assert fee["id"].startswith("20261008000000000::")
    assert "order_id" not in fee


def test_a_crypto_sale_pays_its_fee_in_dollars(sim, raw, place):
    place(symbol="BTC/USD", qty="0.1", time_in_force="gtc")
    place(symbol="BTC/USD", qty="0.05", side="sell", time_in_force="gtc")
    sim.book.advance(timedelta(days=1))
    fees = {fee["description"]: fee for fee in raw.get("/account/activities", {"activity_types": "CFEE"})}
    assert fees["Coin Pair Transaction Fee (USD)"]["net_amount"] == "-12.0625"
    assert raw.get_open_position("BTCUSD")["qty"] == "0.04975"


def test_crypto_has_one_name_on_orders_and_another_on_positions(raw, place):
    order = place(symbol="BTCUSD", qty="0.5", time_in_force="gtc")
    position = raw.get_open_position("BTCUSD")
    assert (order["symbol"], position["symbol"]) == ("BTC/USD", "BTCUSD")
    assert order["asset_id"] != position["asset_id"]


def test_a_position_is_found_by_its_quoted_symbol_but_an_unquoted_slash_is_no_endpoint(http, place):
    place(symbol="BTC/USD", qty="0.5", time_in_force="gtc")
    assert http("GET", "/v2/positions/BTCUSD").json()["qty"] == "0.49875"
    assert http("GET", "/v2/positions/BTC%2FUSD").json()["qty"] == "0.49875"
    answer = http("GET", "/v2/positions/BTC/USD")
    assert (answer.status_code, answer.json()) == (404, {"code": 40410000, "message": "endpoint not found"})


def test_a_flat_symbol_has_no_position(client, place):
    place()
    place(side="sell")
    with pytest.raises(APIError) as flat:
        client.get_open_position("AAPL")
    assert (flat.value.status_code, flat.value.code, flat.value.message) == (404, 40410000, "position does not exist")
    assert client.get_all_positions() == []


def test_a_short_position_is_negative_and_says_short(sim, raw, place):
    place(side="sell", qty="4")
    sim.book.set_price("AAPL", "270")
    position = raw.get_open_position("AAPL")
    assert set(position) == POSITION_KEYS
    assert (position["side"], position["qty"], position["market_value"]) == ("short", "-4", "-1080")
    assert (position["avg_entry_price"], position["unrealized_pl"]) == ("271.5", "6")


def test_shorts_can_be_spelled_unsigned(http, sim, place):
    sim.book.signed_shorts = False
    place(side="sell", qty="4")
    (position,) = http("GET", "/v2/positions").json()
    assert (position["side"], position["qty"]) == ("short", "4")


def test_closing_a_position_sells_what_is_held(raw, client, place):
    place(qty="7")
    order = client.close_position("AAPL", ClosePositionRequest(qty="3"))
    assert raw.get_order_by_id(str(order.id))["position_intent"] == "sell_to_close"
    assert raw.get_open_position("AAPL")["qty"] == "4"
    client.close_position("AAPL", ClosePositionRequest(percentage="50"))
    assert raw.get_open_position("AAPL")["qty"] == "2"
    (closed,) = client.close_all_positions(cancel_orders=True)
    assert (closed.symbol, closed.status) == ("AAPL", 200)
    assert raw.get_all_positions() == []


def test_open_sales_reduce_what_is_available(raw, place):
    place(qty="5")
    place(side="sell", qty="2", type="limit", limit_price="400")
    position = raw.get_open_position("AAPL")
    assert (position["qty"], position["qty_available"]) == ("5", "3")


def test_a_fill_activity_has_the_measured_keys_and_another_spelling_of_the_time(sim, raw):
    at = int(datetime(2026, 10, 8, 15, 10, 18, tzinfo=UTC).timestamp()) * 1_000_000_000 + 97_464_903
    fill = HistoricFill(
        Decimal("0.057436865"), Decimal("271.4"), at, execution_id="2d7be4ff-d1f3-43e9-856a-0f5cf5c5088e"
    )
    told = HistoricOrder("AAPL", "buy", Decimal("0.057436865"), at - 9_000_000, (fill,))
    order_id = sim.book.inject("PA1", told)[0].id
    (activity,) = raw.get("/account/activities/FILL", {})
    assert set(activity) == FILL_KEYS
    assert raw.get_order_by_id(order_id)["filled_at"] == "2026-10-08T15:10:18.097464903Z"
    assert activity["transaction_time"] == "2026-10-08T15:10:18.097465Z"  # rounded, not cut
    assert activity["id"] == "20261008111018097::2d7be4ff-d1f3-43e9-856a-0f5cf5c5088e"  # New York's local time
    assert (activity["qty"], activity["price"], activity["type"]) == ("0.057436865", "271.4", "fill")


def test_activities_filter_by_kind_category_order_date_and_time(sim, raw, place):
    bought = place(qty="10")["id"]
    sim.book.corporate_action("PA1", "AAPL", "10", subtype="FSPLIT")
    sim.book.advance(timedelta(days=2))
    place(side="sell", qty="1")

    def kinds(**query):
        return [row["activity_type"] for row in raw.get("/account/activities", query)]

    assert kinds() == ["FILL", "FILL", "SPLIT"]
    assert kinds(activity_types="SPLIT") == ["SPLIT"]
    assert kinds(activity_types="SPLIT,FILL", page_size=1) == ["FILL"]
    assert kinds(category="non_trade_activity") == ["SPLIT"]
    assert kinds(category="trade_activity") == ["FILL", "FILL"]
    assert kinds(date="2026-10-10") == ["FILL"]
    assert kinds(after="2026-10-09") == ["FILL"]
    assert sorted(kinds(until="2026-10-09T00:00:00Z")) == ["FILL", "SPLIT"]
    assert [row["order_id"] for row in raw.get("/account/activities/FILL", {"order_id": bought})] == [bought]


def test_after_and_until_are_exclusive_to_the_nanosecond(sim, raw):
    told = [
        HistoricOrder("AAPL", "buy", Decimal(1), NOON, (HistoricFill(Decimal(1), Decimal(100), NOON),)),
    ]
    sim.book.inject("PA1", told)
    assert raw.get("/account/activities/FILL", {"after": "2026-10-08T16:00:00Z"}) == []
    assert raw.get("/account/activities/FILL", {"until": "2026-10-08T16:00:00Z"}) == []
    assert len(raw.get("/account/activities/FILL", {"after": "2026-10-08T15:59:59.999999999Z"})) == 1


@pytest.mark.parametrize("query", ["page_size=101", "page_token=nothing", "category=x", "after=x", "direction=x"])
def test_a_wrong_activity_query_is_refused(http, query):
    answer = http("GET", f"/v2/account/activities?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, 40010001)


def test_an_activity_can_be_posted_late(sim, raw):
    fill = HistoricFill(Decimal(1), Decimal(100), NOON - timedelta(days=1), posted_at=NOON + timedelta(hours=1))
    (order,) = sim.book.inject("PA1", HistoricOrder("AAPL", "buy", Decimal(1), NOON - timedelta(days=1), (fill,)))
    assert raw.get_order_by_id(order.id)["filled_qty"] == "1"
    assert raw.get("/account/activities/FILL", {}) == []
    sim.book.advance(3601)
    assert [row["qty"] for row in raw.get("/account/activities/FILL", {})] == ["1"]


def test_a_corporate_action_changes_the_position_without_an_order(sim, raw, place):
    place(qty="10")
    sim.book.corporate_action("PA1", "AAPL", "10", subtype="FSPLIT")
    position = raw.get_open_position("AAPL")
    assert (position["qty"], position["cost_basis"], position["avg_entry_price"]) == ("20", "2715", "135.75")
    assert len(raw.get("/orders", {"status": "all"})) == 1


def test_keys_are_checked(sim):
    def answer(headers):
        return requests.get(f"{sim.url}/v2/account", headers=headers, timeout=5)

    assert (answer({}).status_code, answer({}).json()) == (
        401,
        {"code": 40110000, "message": "request is not authorized"},
    )
    wrong = answer({**KEYS, "APCA-API-SECRET-KEY": "guess"})
    assert (wrong.status_code, wrong.json()) == (403, {"message": "forbidden."})
    assert answer({"APCA-API-KEY-ID": "PKNONE", "APCA-API-SECRET-KEY": "x"}).status_code == 403
    sim.book.account("PA1").settings.revoked = True
    assert answer(KEYS).status_code == 401


def test_accounts_do_not_see_each_other(sim, raw, place):
    other = sim.book.add_account("PA2")
    order_id = place(client_order_id="mine")["id"]
    stranger = TradingClient(other.keys.key_id, other.keys.secret_key, url_override=sim.url, raw_data=True)
    assert stranger.get("/orders", {"status": "all"}) == []
    assert stranger.get_all_positions() == []
    with pytest.raises(APIError):
        stranger.get_order_by_id(order_id)
    taken = {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day"}
    assert stranger.post("/orders", {**taken, "client_order_id": "mine"})["client_order_id"] == "mine"


def test_the_request_budget_is_told_and_then_refused():
    book = ExchangeBook(clock=SimClock(NOON))
    book.add_account("PA1", key_id="PKTEST", secret_key="test-secret", settings=AccountSettings(requests_per_minute=3))
    with running_exchange(book=book) as sim:
        answers = [requests.get(f"{sim.url}/v2/clock", headers=KEYS, timeout=5) for _ in range(4)]
    assert [answer.headers["X-Ratelimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert {answer.headers["X-Ratelimit-Limit"] for answer in answers} == {"3"}
    reset = int(answers[0].headers["X-Ratelimit-Reset"])
    assert 0 < reset - datetime.now(UTC).timestamp() <= 61
    assert answers[3].status_code == 429
    assert answers[3].json() == {"code": 42910000, "message": "rate limit exceeded"}


def test_the_request_budget_comes_back():
    book = ExchangeBook()
    book.add_account("PA1", key_id="PKTEST", secret_key="test-secret", settings=AccountSettings(requests_per_minute=1))
    with running_exchange(book=book, rate_window_seconds=0.2) as sim:
        seen = set()
        deadline = datetime.now(UTC) + timedelta(seconds=5)
        while seen != {200, 429} or requests.get(f"{sim.url}/v2/clock", headers=KEYS, timeout=5).status_code != 200:
            seen.add(requests.get(f"{sim.url}/v2/clock", headers=KEYS, timeout=5).status_code)
            assert datetime.now(UTC) < deadline


def test_assets_are_listed_and_found_by_symbol_or_id(client, http):
    assets = client.get_all_assets()
    assert {asset.symbol for asset in assets} >= {"AAPL", "BTC/USD", "SPY"}
    coin = client.get_asset("BTC/USD")
    assert (coin.asset_class, coin.shortable, coin.min_trade_increment) == ("crypto", False, 1e-9)
    assert client.get_asset("BTCUSD").symbol == "BTC/USD"
    assert client.get_asset(str(coin.id)).symbol == "BTC/USD"
    assert http("GET", "/v2/assets/BTC%2FUSD").json()["symbol"] == "BTC/USD"
    assert all(asset["class"] == "crypto" for asset in http("GET", "/v2/assets?asset_class=crypto").json())
    assert http("GET", "/v2/assets/NOPE").status_code == 404


def test_the_clock_follows_new_yorks_sessions(sim, client):
    noon = client.get_clock()
    assert (noon.is_open, noon.timestamp) == (True, NOON)
    assert noon.next_close == datetime(2026, 10, 8, 20, 0, tzinfo=UTC)
    assert noon.next_open == datetime(2026, 10, 9, 13, 30, tzinfo=UTC)
    sim.book.advance(timedelta(days=2))
    saturday = client.get_clock()
    assert (saturday.is_open, saturday.next_open) == (False, datetime(2026, 10, 12, 13, 30, tzinfo=UTC))


def test_the_calendar_knows_holidays_and_early_closes(client):
    days = client.get_calendar(GetCalendarRequest(start=date(2026, 1, 1), end=date(2026, 12, 31)))
    open_days = {day.date for day in days}
    closed = {date(2026, month, day) for month, day in [(1, 1), (1, 19), (2, 16), (4, 3), (5, 25), (6, 19), (7, 3)]}
    closed |= {date(2026, 9, 7), date(2026, 11, 26), date(2026, 12, 25)}
    assert open_days & closed == set()
    assert len(days) == 251
    early = {day.date for day in days if day.close.hour == 13}
    assert early == {date(2026, 11, 27), date(2026, 12, 24)}


def test_good_friday_is_found_in_every_year(client):
    known = [date(2024, 3, 29), date(2025, 4, 18), date(2027, 3, 26), date(2028, 4, 14)]
    for day in known:
        assert client.get_calendar(GetCalendarRequest(start=day, end=day)) == []


def test_an_account_that_suspends_trading_takes_no_orders(http, place):
    assert http("PATCH", "/v2/account/configurations", json={"suspend_trade": True}).json()["suspend_trade"] is True
    with pytest.raises(APIError):
        place()
    assert http("GET", "/v2/account").json()["trade_suspended_by_user"] is True


def test_ids_are_the_same_again_for_the_same_seed():
    def ids():
        book = ExchangeBook(clock=SimClock(NOON), seed=42)
        account = book.add_account()
        order = book.manual_trade(account.id, "AAPL", "buy", "1")
        return account.id, account.keys.key_id, order.id, account.all_activities()[0].id

    assert ids() == ids()
