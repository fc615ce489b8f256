"""Verification reads the database, and finds what is wrong with it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from recon_pipeline.apply import BatchVerification, verify_batch
from recon_pipeline_tests.adapters.apply.book import Book


@pytest.fixture
def applied(ghost: Book) -> Book:
    ghost.apply(ghost.plan())
    return ghost


def failed(verification: BatchVerification) -> dict[str, str]:
    return {check.name: check.detail for check in verification.checks if not check.passed}


def test_an_applied_batch_holds(applied: Book):
    verification = verify_batch(applied.url, "B1-p1")

    assert verification.passed
    assert [check.name for check in verification.checks] == [
        "no fill is used twice",
        "conservation holds",
        "no trade is over-exited",
    ]
    assert verification.trades.to_dict("records") == [
        {"profile_id": "p1", "trade_id": "t1", "symbol": "AAPL", "entry_e9": 10**10, "exit_e9": 10**10, "open_e9": 0}
    ]
    assert verification.orders[["order_id", "executed_e9", "represented_e9", "consumed_e9", "excess_e9"]].to_dict(
        "records"
    ) == [
        {
            "order_id": "x1",
            "executed_e9": 4 * 10**9,
            "represented_e9": 4 * 10**9,
            "consumed_e9": 4 * 10**9,
            "excess_e9": 0,
        },
        {
            "order_id": "x2",
            "executed_e9": 6 * 10**9,
            "represented_e9": 6 * 10**9,
            "consumed_e9": 6 * 10**9,
            "excess_e9": 0,
        },
    ]


def test_a_rolled_back_batch_holds_too(applied: Book):
    applied.rollback("B1-p1")
    verification = verify_batch(applied.url, "B1-p1")
    assert verification.passed
    assert list(verification.trades["open_e9"]) == [10**10]
    assert list(verification.orders["consumed_e9"]) == [0, 0]


def test_the_real_order_recorded_after_its_backfill_is_a_fill_used_twice_and_an_over_exit(applied: Book):
    applied.record("x1", "t1", "SELL", "4", action="EXIT")
    assert failed(verify_batch(applied.url, "B1-p1")) == {
        "no fill is used twice": "order x1: executed 4, used 8",
        "conservation holds": "order x1: consumed 4 of 4 executed",
        "no trade is over-exited": "trade t1: entered 10, left 14",
    }


def test_an_order_that_executed_more_since_has_room_for_both(applied: Book):
    applied.trade("t2", "4")
    applied.record("x1", "t2", "SELL", "4", action="EXIT")
    applied.run(
        "INSERT INTO recon.exchange_orders (account_id, order_id, filled_qty) VALUES ('a1', 'x1', %s)", Decimal(8)
    )
    assert verify_batch(applied.url, "B1-p1").passed


def test_a_row_that_says_more_than_it_consumed_breaks_conservation(applied: Book):
    row = applied.backfill_rows()[0]
    applied.run("UPDATE orders SET qty = 5, quantity = 5 WHERE order_id = %s", row["order_id"])
    wrong = failed(verify_batch(applied.url, "B1-p1"))
    assert wrong["conservation holds"] == f"row {row['order_id']}: written 5, consumed 4"


def test_a_row_that_somebody_canceled_by_hand_without_releasing_breaks_conservation(applied: Book):
    row = applied.backfill_rows()[0]
    applied.run("UPDATE orders SET status = 'canceled' WHERE order_id = %s", row["order_id"])
    wrong = failed(verify_batch(applied.url, "B1-p1"))
    assert wrong["conservation holds"] == f"row {row['order_id']}: written 0, consumed 4"


def test_a_batch_that_is_unknown_is_said_to_be(book: Book):
    with pytest.raises(KeyError, match="B9"):
        verify_batch(book.url, "B9")


def test_a_batch_of_corrections_is_not_verified_as_if_it_were_a_backfill(ghost: Book):
    ghost.run(
        "INSERT INTO recon.batches (batch_id, profile_id, kind, state, plan)"
        " VALUES ('C1', 'p1', 'order_parity', 'APPLIED', '{\"changes\": []}')"
    )
    with pytest.raises(ValueError, match="batch C1 is of order_parity"):
        verify_batch(ghost.url, "C1")
