"""A dry run writes its audit and its batch, and could not write the bots' tables if it tried."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

import psycopg
import pytest
from psycopg.types.json import Jsonb

from recon_pipeline.apply import record_plan, set_trading_state
from recon_pipeline.domain.audit import order_records
from recon_pipeline.ledger.database import READER, connect
from recon_pipeline.ledger.statements import statement, statements
from recon_pipeline_tests.adapters.apply.book import BOT_TABLES, NOW, Book


def test_a_dry_run_changes_no_bots_table(ghost: Book):
    before = ghost.dump(BOT_TABLES, without=())
    record_plan(ghost.url, ghost.plan(), run_id="run-1")
    assert ghost.dump(BOT_TABLES, without=()) == before


def test_a_dry_run_writes_its_audit_its_decisions_and_a_planned_batch(ghost: Book):
    ghost.trade("t2", "5")
    recorded = record_plan(ghost.url, ghost.plan(), run_id="run-1")

    assert (recorded.audit_rows, recorded.batch_recorded) == (3, True)
    rows = ghost.audit("B1-p1")
    assert [(row["decision"], row["reason"], row["dry_run"], row["filled_qty"]) for row in rows] == [
        ("DRY_RUN", "eligible", True, Decimal(4)),
        ("DRY_RUN", "eligible", True, Decimal(6)),
        ("NO_GO", "missing_fill_evidence_for_large_remainder", True, None),
    ]
    assert ghost.batch("B1-p1")["state"] == "PLANNED"
    assert ghost.rows("SELECT * FROM recon.consumption") == []
    assert ghost.rows("SELECT * FROM recon.corrections") == []
    assert ghost.events() == []


def test_the_plan_is_kept_with_exact_decimals_as_text(book: Book):
    book.trade("t1", "0.123456789", price="0.1")
    book.executed("x1", "t1", "0.123456789", price="0.30000000000000000004")
    plan = book.plan()
    record_plan(book.url, plan, run_id="run-1")

    kept = book.batch("B1-p1")
    document = kept["plan"]
    (proposal,) = document["proposals"]
    assert (proposal["qty"], proposal["price"]) == ("0.123456789", "0.30000000000000000004")
    assert proposal["filled_at"].endswith(".000Z")
    (evidence,) = document["evidence"]
    assert (evidence["executed"], evidence["represented"], evidence["allocated"]) == ("0.123456789", "0", "0.123456789")
    assert document["slices"][0]["open"] == "0.123456789"
    assert (document["digest"], kept["digest"], kept["run_id"]) == (plan.digest, plan.digest, "run-1")
    assert kept["conservation"]["executed"] == "0.123456789"


def test_recording_a_plan_twice_changes_nothing(ghost: Book):
    record_plan(ghost.url, ghost.plan(), run_id="run-1")
    again = record_plan(ghost.url, ghost.plan(), run_id="run-1")
    assert (again.audit_rows, again.batch_recorded) == (0, False)
    assert len(ghost.audit("B1-p1")) == 2


def test_a_plan_that_says_nothing_leaves_no_trace(book: Book):
    recorded = record_plan(book.url, book.plan(), run_id="run-1")
    assert (recorded.audit_rows, recorded.batch_recorded) == (0, False)
    assert book.rows("SELECT * FROM recon.batches") == []


def test_a_skipped_profile_has_no_plan_to_record(ghost: Book):
    skipped = dataclasses.replace(ghost.plan(), attempted=False, skipped_reason="pause_required")
    with pytest.raises(ValueError, match="pause_required"):
        record_plan(ghost.url, skipped, run_id="run-1")


def test_a_dry_run_can_be_recorded_while_bots_trade(ghost: Book):
    set_trading_state(ghost.url, "all", "RUNNING", "bot", "", NOW)
    assert record_plan(ghost.url, ghost.plan(), run_id="run-1").audit_rows == 2


def test_a_recorded_plan_is_applied_under_its_own_batch_id(ghost: Book):
    plan = ghost.plan()
    record_plan(ghost.url, plan, run_id="run-1")
    ghost.apply(plan)
    assert ghost.decisions("B1-p1") == ["DRY_RUN", "DRY_RUN", "PENDING_APPLY", "PENDING_APPLY", "APPLIED", "APPLIED"]
    assert ghost.batch("B1-p1")["state"] == "APPLIED"


def test_the_role_of_a_dry_run_may_not_insert_a_backfill_row(ghost: Book):
    with connect(ghost.url, READER) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(
            statement("insert_backfill_orders"), {"records": Jsonb(order_records(ghost.plan()))}
        ).fetchall()
    assert ghost.backfill_rows() == []


@pytest.mark.parametrize("name", sorted(n for n, s in statements().items() if s.file in {"apply.sql", "control.sql"}))
def test_no_writing_statement_of_the_apply_is_open_to_the_role_of_a_dry_run(ghost: Book, name: str):
    """Statements that write or lock the bots' tables are refused to recon_reader; what reads changes nothing."""
    before = ghost.dump(BOT_TABLES, without=())
    needed = statements()[name]
    with connect(ghost.url, READER) as connection:
        try:
            connection.execute(needed.query, dict.fromkeys(needed.parameters))
        except psycopg.Error as error:
            refused = isinstance(error, psycopg.errors.InsufficientPrivilege)
        else:
            refused = False
    assert ghost.dump(BOT_TABLES, without=()) == before
    locks = "FOR UPDATE" in needed.source or "FOR NO KEY UPDATE" in needed.source or "FOR SHARE" in needed.source
    writes = needed.source.startswith(("INSERT INTO public", "UPDATE public"))
    if writes or (locks and "public." in needed.source):
        assert refused
