"""Audit rows, events and batches are written in bulk, whole, and read back exactly."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import psycopg
import pytest

from recon_pipeline.ledger.audit import audit_of_batch, audit_of_profile, insert_audit_records
from recon_pipeline.ledger.batches import (
    BatchState,
    latest_batch,
    move_batch,
    read_batch,
    record_batches,
    stuck_batches,
)
from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.events import events_since, insert_events

UTC = dt.UTC


@pytest.fixture
def reader(database_url):
    with connect(database_url, "recon_reader") as connection:
        yield connection


def _audit(trade_id, **more):
    return {
        "batch_id": "RECON-BFILL-1",
        "profile_id": "p1",
        "symbol": "BTC/USD",
        "trade_id": trade_id,
        "dry_run": True,
        "decision": "DRY_RUN",
        "reason": "eligible",
        **more,
    }


def test_a_dry_run_may_write_audit_rows_and_reads_them_back_exactly(reader):
    filled_at = dt.datetime(2024, 5, 1, 12, 0, 0, 123000, tzinfo=UTC)
    returned = insert_audit_records(
        reader,
        [
            _audit(
                "t1",
                exchange_order_id="x1",
                backfill_order_id="BFILL-1",
                filled_qty=Decimal("0.000000001"),
                filled_price=Decimal("61234.567890123456789"),
                filled_at=filled_at,
                metadata={"matchedBy": "trade_id", "openQty": Decimal("0.1")},
            ),
            _audit("t2", decision="NO_GO", reason="no_price"),
        ],
    )
    assert [(row["trade_id"], row["decision"]) for row in returned] == [("t1", "DRY_RUN"), ("t2", "NO_GO")]
    first, second = audit_of_batch(reader, "RECON-BFILL-1")
    assert first["filled_qty"] == Decimal("0.000000001")
    assert first["filled_price"] == Decimal("61234.567890123456789")
    assert first["filled_at"] == filled_at
    assert first["metadata"] == {"matchedBy": "trade_id", "openQty": "0.1"}
    assert (second["filled_qty"], second["metadata"], second["reverted_at"]) == (None, None, None)
    assert first["id"] < second["id"]


def test_audit_rows_are_inserted_all_or_none(reader):
    with pytest.raises(psycopg.errors.NotNullViolation):
        insert_audit_records(reader, [_audit(f"t{n}") for n in range(6000)] + [_audit("bad", decision=None)])
    assert audit_of_batch(reader, "RECON-BFILL-1") == []


def test_no_audit_rows_is_no_statement(reader):
    assert insert_audit_records(reader, []) == []


def test_the_newest_audit_rows_of_a_profile_come_first(reader):
    for trade_id in ("t1", "t2", "t3"):
        insert_audit_records(reader, [_audit(trade_id)])
    insert_audit_records(reader, [_audit("other", profile_id="p2")])
    assert [row["trade_id"] for row in audit_of_profile(reader, "p1", limit=2)] == ["t3", "t2"]


def test_events_are_kept_with_their_details(reader):
    before = dt.datetime.now(UTC) - dt.timedelta(minutes=1)
    ids = insert_events(
        reader,
        [
            {
                "type": "SYSTEM_ERROR",
                "severity": "ERROR",
                "message": "apply failed",
                "profile_id": "p1",
                "details": {"n": 1},
            },
            {"type": "RECONCILIATION_DEGRADED", "severity": "WARN", "message": "gap"},
        ],
    )
    assert len(ids) == 2
    newest, oldest = events_since(reader, before)
    assert [oldest["id"], newest["id"]] == ids
    assert (oldest["message"], oldest["profile_id"], oldest["details"]) == ("apply failed", "p1", {"n": 1})
    assert events_since(reader, before + dt.timedelta(hours=1)) == []


BATCH = {
    "batch_id": "RECON-BFILL-1",
    "profile_id": "p1",
    "account_id": "a",
    "kind": "exit_backfill",
    "digest": "d1",
    "plan": {"rows": [{"qty": Decimal("0.1")}]},
}


class TestBatches:
    def test_a_planned_batch_is_recorded_once(self, reader):
        assert record_batches(reader, [BATCH]) == ["RECON-BFILL-1"]
        assert record_batches(reader, [{**BATCH, "digest": "d2"}]) == []
        batch = read_batch(reader, "RECON-BFILL-1")
        assert (batch["state"], batch["digest"], batch["plan"]) == ("PLANNED", "d1", {"rows": [{"qty": "0.1"}]})
        assert read_batch(reader, "RECON-BFILL-2") is None

    def test_a_batch_moves_only_from_the_states_it_may_be_in(self, reader):
        record_batches(reader, [BATCH])
        pending, applied = BatchState.PENDING_APPLY, BatchState.APPLIED
        assert not move_batch(reader, "RECON-BFILL-1", applied, from_states=[pending])
        assert move_batch(reader, "RECON-BFILL-1", pending, from_states=[BatchState.PLANNED], reviewed_digest="d1")
        assert move_batch(reader, "RECON-BFILL-1", applied, from_states=[pending])
        batch = read_batch(reader, "RECON-BFILL-1")
        assert (batch["state"], batch["reviewed_digest"], batch["reverted_at"]) == ("APPLIED", "d1", None)
        assert batch["applied_at"] is not None

    def test_an_unknown_state_is_refused_by_the_database(self, reader):
        with pytest.raises(psycopg.errors.CheckViolation):
            record_batches(reader, [{**BATCH, "state": "DONE"}])

    def test_the_newest_batch_of_a_kind_is_found(self, reader):
        for number in (1, 2):
            record_batches(reader, [{**BATCH, "batch_id": f"b{number}"}])
        record_batches(reader, [{**BATCH, "batch_id": "b3", "kind": "rollback"}])
        assert latest_batch(reader, "p1", "exit_backfill", [BatchState.PLANNED])["batch_id"] == "b2"
        assert latest_batch(reader, "p1", "exit_backfill", [BatchState.APPLIED]) is None

    def test_a_batch_that_waits_too_long_for_its_outcome_is_stuck(self, reader):
        record_batches(reader, [{**BATCH, "batch_id": f"b{n}", "state": "PENDING_APPLY"} for n in range(3)] + [BATCH])
        reader.execute(
            "UPDATE recon.batches SET updated_at = now() - interval '10 minutes' WHERE batch_id IN ('b0', 'b1')"
        )
        reader.execute("UPDATE recon.batches SET state = 'APPLIED' WHERE batch_id = 'b1'")
        [stuck] = stuck_batches(reader, older_than_seconds=300)
        assert (stuck["batch_id"], stuck["age_seconds"]) == ("b0", 600)
        assert stuck_batches(reader, older_than_seconds=3600) == []


def test_a_live_backfill_row_consumes_once_whoever_writes_it(database_url):
    insert = (
        "INSERT INTO recon.consumption (account_id, exchange_order_id, backfill_order_id, profile_id, trade_id, "
        "batch_id, qty) VALUES ('a', 'x', 'BFILL-1', 'p1', 't1', %s, %s)"
    )
    with connect(database_url, "recon_writer") as connection:
        connection.execute(insert, ("b1", 1))
        with pytest.raises(psycopg.errors.UniqueViolation, match="consumption_live_backfill_order_key"):
            connection.execute(insert, ("b2", 1))
        connection.execute("UPDATE recon.consumption SET released_at = now()")
        connection.execute(insert, ("b2", 1))
        for qty in (0, -1, "NaN", "Infinity"):
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute(insert.replace("BFILL-1", "BFILL-2"), ("b3", qty))
