"""Readings of the cycle: what a ledger row and an exchange order say, as frames that agree with the exit backfill's."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from recon_pipeline.domain.corrections import COMPARED
from recon_pipeline.domain.cycle_frames import LEDGER_ORDERS, ORDER_FACTS
from recon_pipeline.domain.frames import EXCHANGE_ORDERS, NO_TIME
from recon_pipeline.domain.order_readings import ledger_orders_frame, order_facts_frame
from recon_pipeline.domain.readings import exchange_orders_frame, lifecycle_rows_frame

E9 = 1_000_000_000
AT = 1_760_000_000_123


def ledger_row(**changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "profile_id": "p1",
        "user_id": "u1",
        "order_id": "o1",
        "client_order_id": None,
        "trade_id": "t1",
    }
    row |= {"symbol": "BTC/USD", "side": "buy", "action": "entry", "qty": "10.50", "quantity": None}
    row |= {"filled_qty": None, "price": "100.10", "status": "pending_new", "timestamp": AT, "sub_tag": None}
    return {**row, "created_at": None, "updated_at": None, "filled_at": None, "source": "BOT", **changes}


def exchange_order(**changes: Any) -> dict[str, Any]:
    order: dict[str, Any] = {"id": "x1", "client_order_id": "c1", "symbol": "AAPL", "asset_class": "us_equity"}
    order |= {"side": "sell"}
    order |= {"qty": "10", "filled_qty": "4", "filled_avg_price": "110.5", "filled_at": "2026-10-01T10:00:00.123999Z"}
    order |= {"status": "partially_filled", "type": "limit", "limit_price": "110", "replaces": None}
    order |= {"created_at": "2026-10-01T09:59:59.999999999Z", "submitted_at": "2026-10-01T10:00:00Z"}
    return {**order, "canceled_at": None, "expired_at": None, "failed_at": None, "replaced_at": None, **changes}


def only(records: list[dict[str, Any]]) -> dict[str, Any]:
    return dict(ledger_orders_frame(records).iloc[0])


def fact(**changes: Any) -> dict[str, Any]:
    return dict(order_facts_frame([exchange_order(**changes)], account_id="a1").iloc[0])


def test_no_records_are_frames_with_every_column() -> None:
    assert list(ledger_orders_frame([]).columns) == LEDGER_ORDERS.names
    assert list(order_facts_frame([], account_id="a1").columns) == ORDER_FACTS.names


@pytest.mark.parametrize(
    ("changes", "ordered", "executed", "defect"),
    [
        ({}, 10.5, 0, ""),
        ({"qty": None, "quantity": "7"}, 7, 0, ""),
        ({"qty": "", "quantity": "7"}, 7, 0, ""),
        ({"qty": "many"}, 0, 0, ""),
        ({"qty": "-3"}, 0, 0, ""),
        ({"filled_qty": "3"}, 10.5, 0, ""),
        ({"status": "canceled", "filled_qty": "3"}, 10.5, 0, ""),
        ({"status": "partially-filled", "filled_qty": "3"}, 10.5, 3, ""),
        ({"status": "partially_filled"}, 10.5, 10.5, ""),
        ({"status": "Filled"}, 10.5, 10.5, ""),
        ({"status": "filled", "filled_qty": "3"}, 10.5, 0, "conflicting_quantities"),
        ({"status": "filled", "qty": None}, 0, 0, "row_without_quantity"),
        ({"status": "filled", "side": "hold"}, 10.5, 10.5, "row_without_side"),
    ],
)
def test_a_row_says_what_was_ordered_and_what_was_executed(
    changes: dict[str, Any], ordered: float, executed: float, defect: str
) -> None:
    found = only([ledger_row(**changes)])
    assert (found["ordered_e9"], found["executed_e9"]) == (int(ordered * E9), int(executed * E9))
    assert found["defect"] == defect


def test_a_row_reads_as_the_exit_backfill_reads_it() -> None:
    rows = [ledger_row(), ledger_row(status="filled"), ledger_row(status="Partially-Filled", filled_qty="2", side="x")]
    ours, theirs = ledger_orders_frame(rows), lifecycle_rows_frame(rows)
    for name in theirs.columns:
        if name != "qty_e9":
            assert ours[name].tolist() == theirs[name].tolist(), name
    assert ours["executed_e9"].tolist()[1:] == theirs["qty_e9"].tolist()[1:]


def test_a_row_is_as_active_as_its_latest_time() -> None:
    later, latest = datetime.fromtimestamp(AT // 1000 + 5, UTC), datetime.fromtimestamp(AT // 1000 + 9, UTC)
    assert only([ledger_row()])["activity_ms"] == AT
    assert only([ledger_row(created_at=later)])["activity_ms"] == (AT // 1000 + 5) * 1000
    assert only([ledger_row(created_at=later, updated_at=latest)])["activity_ms"] == (AT // 1000 + 9) * 1000
    assert only([ledger_row(timestamp=None)])["activity_ms"] == NO_TIME
    assert only([ledger_row(timestamp=None, updated_at=later)])["time_ms"] == NO_TIME


def test_the_record_is_the_row_as_the_view_spells_it() -> None:
    record = only([ledger_row(status="PENDING-new", updated_at=datetime(2026, 3, 2, tzinfo=UTC))])["record"]
    assert tuple(record) == COMPARED
    assert record["qty"] == "10.50"
    assert record["status"] == "PENDING-new"
    assert record["action"] == "entry"
    assert record["quantity"] is None


def test_what_is_no_record_names_nothing() -> None:
    frame = ledger_orders_frame([None])  # type: ignore[list-item]
    assert frame["order_id"].tolist() == [""]
    assert frame["record"].tolist() == [dict.fromkeys(COMPARED)]


@pytest.mark.parametrize(
    ("status", "over"),
    [
        ("filled", True),
        ("canceled", True),
        ("cancelled", True),
        ("expired", True),
        ("rejected", True),
        ("replaced", True),
        ("done_for_day", False),
        ("new", False),
        ("partially_filled", False),
        ("pending_cancel", False),
        ("pending_replace", False),
        ("suspended", False),
        ("held", False),
        ("", False),
    ],
)
def test_an_order_is_over_when_nothing_more_can_execute(status: str, over: bool) -> None:
    assert fact(status=status)["is_over"] == over


def test_an_order_is_read_whole() -> None:
    found = fact(replaces="x0", replaced_by="x2", replaced_at="2026-10-01T10:00:01Z", subtag="bytelyst:p1")
    assert (found["replaces"], found["replaced_by"], found["sub_tag"]) == ("x0", "x2", "bytelyst:p1")
    assert (found["ordered_e9"], found["executed_e9"]) == (10 * E9, 4 * E9)
    assert (found["price"], found["limit_price"], found["type"]) == (Decimal("110.5"), Decimal(110), "limit")
    assert found["executed_at_ms"] == 1_790_848_800_123
    assert found["created_at_ms"] == 1_790_848_799_999
    assert found["ended_at_ms"] == 1_790_848_801_000


@pytest.mark.parametrize("key", ["canceled_at", "expired_at", "failed_at", "replaced_at"])
def test_an_order_ended_when_the_exchange_says_so(key: str) -> None:
    assert fact(**{key: "2026-10-01T10:00:01Z"})["ended_at_ms"] == 1_790_848_801_000


def test_what_an_order_does_not_say_is_not_known() -> None:
    found = fact(qty=None, notional="100", limit_price=None, type=None, order_type="MARKET", created_at=None)
    assert (found["ordered_e9"], found["limit_price"], found["type"]) == (0, None, "market")
    assert (found["created_at_ms"], found["ended_at_ms"]) == (1_790_848_800_000, NO_TIME)


def test_an_order_reads_as_the_exit_backfill_reads_it() -> None:
    orders = [exchange_order(), exchange_order(filled_qty="0", status="canceled"), exchange_order(side="hold")]
    ours = order_facts_frame(orders, account_id="a1")
    theirs = exchange_orders_frame(orders, account_id="a1")
    assert set(EXCHANGE_ORDERS.names) <= set(ours.columns)
    for name in EXCHANGE_ORDERS.names:
        assert ours[name].tolist() == theirs[name].tolist(), name
