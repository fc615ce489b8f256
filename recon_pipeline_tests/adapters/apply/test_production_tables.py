"""Tables that a production database brings: other types, fewer columns, triggers of its own."""

from __future__ import annotations

from decimal import Decimal

import pytest

from recon_pipeline.apply import ApplyState, RollbackState, verify_batch
from recon_pipeline.ledger.migrate import migrate
from recon_pipeline_tests.adapters.apply.book import Book
from recon_pipeline_tests.adapters.apply.production import P1, T1, USER, production_book


@pytest.fixture
def production(empty_database_url: str) -> Book:
    """A ghost of 10 in a database whose tables the bots made."""
    book = production_book(empty_database_url)
    book.run(
        'INSERT INTO orders (order_id, user_id, profile_id, symbol, type, side, qty, price, status, "timestamp", filled_at,'
        " trade_id, action, source) VALUES ('e1', %s, %s, 'AAPL', 'market', 'BUY', 10, 100.5, 'filled',"
        " '2026-03-02T02:00:00Z', '2026-03-02T02:00:00', %s, 'ENTRY', 'BOT')",
        USER,
        P1,
        T1,
    )
    book.run(
        "INSERT INTO positions VALUES (%s, %s, 'AAPL', 'BUY', 10, 100.5, 'open', NULL, '2026-03-02T02:00:00.123456')",
        P1,
        T1,
    )
    book.executed("x1", T1, "4.123456789", price="110.25", profile_id=P1, account_id="default")
    return book


def test_uuids_enumerations_floats_and_missing_columns_are_applied_and_rolled_back(production: Book):
    before = production.dump()
    plan = production.plan(P1)
    assert plan.user_id == USER

    result = production.apply(plan)

    assert (result.state, result.detail) == (ApplyState.APPLIED, "")
    (row,) = production.backfill_rows(P1)
    assert (row["qty"], row["price"], row["status"]) == (Decimal("4.123456789"), 110.25, "filled")
    assert production.position(T1, P1)["qty"] == Decimal("5.876543211")
    assert verify_batch(production.url, result.batch_id).passed
    assert production.plan(P1, batch="B2").proposals.empty

    reverted = production.rollback(result.batch_id)
    assert (reverted.state, reverted.detail) == (RollbackState.REVERTED, "")
    production.run("DELETE FROM orders WHERE order_id LIKE 'BFILL-%'")
    assert production.dump() == before


def test_a_column_that_rounds_what_is_written_refuses_the_apply(production: Book):
    production.run("ALTER TABLE orders ALTER COLUMN qty TYPE numeric(20, 4)")
    migrate(production.url)
    before = production.dump()

    result = production.apply(production.plan(P1))

    assert (result.state, result.refused_reason) == (ApplyState.FAILED, "apply_failed")
    assert "orders.qty would store 4.1235 instead of 4.123456789" in result.detail
    assert production.dump() == before


def test_a_trigger_that_rewrites_what_is_written_refuses_the_apply(ghost: Book):
    ghost.run(
        "CREATE FUNCTION halve() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.qty := NEW.qty / 2; RETURN NEW; END $$"
    )
    ghost.run("CREATE TRIGGER halve BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION halve()")
    before = ghost.dump()

    result = ghost.apply(ghost.plan())

    assert result.refused_reason == "not_written_exactly"
    assert ghost.dump() == before


def test_a_trigger_that_stamps_updated_at_neither_stops_an_apply_nor_its_rollback(ghost: Book):
    ghost.run(
        "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END $$"
    )
    for table in ("orders", "positions", "trade_history", "capital_ledger"):
        ghost.run(f"CREATE TRIGGER stamp BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION stamp()")
    assert ghost.apply(ghost.plan()).state is ApplyState.APPLIED
    assert ghost.rollback("B1-p1").state is RollbackState.REVERTED
