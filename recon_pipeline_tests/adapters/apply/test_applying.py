"""What an apply writes, and what it says of it."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

import pytest

from recon_pipeline.apply import ApplyState
from recon_pipeline.domain.plan import proposals_digest
from recon_pipeline_tests.adapters.apply.book import NOW, Book, at_point


def test_a_proven_ghost_is_closed_with_the_executions_it_cites(ghost: Book):
    plan = ghost.plan()

    result = ghost.apply(plan)

    assert result.state is ApplyState.APPLIED
    assert result.ok
    rows = ghost.backfill_rows()
    assert [(row["qty"], row["price"], row["side"], row["action"], row["status"]) for row in rows] == [
        (Decimal(4), Decimal(110), "SELL", "EXIT", "filled"),
        (Decimal(6), Decimal(105), "SELL", "EXIT", "filled"),
    ]
    assert sorted(result.inserted) == sorted(row["order_id"] for row in rows)
    assert list(result.rows["outcome"]) == ["inserted", "inserted"]


def test_position_history_and_capital_follow_the_inserted_rows(ghost: Book):
    ghost.apply(ghost.plan())

    position, history, capital = ghost.position("t1"), ghost.history("t1"), ghost.capital("t1")
    assert (position["qty"], position["status"]) == (Decimal(0), "closed")
    assert position["closed_at"] == max(row["filled_at"] for row in ghost.backfill_rows())
    assert (history["exit_qty"], history["exit_price"], history["status"]) == (Decimal(10), Decimal(107), "closed")
    assert history["realized_pnl_usd"] == Decimal(70)
    assert history["fees_usd"] == Decimal("0.25")
    assert capital["reserved_usd"] == Decimal(0)


def test_a_short_is_closed_by_buys_with_the_profit_of_a_short(book: Book):
    book.trade("s1", "3", side="SELL", price="50")
    book.executed("x1", "s1", "2", side="buy", price="40")

    book.apply(book.plan())

    assert book.position("s1")["qty"] == Decimal(-1)
    assert book.position("s1")["status"] == "open"
    assert book.history("s1")["realized_pnl_usd"] == Decimal(20)
    assert book.capital("s1")["reserved_usd"] == Decimal(50)


def test_audit_says_pending_apply_first_and_applied_in_the_end(ghost: Book):
    ghost.apply(ghost.plan())

    assert ghost.decisions("B1-p1") == ["PENDING_APPLY", "PENDING_APPLY", "APPLIED", "APPLIED"]
    applied = [row for row in ghost.audit("B1-p1") if row["decision"] == "APPLIED"]
    assert [(row["filled_qty"], row["reason"], row["applied_at"], row["dry_run"]) for row in applied] == [
        (Decimal(4), "inserted", NOW, False),
        (Decimal(6), "inserted", NOW, False),
    ]
    batch = ghost.batch("B1-p1")
    assert (batch["state"], batch["reviewed_digest"], batch["error"]) == ("APPLIED", batch["digest"], None)
    assert batch["conservation"]["allocated"] == "10"


def test_every_changed_row_is_kept_with_both_images_and_its_cause(ghost: Book):
    ghost.apply(ghost.plan())

    rows = ghost.rows("SELECT * FROM recon.corrections ORDER BY id")
    assert [row["table_name"] for row in rows] == ["orders", "orders", "positions", "trade_history", "capital_ledger"]
    assert [row["before"] is None for row in rows] == [True, True, False, False, False]
    position = rows[2]
    assert (position["before"]["qty"], position["after"]["qty"]) == (10, 0)
    assert sorted(position["cause"]["backfill_order_ids"]) == sorted(r["order_id"] for r in ghost.backfill_rows())


def test_consumption_names_the_exchange_order_of_every_inserted_row(ghost: Book):
    ghost.apply(ghost.plan())

    rows = ghost.rows("SELECT * FROM recon.consumption ORDER BY exchange_order_id")
    assert [(r["account_id"], r["exchange_order_id"], r["qty"], r["released_at"]) for r in rows] == [
        ("a1", "x1", Decimal(4), None),
        ("a1", "x2", Decimal(6), None),
    ]


def test_nine_decimals_and_tiny_prices_are_written_to_the_last_digit(book: Book):
    book.trade("t1", "123456.123456789", price="0.000001234567", symbol="SHIB/USD")
    book.executed("x1", "t1", "123456.123456789", price="0.000001234568", symbol="SHIB/USD")

    book.apply(book.plan())

    (row,) = book.backfill_rows()
    assert (str(row["qty"]), str(row["price"])) == ("123456.123456789", "0.000001234568")
    assert book.history("t1")["realized_pnl_usd"] == Decimal("1.23456123456789E-7")


def test_after_an_apply_planning_again_proposes_nothing(ghost: Book):
    ghost.apply(ghost.plan())

    assert ghost.plan(batch="B2").proposals.empty


def test_applying_the_same_plan_again_under_another_batch_inserts_nothing_and_says_so(ghost: Book):
    first, second = ghost.plan(batch="B1"), ghost.plan(batch="B2")
    ghost.apply(first)
    after = ghost.dump()

    result = ghost.apply(second)

    assert result.state is ApplyState.APPLIED
    assert (result.inserted, len(result.already_there)) == ((), 2)
    assert ghost.decisions("B2-p1") == ["PENDING_APPLY", "PENDING_APPLY", "SKIP_EXISTING", "SKIP_EXISTING"]
    assert ghost.dump() == after


def test_applying_a_batch_that_was_applied_answers_its_outcome_and_changes_nothing(ghost: Book):
    plan = ghost.plan()
    first = ghost.apply(plan)
    everything = ("reconciliation_backfill_audit", "recon.batches", "recon.consumption", "recon.corrections")
    before = ghost.dump(everything, without=())

    again = ghost.apply(plan)

    assert again.inserted == first.inserted
    assert "already" in again.detail
    assert ghost.dump(everything, without=()) == before


def test_applied_is_said_of_what_was_inserted_not_of_what_was_meant(ghost: Book):
    """Source defect 11: APPLIED was derived from what existed before. Here one row is inserted, the other only found."""
    plan = ghost.plan()
    whole = ghost.apply(plan)
    ghost.run("DELETE FROM orders WHERE order_id = %s", whole.inserted[0])
    ghost.run("DELETE FROM recon.consumption WHERE backfill_order_id = %s", whole.inserted[0])
    ghost.run("UPDATE positions SET qty = 4, status = 'open', closed_at = NULL")

    again = dataclasses.replace(plan, batch_id="B2-p1")
    result = ghost.apply(again)

    assert result.inserted == (whole.inserted[0],)
    assert result.already_there == (whole.inserted[1],)
    outcome = {r["backfill_order_id"]: r["decision"] for r in ghost.audit("B2-p1") if r["decision"] != "PENDING_APPLY"}
    assert outcome == {whole.inserted[0]: "APPLIED", whole.inserted[1]: "SKIP_EXISTING"}


def test_a_plan_without_proposals_records_its_decisions_and_no_batch(book: Book):
    book.trade("t1", "10")
    plan = book.plan()

    result = book.apply(plan, expected_digest=None)

    assert (result.state, result.refused_reason) == (ApplyState.NOTHING_TO_APPLY, "nothing_to_apply")
    assert book.decisions("B1-p1") == ["NO_GO"]
    assert book.rows("SELECT * FROM recon.batches") == []
    assert book.events() == []


def test_a_row_that_bots_never_wrote_is_not_invented(ghost: Book):
    for table in ("positions", "trade_history", "capital_ledger"):
        ghost.run(f"DELETE FROM {table}")

    result = ghost.apply(ghost.plan())

    assert (result.inserted_rows, result.books_updated) == (2, 0)
    assert ghost.dump(["positions", "trade_history", "capital_ledger"]) == {
        "positions": [],
        "trade_history": [],
        "capital_ledger": [],
    }


def test_a_plan_changed_after_it_was_made_is_the_callers_mistake(ghost: Book):
    plan = ghost.plan()
    forged = dataclasses.replace(plan, proposals=plan.proposals.assign(qty_e9=plan.proposals["qty_e9"] * 2))

    with pytest.raises(ValueError, match="digest differs"):
        ghost.apply(forged)
    assert ghost.backfill_rows() == []


def test_a_plan_that_closes_more_than_is_open_is_never_written(ghost: Book):
    plan = ghost.plan()
    doubled = plan.proposals.assign(qty_e9=plan.proposals["qty_e9"] * 2)
    forged = dataclasses.replace(plan, proposals=doubled, digest=proposals_digest(doubled))

    with pytest.raises(ValueError, match="closes 20 of trade t1, of which 10 is open"):
        ghost.apply(forged)
    assert ghost.backfill_rows() == []
    assert ghost.batch("B1-p1")["state"] == "FAILED"


def test_a_batch_id_of_another_plan_is_the_callers_mistake(ghost: Book):
    ghost.apply(ghost.plan())
    ghost.trade("t2", "5")
    ghost.executed("x3", "t2", "5")

    with pytest.raises(ValueError, match="belongs to another plan"):
        ghost.apply(ghost.plan())
    assert len(ghost.backfill_rows()) == 2
    assert ghost.batch("B1-p1")["state"] == "APPLIED"


def test_a_hook_that_fails_leaves_nothing_but_a_failed_batch_and_an_event(ghost: Book):
    before = ghost.dump()

    def fail() -> None:
        raise RuntimeError("the lights went out")

    with pytest.raises(RuntimeError, match="lights"):
        ghost.apply(ghost.plan(), at=at_point("books_updated", fail))
    assert ghost.dump() == before
    assert ghost.batch("B1-p1")["error"] == "apply_failed: RuntimeError: the lights went out"
    assert [event["type"] for event in ghost.events()] == ["apply_failed"]
