"""The handlers by their names: entry fill, exit fill, cancel; what each does to orders, position, history and capital."""

from __future__ import annotations

from decimal import Decimal

import pytest

from recon_pipeline.apply import ApplyState
from recon_pipeline.domain.corrections import Handler, Stage
from recon_pipeline_tests.adapters.apply.book import Book
from recon_pipeline_tests.adapters.apply.correcting import correct, corrections, ended, filled, inserted, plan_of


def books(book: Book, trade_id: str = "t1") -> dict[str, object]:
    """What an operator compares: the four books of a trade in a few numbers."""
    position, history, capital = book.position(trade_id), book.history(trade_id), book.capital(trade_id)
    return {
        "qty": position["qty"],
        "avg": position["avg_entry_price"],
        "status": position["status"],
        "entry": (history["entry_qty"], history["entry_price"]),
        "exit": (history["exit_qty"], history["exit_price"], history["realized_pnl_usd"]),
        "history": history["status"],
        "reserved": capital["reserved_usd"],
    }


@pytest.fixture
def open_trade(book: Book) -> Book:
    """t1: 10 bought at 100; the exit order x1 of 10 is pending in the ledger."""
    book.trade("t1", "10")
    book.record("x1", "t1", "SELL", "10", price="110", action="EXIT", status="pending_new")
    return book


def test_entry_fill_of_a_pending_order_opens_the_trade_in_all_books(book: Book):
    book.record("e1", "t1", "BUY", "10", price="100", action="ENTRY", status="pending_new")
    change = filled(book, "e1", "10", handler=Handler.ENTRY_FILL, price="99.5")

    result = correct(book, plan_of(change))

    assert (result.state, result.applied, result.books_updated) == (ApplyState.APPLIED, ("e1",), 3)
    row = book.order("e1")
    assert (row["status"], row["qty"], row["quantity"], row["filled_qty"]) == ("filled", 10, 10, 10)
    assert (row["price"], row["filled_at"].isoformat()) == (Decimal("99.5"), "2026-03-02T11:30:00.250000+00:00")
    assert books(book) == {
        "qty": 10,
        "avg": Decimal("99.5"),
        "status": "open",
        "entry": (10, Decimal("99.5")),
        "exit": (0, None, None),
        "history": "open",
        "reserved": 995,
    }
    assert book.position("t1")["side"] == "BUY"
    assert book.position("t1")["opened_at"].isoformat() == "2026-03-02T11:30:00.250000+00:00"


def test_entry_fill_that_grows_while_the_order_lives_keeps_what_was_ordered_and_the_bots_reservation(book: Book):
    book.record("e1", "t1", "BUY", "10", action="ENTRY", status="pending_new")
    book.run("INSERT INTO capital_ledger (profile_id, trade_id, reserved_usd) VALUES ('p1', 't1', 1000)")
    assert correct(
        book,
        plan_of(
            filled(book, "e1", "3", status="partially_filled", handler=Handler.ENTRY_FILL, price="100"), batch="C1"
        ),
    ).ok
    row = book.order("e1")
    assert (row["status"], row["qty"], row["filled_qty"]) == ("partially_filled", 10, 3)
    assert (book.position("t1")["qty"], book.capital("t1")["reserved_usd"]) == (3, 1000)

    grown = filled(book, "e1", "8", status="partially_filled", handler=Handler.ENTRY_FILL, price="101")
    assert correct(book, plan_of(grown, batch="C2")).ok
    row = book.order("e1")
    assert (row["qty"], row["filled_qty"], row["price"]) == (10, 8, 101)
    assert (book.position("t1")["qty"], book.position("t1")["avg_entry_price"]) == (8, 101)
    assert (book.history("t1")["entry_qty"], book.capital("t1")["reserved_usd"]) == (8, 1000)

    over = filled(book, "e1", "8", handler=Handler.STATUS, price="101")
    assert correct(book, plan_of(over, batch="C3")).ok
    row = book.order("e1")
    assert (row["status"], row["qty"], row["quantity"], row["filled_qty"]) == ("filled", 8, 8, 8)
    assert book.capital("t1")["reserved_usd"] == 808


def test_exit_fill_closes_position_and_history_and_frees_the_capital(open_trade: Book):
    result = correct(open_trade, plan_of(filled(open_trade, "x1", "10", price="107.5")))

    assert result.ok
    assert books(open_trade) == {
        "qty": 0,
        "avg": 100,
        "status": "closed",
        "entry": (10, 100),
        "exit": (10, Decimal("107.5"), 75),
        "history": "closed",
        "reserved": 0,
    }
    assert open_trade.history("t1")["fees_usd"] == Decimal("0.25")
    assert open_trade.position("t1")["closed_at"].isoformat() == "2026-03-02T11:30:00.250000+00:00"


def test_exit_fill_grows_from_3_to_8_by_the_difference(open_trade: Book):
    first = filled(open_trade, "x1", "3", status="partially_filled", price="110")
    assert correct(open_trade, plan_of(first, batch="C1")).ok
    assert books(open_trade)["exit"] == (3, 110, 30)
    assert (books(open_trade)["qty"], books(open_trade)["reserved"]) == (7, 700)
    # The bot knows of a fee that no execution tells.
    open_trade.run("UPDATE trade_history SET realized_pnl_usd = 29.9 WHERE trade_id = 't1'")

    second = filled(open_trade, "x1", "8", status="partially_filled", price="106")
    assert correct(open_trade, plan_of(second, batch="C2")).ok
    assert books(open_trade)["exit"] == (8, 106, Decimal("47.9"))
    assert (books(open_trade)["qty"], books(open_trade)["status"], books(open_trade)["reserved"]) == (2, "open", 200)


def test_exit_fill_that_the_bot_booked_already_is_not_booked_twice(open_trade: Book):
    """The bot wrote its history and its position, and lost the order's row."""
    open_trade.run(
        "UPDATE trade_history SET exit_qty = 10, exit_price = 107, realized_pnl_usd = 69.5, status = 'closed',"
        " closed_at = '2026-03-02T11:00:00Z'"
    )
    open_trade.run("UPDATE positions SET qty = 0, status = 'closed', closed_at = '2026-03-02T11:00:00Z'")
    open_trade.run("UPDATE capital_ledger SET reserved_usd = 0")
    before = open_trade.dump(("positions", "trade_history", "capital_ledger"))

    result = correct(open_trade, plan_of(filled(open_trade, "x1", "10", price="107")))

    assert (result.applied, result.books_updated) == (("x1",), 0)
    assert open_trade.dump(("positions", "trade_history", "capital_ledger")) == before


def test_an_exit_that_the_bot_booked_already_frees_its_capital_once(open_trade: Book):
    """The bot wrote all its books and lost the order's fill: what it reserves is for the 6 that it knows to be open."""
    open_trade.run(
        "UPDATE trade_history SET exit_qty = 4, exit_price = 110, realized_pnl_usd = 40 WHERE trade_id = 't1'"
    )
    open_trade.run("UPDATE positions SET qty = 6 WHERE trade_id = 't1'")
    open_trade.run("UPDATE capital_ledger SET reserved_usd = 600 WHERE trade_id = 't1'")
    assert correct(open_trade, plan_of(filled(open_trade, "x1", "4", status="partially_filled", price="110"))).ok
    assert books(open_trade)["exit"] == (4, 110, 40)
    assert (books(open_trade)["qty"], books(open_trade)["reserved"]) == (6, 600)


def test_cancel_of_an_exit_leaves_the_books_as_they_are(open_trade: Book):
    before = open_trade.dump(("positions", "trade_history", "capital_ledger"))
    result = correct(open_trade, plan_of(ended(open_trade, "x1")))
    assert (result.applied, result.books_updated) == (("x1",), 0)
    assert (open_trade.order("x1")["status"], open_trade.order("x1")["qty"]) == ("canceled", 10)
    assert open_trade.dump(("positions", "trade_history", "capital_ledger")) == before


def test_cancel_of_the_only_entry_closes_what_the_bot_opened_too_early_and_frees_the_capital(book: Book):
    book.record("e1", "t1", "BUY", "10", action="ENTRY", status="pending_new")
    book.run(
        "INSERT INTO positions (profile_id, trade_id, symbol, side, qty, status) VALUES ('p1', 't1', 'AAPL', 'BUY', 10, 'open')"
    )
    book.run("INSERT INTO capital_ledger (profile_id, trade_id, reserved_usd) VALUES ('p1', 't1', 1000)")

    assert correct(book, plan_of(ended(book, "e1"))).ok

    assert (book.position("t1")["qty"], book.position("t1")["status"]) == (0, "closed")
    assert book.capital("t1")["reserved_usd"] == 0
    assert book.rows("SELECT * FROM trade_history") == []


def test_a_canceled_entry_with_fills_becomes_filled_and_reserves_what_is_open(book: Book):
    book.record("e1", "t1", "BUY", "10", action="ENTRY", status="pending_new")
    book.run("INSERT INTO capital_ledger (profile_id, trade_id, reserved_usd) VALUES ('p1', 't1', 1000)")
    change = filled(
        book, "e1", "4", handler=Handler.ENTRY_FILL, price="99", cause={"rule": "over", "exchange_status": "canceled"}
    )

    assert correct(book, plan_of(change)).ok

    row = book.order("e1")
    assert (row["status"], row["qty"], row["quantity"], row["filled_qty"]) == ("filled", 4, 4, 4)
    assert (book.position("t1")["qty"], book.capital("t1")["reserved_usd"]) == (4, 396)
    assert corrections(book)[0]["cause"]["exchange_status"] == "canceled"


def test_discovery_of_a_live_order_records_it_and_books_nothing(open_trade: Book):
    before = open_trade.dump(("positions", "trade_history", "capital_ledger"))
    change = inserted("x9", "5", status="pending_new", price=None, handler=Handler.DISCOVERY)

    result = correct(open_trade, plan_of(change))

    assert (result.applied, result.books_updated) == (("x9",), 0)
    row = open_trade.order("x9")
    assert (row["status"], row["qty"], row["price"], row["source"]) == ("pending_new", 5, None, "BOT")
    assert open_trade.dump(("positions", "trade_history", "capital_ledger")) == before


def test_a_missing_entry_is_inserted_with_its_books(book: Book):
    change = inserted("e1", "2.5", side="SELL", action="ENTRY", handler=Handler.ENTRY_FILL, price="40")

    assert correct(book, plan_of(change, stage=Stage.ORDER_COVERAGE)).ok

    assert books(book) == {
        "qty": Decimal("-2.5"),
        "avg": 40,
        "status": "open",
        "entry": (Decimal("2.5"), 40),
        "exit": (0, None, None),
        "history": "open",
        "reserved": 100,
    }


def test_supersede_of_a_backfill_row_books_the_real_row_instead_and_frees_its_evidence(open_trade: Book):
    """The exit backfill proved 10 of x7; now the bot's own row of x7 is found missing and inserted."""
    open_trade.executed("x7", "t1", "10", price="110")
    open_trade.run("UPDATE orders SET status = 'canceled' WHERE order_id = 'x1'")
    assert open_trade.apply(open_trade.plan()).inserted_rows == 1
    (backfill,) = open_trade.backfill_rows()
    booked = books(open_trade)
    supersede = ended(
        open_trade,
        backfill["order_id"],
        handler=Handler.SUPERSEDE,
        cause={"rule": "superseded", "exchange_order_id": "x7"},
    )
    real = inserted("x7", "10", price="110")

    result = correct(open_trade, plan_of(real, supersede, executed={"x7": "10"}, stage=Stage.ORDER_COVERAGE))

    assert result.applied == (backfill["order_id"], "x7")
    assert (open_trade.order(backfill["order_id"])["status"], open_trade.order("x7")["status"]) == (
        "canceled",
        "filled",
    )
    assert open_trade.rows("SELECT * FROM recon.consumption WHERE released_at IS NULL") == []
    assert books(open_trade) == booked, "10 were closed at 110 before, and they are now"
    assert open_trade.plan(batch="B2").proposals.empty


def test_supersede_of_a_synthetic_exit_opens_the_trade_again(open_trade: Book):
    open_trade.run("UPDATE orders SET status = 'canceled' WHERE order_id = 'x1'")
    close = inserted("PARITY-1", "10", price="100", handler=Handler.SYNTHETIC_EXIT)
    assert correct(open_trade, plan_of(close, stage=Stage.POSITION_PARITY, batch="C1")).ok
    assert (books(open_trade)["status"], books(open_trade)["exit"]) == ("closed", (10, 100, 0))
    assert open_trade.order("PARITY-1")["source"] == "RECON"
    # The real exit of 4 arrives late: 14 of 10.
    assert correct(open_trade, plan_of(inserted("x4", "4", price="110"), batch="C2")).ok

    back = ended(open_trade, "PARITY-1", handler=Handler.SUPERSEDE)
    assert correct(open_trade, plan_of(back, batch="C3")).ok

    found = books(open_trade)
    assert (found["qty"], found["status"], found["history"], found["reserved"]) == (6, "open", "open", 600)
    assert found["exit"] == (4, 110, 40)
    assert open_trade.position("t1")["closed_at"] is None


def test_sub_tag_fills_the_tag_and_nothing_else(open_trade: Book):
    before = open_trade.dump()
    change = ended(
        open_trade,
        "x1",
        handler=Handler.SUB_TAG,
        values={"sub_tag": "bytelyst:p1:t1"},
        cause={"rule": "client_order_id"},
    )
    result = correct(open_trade, plan_of(change, stage=Stage.SUB_TAG_REPAIR))
    assert (result.applied, result.books_updated) == (("x1",), 0)
    assert open_trade.order("x1")["sub_tag"] == "bytelyst:p1:t1"
    open_trade.run("UPDATE orders SET sub_tag = NULL")
    assert open_trade.dump() == before


def test_every_correction_has_before_after_and_cause(open_trade: Book):
    correct(open_trade, plan_of(filled(open_trade, "x1", "10")))
    rows = corrections(open_trade)
    assert [row["table_name"] for row in rows] == ["orders", "positions", "trade_history", "capital_ledger"]
    order = rows[0]
    assert (order["before"]["status"], order["after"]["status"]) == ("pending_new", "filled")
    assert order["cause"] == {
        "kind": "order_parity",
        "handler": "exit_fill",
        "trade_id": "t1",
        "rule": "exchange_filled",
        "exchange_status": "filled",
        "executed": "10",
        "filled_at": "2026-03-02T11:30:00.250Z",
    }
    assert rows[1]["cause"] == {
        "kind": "order_parity",
        "trade_id": "t1",
        "handlers": ["exit_fill"],
        "order_ids": ["x1"],
    }
    assert (rows[1]["before"]["qty"], rows[1]["after"]["qty"]) == (10, 0)
    batch = open_trade.batch("C1")
    assert (batch["kind"], batch["state"], batch["applied_at"] is not None) == ("order_parity", "APPLIED", True)
