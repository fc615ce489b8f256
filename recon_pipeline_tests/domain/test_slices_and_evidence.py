"""Frames: readings of raw records, slices of the ledger, what the ledger represents, and attribution by keys."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pandas as pd
import pytest

from recon_pipeline.domain.attribution import KnownTrades, attribute
from recon_pipeline.domain.evidence import deduplicate_orders, represented_quantities
from recon_pipeline.domain.frames import CONSUMPTION
from recon_pipeline.domain.readings import exchange_orders_frame, lifecycle_rows_frame, position_quantity
from recon_pipeline.domain.slices import build_slices, deduplicate_rows
from recon_pipeline_tests.domain.book_makers import E9, MINUTE, START_MS, backfill_id


def entry(**changes: Any) -> dict[str, Any]:
    row = {"order_id": "e1", "trade_id": "t1", "symbol": "AAPL", "side": "buy", "action": "ENTRY", "qty": "10"}
    return {**row, "price": "100", "status": "filled", "timestamp": START_MS, **changes}


def exit_(**changes: Any) -> dict[str, Any]:
    return entry(
        **{"order_id": "r1", "side": "sell", "action": "EXIT", "qty": "4", "timestamp": START_MS + MINUTE, **changes}
    )


def order(**changes: Any) -> dict[str, Any]:
    listed = {"id": "x1", "symbol": "AAPL", "side": "sell", "status": "filled", "filled_qty": "4"}
    return {**listed, "filled_avg_price": "110", "filled_at": START_MS + MINUTE, **changes}


def slices_of(*rows: dict[str, Any]) -> pd.DataFrame:
    frame = deduplicate_rows(lifecycle_rows_frame(rows, profile_id="p1", user_id="u1"))
    return build_slices(frame, crypto_tokens=frozenset())


def only_slice(*rows: dict[str, Any]) -> dict[str, Any]:
    frame = slices_of(*rows)
    assert len(frame) == 1
    return dict(frame.iloc[0])


@pytest.mark.parametrize(
    ("rows", "entered", "exited", "side", "defect"),
    [
        ([entry(), exit_()], 10, 4, "BUY", ""),
        ([entry(side="sell"), exit_(side="buy")], 10, 4, "SELL", ""),
        ([entry(), entry(order_id="e2", action=None), exit_(action=None)], 20, 4, "BUY", ""),
        ([exit_(action=None, timestamp=START_MS - 1), entry()], 10, 4, "BUY", ""),
        ([entry(), exit_(status="canceled")], 10, 0, "BUY", ""),
        ([entry(), exit_(status="partially-filled")], 10, 4, "BUY", ""),
        ([entry(qty=None, quantity="10")], 10, 0, "BUY", ""),
        ([entry(quantity="10.0")], 10, 0, "BUY", ""),
        ([entry(quantity="9")], 0, 0, "BUY", "conflicting_quantities"),
        ([entry(qty=None)], 0, 0, "BUY", "row_without_quantity"),
        ([entry(qty="0")], 0, 0, "BUY", "row_without_quantity"),
        ([entry(qty="-1")], 0, 0, "BUY", "row_without_quantity"),
        ([entry(), exit_(symbol=None)], 10, 4, "BUY", "row_without_symbol"),
        ([entry(timestamp=None)], 10, 0, "BUY", "row_without_time"),
        ([entry(), exit_(symbol="MSFT")], 10, 4, "BUY", "conflicting_symbols"),
        ([entry(), entry(order_id="e2", side="sell")], 20, 0, "BUY", "conflicting_entry_sides"),
        ([entry(), entry(qty="9")], 19, 0, "BUY", "conflicting_rows"),
    ],
)
def test_a_slice_is_what_the_filled_rows_say(
    rows: list[dict[str, Any]], entered: int, exited: int, side: str, defect: str
) -> None:
    found = only_slice(*rows)
    assert found["defect"] == defect
    assert found["entry_side"] == side
    if not defect.startswith(("conflicting_q", "conflicting_r", "row_without_q")):
        assert (found["entry_e9"], found["exit_e9"]) == (entered * E9, exited * E9)


def test_a_side_alone_opens_no_trade() -> None:
    assert only_slice(entry(action=None))["defect"] == "unknown_entry_side"


def test_the_same_row_twice_is_one_row() -> None:
    assert only_slice(entry(), entry())["entry_e9"] == 10 * E9


def test_the_first_entry_and_the_newest_row_are_both_kept() -> None:
    found = only_slice(entry(), entry(order_id="e2", timestamp=START_MS + 5), exit_())
    assert (found["first_entry_ms"], found["newest_ms"]) == (START_MS, START_MS + MINUTE)


def test_the_entry_price_is_weighted_by_volume() -> None:
    assert only_slice(entry(price="100"), entry(order_id="e2", qty="30", price="104"))["entry_price"] == Decimal(103)
    assert only_slice(entry(price="100"), entry(order_id="e2", price=None))["entry_price"] is None


def test_an_absurd_price_of_one_row_is_no_error() -> None:
    assert only_slice(entry(price="1e40"), entry(order_id="e2", price="1"))["open_e9"] == 20 * E9


def test_float_noise_in_the_ledger_leaves_nothing_open() -> None:
    found = slices_of(entry(qty=0.1), entry(order_id="e2", qty=0.2), exit_(qty=0.30000000000000004))
    assert found["open_e9"].tolist() == [0]


@pytest.mark.parametrize(
    ("value", "units"),
    [
        ("6", 6 * E9),
        (-2, -2 * E9),
        ({"qty": "6", "side": "short"}, -6 * E9),
        ({"qty": "-6", "side": "short"}, -6 * E9),
        ({"qty": "6", "side": "long"}, 6 * E9),
        ({"contracts": 3}, 3 * E9),
        ({"qty": "1", "size": "2"}, None),
        ({}, None),
        ({"qty": None}, None),
        (None, None),
        ("", None),
        ("many", None),
        (True, None),
        ([], None),
    ],
)
def test_a_position_is_signed_or_unknown(value: object, units: int | None) -> None:
    assert position_quantity(value) == units


@pytest.mark.parametrize(
    ("changes", "defect"),
    [
        ({}, ""),
        ({"status": "canceled"}, ""),
        ({"status": "replaced"}, ""),
        ({"filled_qty": None, "qty": "4"}, "no_executed_quantity"),
        ({"filled_qty": "0"}, "no_executed_quantity"),
        ({"filled_qty": "0", "status": "canceled"}, "nothing_executed"),
        ({"filled_qty": "-4"}, "no_executed_quantity"),
        ({"filled_avg_price": None, "limit_price": "99", "price": "99"}, "no_execution_price"),
        ({"filled_avg_price": "0"}, "no_execution_price"),
        ({"filled_at": None, "updated_at": START_MS, "submitted_at": START_MS}, "no_execution_time"),
        ({"filled_at": None, "timestamp": START_MS}, "no_execution_time"),
        ({"symbol": None}, "no_symbol"),
        ({"side": "hold"}, "no_side"),
        ({"id": None}, "no_order_id"),
    ],
)
def test_an_order_is_evidence_by_what_it_executed(changes: dict[str, Any], defect: str) -> None:
    frame = exchange_orders_frame([order(**changes)], account_id="a1")
    assert frame["defect"].tolist() == [defect]


def represented(orders: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[int]:
    listed = deduplicate_orders(exchange_orders_frame(orders, account_id="a1"))
    ledger = deduplicate_rows(lifecycle_rows_frame(rows, profile_id="p1"))
    return [int(units) for units in represented_quantities(listed, ledger, CONSUMPTION.empty())[0]]


BOOKED = backfill_id("p1", "t1", "x1", START_MS + MINUTE)


@pytest.mark.parametrize(
    ("rows", "units"),
    [
        ([entry()], 0),
        ([exit_(order_id="x1")], 4),
        ([exit_(order_id="c1")], 4),
        ([exit_(client_order_id="c1")], 4),
        ([exit_(order_id="x1", client_order_id="c1")], 4),
        ([exit_(order_id=BOOKED)], 4),
        ([exit_(order_id=BOOKED, qty="3")], 3),
        ([exit_(order_id=BOOKED, timestamp=START_MS + 2 * MINUTE)], 0),
        ([exit_(order_id=BOOKED, timestamp=START_MS + 2 * MINUTE, filled_at=START_MS + MINUTE)], 4),
        ([exit_(order_id=BOOKED, status="canceled")], 0),
        ([exit_(order_id="x1", status="canceled")], 0),
        ([exit_(order_id=backfill_id("p1", "t1", "x2", START_MS + MINUTE))], 0),
        ([exit_(order_id="x1", trade_id="t2")], 4),
    ],
)
def test_what_the_ledger_represents_of_an_order(rows: list[dict[str, Any]], units: int) -> None:
    assert represented([order(client_order_id="c1")], rows) == [units * E9]


@pytest.mark.parametrize(
    "changes", [{"qty": None}, {"qty": "what"}, {"quantity": "5"}, {"status": "partially_filled", "filled_qty": "9"}]
)
def test_a_recorded_row_whose_quantity_is_not_known_leaves_nothing_known_of_its_order(changes: dict[str, Any]) -> None:
    listed = deduplicate_orders(exchange_orders_frame([order()], account_id="a1"))
    for order_id in ("x1", BOOKED):
        ledger = lifecycle_rows_frame([exit_(order_id=order_id, **changes)], profile_id="p1")
        assert represented_quantities(listed, ledger, CONSUMPTION.empty())[1].tolist() == [True]


@pytest.mark.parametrize("shift", [-1, 1, 10 * MINUTE, -10 * MINUTE])
def test_a_backfill_row_represents_its_order_whatever_time_the_order_has_now(shift: int) -> None:
    assert represented([order(filled_at=START_MS + MINUTE + shift)], [exit_(order_id=BOOKED)]) == [4 * E9]


def test_of_two_readings_the_larger_execution_counts() -> None:
    merged = deduplicate_orders(exchange_orders_frame([order(), order(filled_qty="6"), order()], account_id="a1"))
    assert merged["executed_e9"].tolist() == [6 * E9]
    assert merged["defect"].tolist() == [""]


@pytest.mark.parametrize(
    "changes",
    [{"side": "buy"}, {"filled_avg_price": "111"}, {"client_order_id": "d1"}, {"symbol": "MSFT"}, {"trade_id": "t2"}],
)
def test_readings_that_contradict_each_other_make_the_order_unusable(changes: dict[str, Any]) -> None:
    readings = [
        order(client_order_id="c1", trade_id="t1"),
        order(**{"client_order_id": "c1", "trade_id": "t1", **changes}),
    ]
    merged = deduplicate_orders(exchange_orders_frame(readings, account_id="a1"))
    assert merged["defect"].tolist() == ["conflicting_duplicates"]


KNOWN = KnownTrades.of(
    ["p1", "p1-b", "p2"],
    [
        ("p1", "t1"),
        ("p1", "t2"),
        ("p1", "b-t1"),
        ("p1-b", "t1"),
        ("p2", "t1"),
        ("p2", "t7"),
        ("p2", "t-7"),
        ("p1", "t3-exit"),
    ],
)


@pytest.mark.parametrize(
    ("trade_id", "tag", "client", "outcome"),
    [
        ("", "", "bytelyst-p1-t1-exit", ("p1", "t1", "client_order_id")),
        ("", "", "BYTELYST-P1-t1", ("p1", "t1", "client_order_id")),
        ("", "", "bytelyst-p1-t1-exit-2", ("p1", "t1", "client_order_id")),
        ("", "", "bytelyst-p1-t1-entry", "entry_order"),
        ("", "", "bytelyst-p1-t3-exit", ("p1", "t3-exit", "client_order_id")),
        ("", "", "bytelyst-p1-t9-exit", "unknown_trade"),
        ("", "", "bytelyst-p9-t1-exit", "foreign_client_order_id"),
        ("", "", "bytelyst-p1-b-t1-exit", "ambiguous_attribution"),
        ("", "", "human", "unattributed"),
        ("", "bytelyst:p1:t1", "", ("p1", "t1", "sub_tag")),
        ("", "bytelyst:p2:t7", "", "ambiguous_attribution"),
        ("", "bytelyst:p9:t1", "bytelyst-p1-t1-exit", "foreign_sub_tag"),
        ("", "bytelyst:p9", "bytelyst-p1-t1-exit", "foreign_sub_tag"),
        ("t2", "bytelyst:p9", "", "foreign_sub_tag"),
        ("", "bytelyst:p1", "bytelyst-p1-t1-exit", ("p1", "t1", "client_order_id")),
        ("", "bytelyst:p2", "bytelyst-p1-t1-exit", "contradictory_attribution"),
        ("", "someone", "bytelyst-p1-t1-exit", ("p1", "t1", "client_order_id")),
        ("t2", "", "", ("p1", "t2", "trade_id")),
        ("t1", "", "", "ambiguous_attribution"),
        ("t1", "", "bytelyst-p2-t1-exit", ("p2", "t1", "client_order_id")),
        ("t2", "", "bytelyst-p1-t1-exit", "contradictory_attribution"),
        ("t9", "", "bytelyst-p1-t1-exit", "contradictory_attribution"),
        ("t9", "", "", "unknown_trade"),
        ("t2", "bytelyst:p1:t2", "bytelyst-p1-t2-exit", ("p1", "t2", "trade_id")),
        ("", "", "", "unattributed"),
    ],
)
def test_keys_prove_one_trade_or_say_why_not(trade_id: str, tag: str, client: str, outcome: object) -> None:
    found = attribute(trade_id, tag, client, KNOWN, require_strong=True)
    if isinstance(outcome, str):
        assert found.trade is None
        assert found.reason == outcome
    else:
        assert found.trade is not None
        assert found.method is not None
        assert (*found.trade, found.method.value) == outcome


@pytest.mark.parametrize(
    ("trade_id", "tag", "client", "free"),
    [
        ("", "", "", True),
        ("", "", "human", True),
        ("", "someone", "", True),
        ("", "bytelyst:p1", "", True),
        ("", "bytelyst:p9", "", False),
        ("t9", "", "", False),
        ("", "bytelyst:p1:t9", "", False),
        ("", "", "bytelyst-p1-t9-exit", False),
        ("", "", "bytelyst-p9-t1-exit", False),
    ],
)
def test_a_hint_keeps_the_heuristics_off(trade_id: str, tag: str, client: str, free: bool) -> None:
    assert attribute(trade_id, tag, client, KNOWN, require_strong=False).heuristic is free
