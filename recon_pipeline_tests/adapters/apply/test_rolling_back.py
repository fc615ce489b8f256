"""A rollback restores what nobody touched, leaves what somebody touched, and says which is which."""

from __future__ import annotations

import dataclasses
import datetime as dt
from decimal import Decimal

import psycopg
import pytest

from recon_pipeline.apply import ApplyState, RollbackState, preview_rollback, set_trading_state, verify_batch
from recon_pipeline.ledger.database import WRITER, connect
from recon_pipeline.ledger.leases import acquire_leases
from recon_pipeline_tests.adapters.apply.book import NOW, Book, at_point

LATER = NOW + dt.timedelta(hours=1)


@pytest.fixture
def applied(ghost: Book) -> Book:
    """The ghost of t1 closed by batch B1-p1."""
    assert ghost.apply(ghost.plan()).state is ApplyState.APPLIED
    return ghost


def without_backfills(book: Book) -> dict[str, list[str]]:
    """The ledger, backfill rows left out: a rollback keeps them, as canceled."""
    dump = book.dump()
    return dump | {"orders": [row for row in dump["orders"] if "BFILL-" not in row]}


def refusals(result) -> list[tuple[str, str, str]]:
    return [(row.table, row.key[-1], row.reason.value) for row in result.refused_rows]


def test_a_rollback_restores_every_row_that_nobody_touched(ghost: Book):
    before = ghost.dump()
    ghost.apply(ghost.plan())

    result = ghost.rollback("B1-p1")

    assert result.state is RollbackState.REVERTED
    assert without_backfills(ghost) == before
    assert [row["status"] for row in ghost.backfill_rows()] == ["canceled", "canceled"]
    assert ghost.batch("B1-p1")["state"] == "REVERTED"


def test_a_rollback_deletes_nothing(applied: Book):
    count = "SELECT (SELECT count(*) FROM orders) AS o, (SELECT count(*) FROM reconciliation_backfill_audit) AS a"
    before = applied.rows(count)
    applied.rollback("B1-p1")
    assert applied.rows(count) == before


def test_reverted_at_marks_exactly_the_audit_rows_that_were_reverted(ghost: Book):
    """Source defect 13: the rollback stamped every audit row of the batch, whatever it said."""
    ghost.trade("t2", "5")
    ghost.apply(ghost.plan())

    ghost.rollback("B1-p1")

    stamped = [(row["decision"], row["reverted_at"]) for row in ghost.audit("B1-p1")]
    assert stamped == [
        ("PENDING_APPLY", None),
        ("PENDING_APPLY", None),
        ("NO_GO", None),
        ("APPLIED", LATER),
        ("APPLIED", LATER),
    ]


def test_a_rollback_releases_what_the_batch_consumed(applied: Book):
    result = applied.rollback("B1-p1")
    rows = applied.rows("SELECT backfill_order_id, released_at FROM recon.consumption")
    assert {row["released_at"] for row in rows} == {LATER}
    assert sorted(result.released) == sorted(row["backfill_order_id"] for row in rows)


def test_a_backfill_row_that_somebody_changed_stays_and_the_others_go_back(applied: Book):
    first, second = applied.backfill_rows()
    applied.run("UPDATE orders SET price = 111 WHERE order_id = %s", first["order_id"])

    result = applied.rollback("B1-p1")

    assert result.state is RollbackState.PARTLY_REVERTED
    assert applied.order(first["order_id"])["status"] == "filled"
    assert applied.order(second["order_id"])["status"] == "canceled"
    assert ("orders", first["order_id"], "changed_since") in refusals(result)
    changed = next(row for row in result.refused_rows if row.table == "orders")
    assert changed.changed_columns == ("price",)
    marks = {
        row["backfill_order_id"]: row["reverted_at"] for row in applied.audit("B1-p1") if row["decision"] == "APPLIED"
    }
    assert marks == {first["order_id"]: None, second["order_id"]: LATER}
    live = applied.rows("SELECT backfill_order_id FROM recon.consumption WHERE released_at IS NULL")
    assert [row["backfill_order_id"] for row in live] == [first["order_id"]]
    assert applied.batch("B1-p1")["state"] == "PARTLY_REVERTED"


def test_the_image_of_a_trade_is_not_restored_where_only_some_of_its_rows_go_back(applied: Book):
    first, _ = applied.backfill_rows()
    applied.run("UPDATE orders SET price = 111 WHERE order_id = %s", first["order_id"])
    result = applied.rollback("B1-p1")
    assert [row for row in refusals(result) if row[0] != "orders"] == [
        ("capital_ledger", "t1", "trade_partly_reverted"),
        ("positions", "t1", "trade_partly_reverted"),
        ("trade_history", "t1", "trade_partly_reverted"),
    ]
    assert applied.position("t1")["status"] == "closed"


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("positions", "UPDATE positions SET avg_entry_price = 101"),
        ("trade_history", "UPDATE trade_history SET fees_usd = 0.30"),
        ("capital_ledger", "UPDATE capital_ledger SET reserved_usd = 77"),
    ],
)
def test_an_image_that_somebody_changed_stays_and_everything_else_goes_back(applied: Book, table: str, change: str):
    applied.run(change)
    touched = applied.dump([table])

    result = applied.rollback("B1-p1")

    assert refusals(result) == [(table, "t1", "changed_since")]
    assert applied.dump([table]) == touched
    assert {row["status"] for row in applied.backfill_rows()} == {"canceled"}
    assert len(result.restored) == 2


def test_a_touch_that_changes_only_updated_at_is_no_change(applied: Book):
    for table in ("orders", "positions", "trade_history", "capital_ledger"):
        applied.run(f"UPDATE {table} SET updated_at = now() + interval '1 minute'")
    assert applied.rollback("B1-p1").state is RollbackState.REVERTED


def test_a_backfill_row_that_a_bot_deleted_is_reported_as_missing(applied: Book):
    first, _ = applied.backfill_rows()
    applied.run("DELETE FROM orders WHERE order_id = %s", first["order_id"])
    result = applied.rollback("B1-p1")
    assert ("orders", first["order_id"], "row_missing") in refusals(result)


def test_a_row_that_an_operator_canceled_by_hand_counts_as_reverted(applied: Book):
    for row in applied.backfill_rows():
        applied.run("UPDATE orders SET status = 'cancelled', updated_at = now() WHERE order_id = %s", row["order_id"])

    result = applied.rollback("B1-p1")

    assert (result.state, result.canceled) == (RollbackState.REVERTED, ())
    assert applied.position("t1")["qty"] == 10
    assert applied.rows("SELECT * FROM recon.consumption WHERE released_at IS NULL") == []


def test_rolling_back_twice_changes_nothing(applied: Book):
    applied.rollback("B1-p1")
    everything = (
        "orders",
        "positions",
        "reconciliation_backfill_audit",
        "recon.batches",
        "recon.consumption",
        "recon.events",
    )
    once = applied.dump(everything, without=())

    again = applied.rollback("B1-p1", now=NOW + dt.timedelta(hours=5))

    assert (again.state, again.canceled) == (RollbackState.REVERTED, ())
    assert applied.dump(everything, without=()) == once


def test_a_partly_reverted_batch_can_be_rolled_back_further_once_the_row_is_as_it_was(applied: Book):
    first, _ = applied.backfill_rows()
    applied.run("UPDATE orders SET price = 111 WHERE order_id = %s", first["order_id"])
    applied.rollback("B1-p1")
    applied.run("UPDATE orders SET price = 110 WHERE order_id = %s", first["order_id"])

    result = applied.rollback("B1-p1")

    assert result.state is RollbackState.REVERTED
    assert applied.position("t1")["qty"] == 10
    assert {row["status"] for row in applied.backfill_rows()} == {"canceled"}


def test_a_batch_that_skipped_an_existing_row_of_another_live_batch_leaves_it(ghost: Book):
    """Source defect 13: the rollback canceled SKIP_EXISTING rows that earlier batches had written."""
    first, second = ghost.plan(batch="B1"), ghost.plan(batch="B2")
    ghost.apply(first)
    ghost.apply(second)
    before = ghost.dump()

    result = ghost.rollback("B2-p1")

    assert result.state is RollbackState.NOTHING_REVERTED
    assert {reason for _, _, reason in refusals(result)} == {"inserted_by_another_batch"}
    assert ghost.dump() == before
    assert ghost.batch("B2-p1")["state"] == "APPLIED"
    assert {row["reverted_at"] for row in ghost.audit("B2-p1")} == {None}


def test_a_batch_that_skipped_a_row_which_no_live_batch_inserted_takes_it_back(ghost: Book):
    """Written by the source system: no batch of this pipeline answers for it but the one that found it."""
    plan = ghost.plan()
    ghost.apply(plan)
    ghost.run("DELETE FROM reconciliation_backfill_audit")
    ghost.run("DELETE FROM recon.consumption")
    ghost.run("DELETE FROM recon.corrections")
    ghost.apply(dataclasses.replace(plan, batch_id="B2-p1"))
    assert len(ghost.rows("SELECT * FROM recon.consumption WHERE batch_id = 'B2-p1'")) == 2

    result = ghost.rollback("B2-p1")

    assert result.state is RollbackState.REVERTED
    assert {row["status"] for row in ghost.backfill_rows()} == {"canceled"}
    assert ghost.rows("SELECT * FROM recon.consumption WHERE released_at IS NULL") == []


def test_a_found_row_that_is_not_as_the_audit_says_is_left_alone(ghost: Book):
    plan = ghost.plan()
    ghost.apply(plan)
    ghost.run("DELETE FROM reconciliation_backfill_audit")
    ghost.apply(dataclasses.replace(plan, batch_id="B2-p1"))
    first, _ = ghost.backfill_rows()
    ghost.run("UPDATE orders SET qty = 3, quantity = 3 WHERE order_id = %s", first["order_id"])
    assert ("orders", first["order_id"], "not_as_audited") in refusals(ghost.rollback("B2-p1"))


def test_batches_of_one_trade_unwind_newest_first(book: Book):
    book.trade("t1", "10")
    book.executed("x1", "t1", "4", price="110")
    start = book.dump()
    book.apply(book.plan(batch="B1"))
    middle = without_backfills(book)
    book.executed("x2", "t1", "6", price="105", suffix="-exit-2")
    book.apply(book.plan(batch="B2"))

    assert book.rollback("B2-p1").state is RollbackState.REVERTED
    assert without_backfills(book) == middle
    assert book.rollback("B1-p1").state is RollbackState.REVERTED
    assert without_backfills(book) == start


def test_an_older_batch_of_one_trade_leaves_the_image_that_the_newer_one_wrote(book: Book):
    book.trade("t1", "10")
    book.executed("x1", "t1", "4", price="110")
    book.apply(book.plan(batch="B1"))
    book.executed("x2", "t1", "6", price="105", suffix="-exit-2")
    book.apply(book.plan(batch="B2"))

    result = book.rollback("B1-p1")

    assert [row[2] for row in refusals(result)] == ["changed_since"] * 3
    assert [row["status"] for row in book.backfill_rows()] == ["canceled", "filled"]


def test_what_was_rolled_back_is_not_proposed_again_by_itself(applied: Book):
    """Source defect 13: the canceled row still existed, so the repair was blocked for good."""
    applied.rollback("B1-p1")
    plan = applied.plan(batch="B2")
    assert plan.proposals.empty
    assert plan.no_go_reason_counts == {"previously_reverted": 1}


def test_what_was_rolled_back_is_applied_again_on_request_into_the_same_ledger(applied: Book):
    """Source defect 13: after a rollback the repair must not be blocked for good."""
    once = applied.dump()
    first = sorted(row["order_id"] for row in applied.backfill_rows())
    applied.rollback("B1-p1")

    plan = applied.plan(batch="B2", reapply=True)
    result = applied.apply(plan)

    assert (result.inserted, sorted(result.reapplied)) == ((), first)
    assert applied.dump() == once
    assert verify_batch(applied.url, "B2-p1").passed
    assert set(result.rows["outcome"]) == {"reapplied"}


def test_a_reapplied_batch_rolls_back_to_canceled_and_releases_its_own_consumption(applied: Book):
    applied.rollback("B1-p1")
    reverted = applied.dump()
    applied.apply(applied.plan(batch="B2", reapply=True))

    assert applied.rollback("B2-p1").state is RollbackState.REVERTED
    assert applied.dump() == reverted
    assert applied.rows("SELECT * FROM recon.consumption WHERE released_at IS NULL") == []


def test_a_canceled_row_that_changed_is_not_reapplied(applied: Book):
    applied.rollback("B1-p1")
    plan = applied.plan(batch="B2", reapply=True)
    first, _ = applied.backfill_rows()

    def change() -> None:
        applied.run("UPDATE orders SET qty = 3, quantity = 3 WHERE order_id = %s", first["order_id"])

    result = applied.apply(plan, at=at_point("committed_announcement", change))

    assert result.refused_reason == "id_collision"
    assert {row["status"] for row in applied.backfill_rows()} == {"canceled"}


def test_a_preview_says_what_a_rollback_would_do_and_changes_nothing(applied: Book):
    first, second = applied.backfill_rows()
    applied.run("UPDATE orders SET price = 111 WHERE order_id = %s", first["order_id"])
    everything = (
        "orders",
        "positions",
        "reconciliation_backfill_audit",
        "recon.batches",
        "recon.consumption",
        "recon.events",
    )
    before = applied.dump(everything, without=())

    preview = preview_rollback(applied.url, "B1-p1")

    assert applied.dump(everything, without=()) == before
    assert preview.state is RollbackState.PREVIEW
    assert preview.canceled == (second["order_id"],)
    done = applied.rollback("B1-p1")
    assert (done.canceled, done.restored, done.refused_rows) == (
        preview.canceled,
        preview.restored,
        preview.refused_rows,
    )
    assert set(preview.refused_frame()["reason"]) == {"changed_since", "trade_partly_reverted"}


def test_a_preview_does_not_wait_for_rows_that_somebody_locks(applied: Book):
    with psycopg.connect(applied.url) as bot:
        bot.execute("UPDATE orders SET updated_at = now()")
        assert len(preview_rollback(applied.url, "B1-p1").canceled) == 2


def test_a_batch_that_was_never_applied_is_not_rolled_back(ghost: Book):
    def resume() -> None:
        set_trading_state(ghost.url, "all", "RUNNING", "bot", "", NOW)

    ghost.apply(ghost.plan(), at=at_point("committed_announcement", resume))

    result = ghost.rollback("B1-p1")

    assert (result.state, result.refused_reason) == (RollbackState.REFUSED, "not_applied")
    assert ghost.rollback("B9-p1").refused_reason == "unknown_batch"
    assert preview_rollback(ghost.url, "B9-p1").refused_reason == "unknown_batch"


def test_a_rollback_needs_the_pause_unless_told_otherwise(applied: Book):
    set_trading_state(applied.url, "all", "RUNNING", "bot", "", NOW)
    before = applied.dump()
    result = applied.rollback("B1-p1")
    assert (result.state, result.refused_reason) == (RollbackState.REFUSED, "pause_required")
    assert applied.dump() == before
    assert applied.events()[-1]["type"] == "rollback_failed"
    assert applied.rollback("B1-p1", require_pause=False).state is RollbackState.REVERTED


def test_a_rollback_needs_the_lease(applied: Book):
    with connect(applied.url, WRITER) as connection:
        acquire_leases(connection, ["p1"], owner="somebody", ttl_seconds=60)
    result = applied.rollback("B1-p1")
    assert (result.state, result.refused_reason) == (RollbackState.REFUSED, "lease_lost")


def test_a_database_that_refuses_inside_a_rollback_leaves_everything_and_an_event(applied: Book):
    before = applied.dump()
    applied.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON capital_ledger FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    result = applied.rollback("B1-p1")
    assert (result.state, result.refused_reason) == (RollbackState.FAILED, "apply_failed")
    assert applied.dump() == before
    assert [(event["type"], event["severity"]) for event in applied.events()] == [("rollback_failed", "ERROR")]


def test_a_batch_of_the_source_system_is_rolled_back_from_its_audit_alone(applied: Book):
    """It has audit rows and nothing in the pipeline's own tables."""
    for table in ("recon.batches", "recon.corrections", "recon.consumption"):
        applied.run(f"DELETE FROM {table}")
    result = applied.rollback("B1-p1")
    assert (result.state, len(result.canceled)) == (RollbackState.REVERTED, 2)
    assert applied.position("t1")["qty"] == Decimal(0), "no before image, so nothing to put back"
