"""The runbook's queries say what an operator needs to know before and after an apply."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from recon_pipeline.ledger.audit import insert_audit_records
from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.runbook import ExitBackfillRunbook

NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def runbook(database_url):
    with ExitBackfillRunbook(database_url) as runbook:
        yield runbook


@pytest.fixture
def writer(database_url):
    with connect(database_url, "recon_writer") as connection:
        yield connection


def _order(writer, order_id, trade_id, action, qty, status="filled", price=10, **more):
    row = {
        "order_id": order_id,
        "profile_id": "p1",
        "symbol": "BTC/USD",
        "trade_id": trade_id,
        "action": action,
        "qty": qty,
        "status": status,
        "price": price,
        **more,
    }
    names = ", ".join(row)
    places = ", ".join(f"%({name})s" for name in row)
    writer.execute(f"INSERT INTO public.orders ({names}) VALUES ({places})", row)


def _audit(writer, decision, trade_id="t1", batch_id="b1", **more):
    record = {
        "batch_id": batch_id,
        "profile_id": "p1",
        "symbol": "BTC/USD",
        "trade_id": trade_id,
        "dry_run": decision == "DRY_RUN",
        "decision": decision,
        "reason": "eligible",
        "filled_qty": Decimal("0.5"),
        "filled_price": Decimal(10),
        **more,
    }
    insert_audit_records(writer, [record])


def test_affected_trades_are_those_whose_entries_and_exits_differ(runbook, writer):
    _order(writer, "1", "ghost", "ENTRY", Decimal("1.5"))
    _order(writer, "2", "ghost", "exit", Decimal("0.5"))
    _order(writer, "3", "ghost", "EXIT", Decimal(1), status="canceled")
    _order(writer, "4", "closed", "ENTRY", 1)
    _order(writer, "5", "closed", "EXIT", 1, status="partially-filled")
    _order(writer, "6", "over", "EXIT", 2)
    _order(writer, "7", "unsaid", "ENTRY", 1, quantity=2)
    _order(writer, "8", "unsaid", None, 1)
    _order(writer, "9", "foreign", "ENTRY", 1, profile_id="p2")
    found = {row["trade_id"]: row for row in runbook.affected_trades("p1")}
    assert {trade: row["open_qty"] for trade, row in found.items()} == {"ghost": 1, "over": -2, "unsaid": 1}
    assert (found["unsaid"]["rows_without_action"], found["unsaid"]["conflicting_rows"]) == (1, 1)
    assert {row["trade_id"]: row["open_qty"] for row in runbook.still_open("p1")} == {"ghost": 1, "unsaid": 1}


def test_a_fingerprint_changes_with_any_column_of_any_row_and_with_nothing_else(runbook, writer):
    _order(writer, "1", "t1", "ENTRY", 1)
    before = runbook.fingerprint("p1")
    assert (before.order_rows, before.backfill_rows) == (1, 0)
    _audit(writer, "DRY_RUN")
    _order(writer, "2", "t1", "ENTRY", 1, profile_id="p2")
    assert runbook.fingerprint("p1") == before
    writer.execute("UPDATE public.orders SET price = 10.01 WHERE order_id = '1'")
    changed = runbook.fingerprint("p1")
    assert changed != before
    _order(writer, "BFILL-1", "t1", "EXIT", 1)
    assert runbook.fingerprint("p1")[:2] == (2, 1)
    assert runbook.fingerprint("nobody") == (0, 0, "")


def _pause(writer, scope="all"):
    writer.execute("INSERT INTO public.trading_control (scope, state) VALUES (%s, 'PAUSED')", [scope])


class TestGoNoGo:
    def test_a_reviewed_batch_of_a_paused_profile_is_go(self, runbook, writer):
        _pause(writer, "p1")
        _audit(writer, "DRY_RUN")
        _order(writer, "1", "t1", "ENTRY", 1)
        assert runbook.go_no_go("b1") == {
            "go": True,
            "paused": True,
            "candidates": 1,
            "candidate_qty": Decimal("0.5"),
            "no_go": 0,
            "held_back": 0,
            "pending_blockers": 0,
            "batch_state": None,
        }

    @pytest.mark.parametrize(
        ("what", "fact", "value"),
        [
            (lambda _: None, "paused", False),
            (lambda writer: (_pause(writer), _audit(writer, "NO_GO")), "no_go", 1),
            (
                lambda writer: (_pause(writer), _order(writer, "9", "t1", "EXIT", 1, status="pending_new")),
                "pending_blockers",
                1,
            ),
            (lambda writer: (_pause(writer), _order(writer, "9", "t1", "EXIT", 1, status=None)), "pending_blockers", 1),
        ],
        ids=["not paused", "a no-go", "a pending order", "an order without a status"],
    )
    def test_anything_against_it_is_no_go_and_named(self, runbook, writer, what, fact, value):
        _audit(writer, "DRY_RUN")
        what(writer)
        answer = runbook.go_no_go("b1")
        assert (answer["go"], answer[fact]) == (False, value)

    def test_an_unknown_batch_is_no_go(self, runbook, writer):
        _pause(writer)
        assert (runbook.go_no_go("b9")["go"], runbook.go_no_go("b9")["candidates"]) == (False, 0)


def test_inserted_rows_come_with_what_they_consumed(runbook, writer):
    _order(writer, "BFILL-1", "t1", "EXIT", Decimal("0.5"))
    _order(writer, "1", "t1", "ENTRY", Decimal("0.5"))
    writer.execute(
        "INSERT INTO recon.consumption (account_id, exchange_order_id, backfill_order_id, profile_id, trade_id, "
        "batch_id, qty) VALUES ('a', 'x1', 'BFILL-1', 'p1', 't1', 'b1', 0.5)"
    )
    [row] = runbook.backfill_rows("p1")
    assert (row["order_id"], row["qty"], row["batch_id"], row["exchange_order_id"], row["consumed_qty"]) == (
        "BFILL-1",
        "0.5",
        "b1",
        "x1",
        Decimal("0.5"),
    )


def test_decisions_are_counted_and_the_newest_come_first(runbook, writer):
    _audit(writer, "DRY_RUN", "t1")
    _audit(writer, "DRY_RUN", "t2")
    _audit(writer, "NO_GO", "t3", reason="no_price", filled_qty=None)
    counts = {
        (row["decision"], row["reason"]): (row["rows"], row["filled_qty"]) for row in runbook.decision_counts("p1")
    }
    assert counts == {("DRY_RUN", "eligible"): (2, 1), ("NO_GO", "no_price"): (1, 0)}
    assert [row["trade_id"] for row in runbook.newest_decisions("p1")] == ["t3", "t2", "t1"]


def test_a_rollback_s_preview_says_row_by_row_what_would_happen(runbook, writer):
    half = Decimal("0.5")
    for number, status, qty, price in [
        (1, "filled", half, 10),
        (2, "canceled", half, 10),
        (3, "filled", Decimal("0.6"), 10),
        (4, "filled", half, 11),
        (6, "filled", half, 10),
        (7, "filled", half, 10),
    ]:
        _order(writer, f"BFILL-{number}", f"t{number}", "EXIT", qty, status, price)
    for number in (1, 2, 3, 4, 5):
        _audit(writer, "APPLIED", f"t{number}", backfill_order_id=f"BFILL-{number}")
    for number in (6, 7):
        _audit(writer, "SKIP_EXISTING", f"t{number}", backfill_order_id=f"BFILL-{number}")
    _audit(writer, "APPLIED", "t6", "b0", backfill_order_id="BFILL-6")
    _audit(writer, "NO_GO", "t8")
    before = runbook.fingerprint("p1")
    assert {row["backfill_order_id"]: row["outcome"] for row in runbook.preview_rollback("b1")} == {
        "BFILL-1": "would be canceled",
        "BFILL-2": "canceled already",
        "BFILL-3": "changed since it was written",
        "BFILL-4": "changed since it was written",
        "BFILL-5": "the row is not in orders",
        "BFILL-6": "inserted by another batch that is still in force",
        "BFILL-7": "would be canceled",
    }
    assert runbook.fingerprint("p1") == before
