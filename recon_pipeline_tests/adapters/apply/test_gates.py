"""Each gate of an apply: closed before the announcement or between it and the write, it lets nothing through."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable

import psycopg
import pytest

from recon_pipeline.apply import ApplyState, set_trading_state
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.plan import backfill_order_id
from recon_pipeline.ledger.database import WRITER, connect
from recon_pipeline.ledger.leases import acquire_leases
from recon_pipeline_tests.adapters.apply.book import NOW, Book, at_point


def refused(book: Book, result, reason: str, *, batch: str | None = "FAILED") -> None:
    """Refused for the reason, nothing written, and somebody told."""
    assert (result.state, result.refused_reason) == (ApplyState.REFUSED, reason)
    assert (result.inserted, result.rows.empty) == ((), True)
    assert "APPLIED" not in book.decisions("B1-p1")
    assert book.rows("SELECT * FROM recon.consumption") == []
    assert book.rows("SELECT * FROM recon.corrections") == []
    (event,) = book.events()
    assert (event["type"], event["severity"], event["profile_id"]) == ("apply_failed", "WARN", "p1")
    assert reason in event["message"]
    assert event["details"]["detail"] == result.detail
    batches = book.rows("SELECT state, error FROM recon.batches WHERE batch_id = 'B1-p1'")
    assert [row["state"] for row in batches] == ([batch] if batch else [])
    if batch:
        assert batches[0]["error"].startswith(reason)


def between(book: Book, action: Callable[[], object]):
    """Apply a plan while ``action`` happens between the announcement and the write."""
    return book.apply(book.plan(), at=at_point("committed_announcement", action))


def test_without_a_reviewed_digest_nothing_is_applied(ghost: Book):
    before = ghost.dump()
    result = ghost.apply(ghost.plan(), expected_digest=None)
    refused(ghost, result, "review_required", batch=None)
    assert ghost.plan().digest in result.detail
    assert ghost.dump() == before


def test_an_operator_may_allow_unattended_applies(ghost: Book):
    result = ghost.apply(ghost.plan(), expected_digest=None, require_review=False)
    assert result.state is ApplyState.APPLIED


def test_a_plan_that_is_not_the_reviewed_one_is_refused(ghost: Book):
    reviewed = ghost.plan().digest
    ghost.trade("t2", "5")
    ghost.executed("x3", "t2", "5")
    result = ghost.apply(ghost.plan(), expected_digest=reviewed)
    refused(ghost, result, "digest_mismatch", batch=None)


def test_a_digest_given_by_mistake_is_refused_even_where_no_review_is_required(ghost: Book):
    result = ghost.apply(ghost.plan(), expected_digest="0" * 64, require_review=False)
    refused(ghost, result, "digest_mismatch", batch=None)


def test_trading_that_is_not_paused_is_refused(ghost: Book):
    set_trading_state(ghost.url, "all", "RUNNING", "test", "", NOW)
    refused(ghost, ghost.apply(ghost.plan()), "pause_required", batch=None)


def test_a_resume_between_plan_and_write_stops_the_write(ghost: Book):
    """Source defect 15: the pause was read once at the start and never again."""
    result = between(ghost, lambda: set_trading_state(ghost.url, "all", "RUNNING", "bot", "go", NOW))
    refused(ghost, result, "pause_required")
    assert "all is RUNNING" in result.detail


def test_the_pause_of_the_profile_alone_is_enough(ghost: Book):
    set_trading_state(ghost.url, "all", "RUNNING", "test", "", NOW)
    set_trading_state(ghost.url, "p1", "PAUSED", "test", "", NOW)
    assert ghost.apply(ghost.plan()).state is ApplyState.APPLIED


def test_the_pause_of_another_profile_is_none(ghost: Book):
    set_trading_state(ghost.url, "all", "RUNNING", "test", "", NOW)
    set_trading_state(ghost.url, "p2", "PAUSED", "test", "", NOW)
    refused(ghost, ghost.apply(ghost.plan()), "pause_required", batch=None)


def test_without_the_pause_requirement_running_bots_do_not_stop_an_apply(ghost: Book):
    set_trading_state(ghost.url, "all", "RUNNING", "test", "", NOW)
    assert ghost.apply(ghost.plan(), require_pause=False).state is ApplyState.APPLIED


def test_a_missing_audit_table_is_refused_before_anything_is_written(ghost: Book):
    plan = ghost.plan()
    ghost.run("ALTER TABLE reconciliation_backfill_audit RENAME TO elsewhere")
    result = ghost.apply(plan)
    ghost.run("ALTER TABLE elsewhere RENAME TO reconciliation_backfill_audit")
    refused(ghost, result, "audit_table_missing", batch=None)
    assert "recon doctor" in result.detail


def test_an_audit_table_that_takes_no_rows_any_more_rolls_everything_back_and_leaves_an_event(ghost: Book):
    """Source defect 14: audit, orders, audit were three writes, and a failed audit gave no reason and no event."""
    before = ghost.dump()
    ghost.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'disk full of audit'; END $$"
    )
    ghost.run(
        "CREATE TRIGGER refuse BEFORE INSERT ON reconciliation_backfill_audit FOR EACH ROW"
        " WHEN (NEW.decision = 'APPLIED') EXECUTE FUNCTION refuse()"
    )

    result = ghost.apply(ghost.plan())

    assert (result.state, result.refused_reason) == (ApplyState.FAILED, "apply_failed")
    assert "disk full of audit" in result.detail
    assert ghost.dump() == before
    assert ghost.decisions("B1-p1") == ["PENDING_APPLY", "PENDING_APPLY"]
    assert ghost.batch("B1-p1")["state"] == "FAILED"
    (event,) = ghost.events()
    assert (event["severity"], "disk full of audit" in event["message"]) == ("ERROR", True)


def test_a_profile_whose_lease_another_run_holds_is_refused(ghost: Book):
    with connect(ghost.url, WRITER) as connection:
        acquire_leases(connection, ["p1"], owner="somebody", ttl_seconds=60)
    refused(ghost, ghost.apply(ghost.plan()), "lease_lost", batch=None)


def test_a_lease_lost_between_announcement_and_write_stops_the_write(ghost: Book):
    """Source defect 16: a lock with a fixed life that nobody checked again."""
    with connect(ghost.url, WRITER) as connection:
        lease = acquire_leases(connection, ["p1"], owner="worker-1", ttl_seconds=60)["p1"]

    def lose() -> None:
        ghost.run("UPDATE recon.leases SET expires_at = now() - interval '1 second'")
        with connect(ghost.url, WRITER) as other:
            assert acquire_leases(other, ["p1"], owner="somebody", ttl_seconds=60)

    result = ghost.apply(ghost.plan(), lease=lease, at=at_point("committed_announcement", lose))
    refused(ghost, result, "lease_lost")


def test_a_lease_that_expired_unnoticed_stops_the_write(ghost: Book):
    with connect(ghost.url, WRITER) as connection:
        lease = acquire_leases(connection, ["p1"], owner="worker-1", ttl_seconds=60)["p1"]

    def expire() -> None:
        ghost.run("UPDATE recon.leases SET expires_at = now() - interval '1 second'")

    result = ghost.apply(ghost.plan(), lease=lease, at=at_point("committed_announcement", expire))
    refused(ghost, result, "lease_lost")


def test_a_lease_of_another_profile_is_the_callers_mistake(ghost: Book):
    with connect(ghost.url, WRITER) as connection:
        lease = acquire_leases(connection, ["p2"], owner="worker-1", ttl_seconds=60)["p2"]
    with pytest.raises(ValueError, match="the lease is of profile p2"):
        ghost.apply(ghost.plan(), lease=lease)


def test_a_lease_taken_for_one_apply_is_given_back(ghost: Book):
    ghost.apply(ghost.plan())
    (row,) = ghost.rows("SELECT owner, expires_at <= clock_timestamp() AS over FROM recon.leases")
    assert (row["owner"], row["over"]) == ("", True)


def test_a_pending_order_of_the_trade_that_appears_after_planning_stops_the_write(ghost: Book):
    result = between(ghost, lambda: ghost.record("o9", "t1", "SELL", "10", action="EXIT", status="pending_new"))
    refused(ghost, result, "pending_order_blocker")
    assert "o9" in result.detail
    assert ghost.backfill_rows() == []


def test_a_pending_order_without_a_trade_id_on_the_symbol_stops_the_write(ghost: Book):
    result = between(ghost, lambda: ghost.record("o9", None, "SELL", "10", status="new"))
    refused(ghost, result, "pending_order_blocker")


def test_an_order_of_unknown_status_is_as_pending_as_any(ghost: Book):
    result = between(ghost, lambda: ghost.record("o9", "t1", "SELL", "10", status="unknown"))
    refused(ghost, result, "pending_order_blocker")


def test_a_pending_order_of_another_symbol_or_another_trade_does_not_block(ghost: Book):
    def other() -> None:
        ghost.record("o8", None, "SELL", "10", status="new", symbol="MSFT")
        ghost.record("o9", "t9", "SELL", "10", status="new")

    assert between(ghost, other).state is ApplyState.APPLIED


def test_an_exit_that_a_bot_records_after_planning_stops_the_write(ghost: Book):
    result = between(ghost, lambda: ghost.record("real-exit", "t1", "SELL", "4", action="EXIT"))
    refused(ghost, result, "ledger_changed")
    assert "exit was 0, is 4" in result.detail
    assert ghost.backfill_rows() == []


def test_an_entry_that_grows_after_planning_stops_the_write(ghost: Book):
    result = between(
        ghost, lambda: ghost.run("UPDATE orders SET qty = 12, quantity = 12 WHERE order_id = 'entry-p1-t1'")
    )
    refused(ghost, result, "ledger_changed")
    assert "entry was 10, is 12" in result.detail


def test_an_entry_that_is_canceled_after_planning_stops_the_write(ghost: Book):
    result = between(ghost, lambda: ghost.run("UPDATE orders SET status = 'canceled' WHERE order_id = 'entry-p1-t1'"))
    refused(ghost, result, "ledger_changed")


def test_a_cited_order_that_another_trade_recorded_since_is_not_used_again(ghost: Book):
    result = between(ghost, lambda: ghost.record("x1", "elsewhere", "SELL", "4", action="EXIT"))
    refused(ghost, result, "evidence_already_consumed")
    assert "order x1: executed 4, represented 4, wanted 4" in result.detail


def test_a_cited_order_recorded_under_its_client_id_is_not_used_again(ghost: Book):
    def coverage() -> None:
        ghost.record("bot-7", "elsewhere", "SELL", "4", action="EXIT", client_order_id="bytelyst-p1-t1-exit")

    refused(ghost, between(ghost, coverage), "evidence_already_consumed")


def test_a_backfill_row_of_the_source_system_counts_as_use_of_its_order(ghost: Book):
    """It has no row in recon.consumption; its id says which order it stands for."""
    plan = ghost.plan()
    first = ghost.apply(plan)
    ghost.rollback("B1-p1")
    ghost.trade("t2", "4")
    # The same execution, written by the source system for another trade of the profile.
    at_ms = int(plan.proposals["filled_at_ms"].iloc[0])
    legacy = backfill_order_id("p1", "t2", "x1", iso_ms(at_ms))
    again = ghost.plan(batch="B2", reapply=True)
    assert len(again.proposals) == len(first.inserted)

    def source_writes() -> None:
        ghost.record(legacy, "t2", "SELL", "4", action="EXIT")
        at = dt.datetime.fromtimestamp(at_ms / 1000, tz=dt.UTC)
        ghost.run('UPDATE orders SET filled_at = %s, "timestamp" = %s WHERE order_id = %s', at, at_ms, legacy)

    result = ghost.apply(again, at=at_point("committed_announcement", source_writes))
    assert (result.state, result.refused_reason) == (ApplyState.REFUSED, "evidence_already_consumed")


def test_an_id_that_exists_with_another_quantity_is_a_collision(ghost: Book):
    plan = ghost.plan()
    taken = plan.proposals["order_id"].iloc[0]
    result = between(ghost, lambda: ghost.record(taken, "t1", "SELL", "3", action="EXIT", price="110"))
    refused(ghost, result, "id_collision")
    assert "is 3 at 110 of trade t1, the plan says 4 at 110 of trade t1" in result.detail


def test_a_row_that_was_rolled_back_after_planning_is_not_silently_there(ghost: Book):
    plan = ghost.plan(batch="B0")
    ghost.apply(plan)
    second = ghost.plan(batch="B0")
    assert second.proposals.empty
    later = ghost.plan(batch="B1")
    assert later.proposals.empty
    ghost.rollback("B0-p1")
    result = ghost.apply(dataclasses.replace(plan, batch_id="B1-p1"))
    assert (result.state, result.refused_reason) == (ApplyState.REFUSED, "previously_reverted")


def test_rows_locked_by_a_bot_for_too_long_end_in_busy_not_in_a_hang(ghost: Book):
    with psycopg.connect(ghost.url) as bot:
        bot.execute("UPDATE orders SET updated_at = now() WHERE order_id = 'entry-p1-t1'")
        result = ghost.apply(ghost.plan())
    assert (result.state, result.refused_reason) == (ApplyState.FAILED, "busy")
    assert ghost.backfill_rows() == []
    assert ghost.apply(ghost.plan(batch="B2")).state is ApplyState.APPLIED
