"""The apply: a plan announced, then carried out in one transaction behind every gate.

Order of things
---------------
1. ``PENDING_APPLY`` audit rows and the batch are committed. From here on a crash shows as a stuck batch.
2. One transaction: lease, batch, pause and audit table held; the account's evidence locked; the trades' rows, pending
   orders, existing ids and consumption read again and compared with the plan; rows inserted, consumption and audit
   recorded, books updated; earlier batches that a crash left behind closed; the batch set to APPLIED.
3. A refusal or a failure rolls all of 2 back, sets the batch to FAILED and leaves an ``apply_failed`` event.

What does not belong here: what the gates check (``gates``), what is booked (``books``), and any decision about trades.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
import psycopg

from recon_pipeline.apply import gates
from recon_pipeline.apply.books import CorrectionRow, RowChangedError, as_parameter, insert_corrections, update_books
from recon_pipeline.apply.dry_run import batch_record
from recon_pipeline.apply.gates import Existing, Refused
from recon_pipeline.apply.outcomes import EXPLANATIONS, ApplyResult, ApplyState, RefusedReason
from recon_pipeline.apply.records import KIND, check_plan, tuples
from recon_pipeline.domain.audit import (
    AuditRecord,
    decision_audit_records,
    order_records,
    proposal_audit_records,
)
from recon_pipeline.domain.corrections import Event, EventType, Severity
from recon_pipeline.domain.plan import ProfilePlan
from recon_pipeline.domain.quantities import from_e9
from recon_pipeline.domain.rollback import ORDERS
from recon_pipeline.domain.terms import Decision, Reason
from recon_pipeline.ledger.audit import audit_of_batch, insert_audit_records
from recon_pipeline.ledger.batches import BatchState, move_batch, read_batch, record_batches, stuck_batches
from recon_pipeline.ledger.database import (
    READER,
    WRITER,
    Connection,
    DatabaseUnavailableError,
    Row,
    connect,
    redact,
)
from recon_pipeline.ledger.events import raise_events
from recon_pipeline.ledger.leases import Lease, acquire_leases, release_leases
from recon_pipeline.ledger.session import json_rows
from recon_pipeline.ledger.statements import statement

FAULT_POINTS: Final = (
    "before_announcing",
    "announced",
    "committed_announcement",
    "gates_held",
    "ledger_compared",
    "rows_inserted",
    "consumption_recorded",
    "audit_recorded",
    "books_updated",
    "batch_applied",
    "committed_apply",
)
"""Where ``at`` is called, in this order: what a kill test kills at."""
LEASE_SECONDS: Final = 120.0
EVENT_THROTTLE_MS: Final = 600_000
"""An unattended apply that is refused every five minutes for the same reason is one event in ten."""


def nowhere(point: str) -> None:
    """Nothing happens at a fault point."""


def apply_plan(
    database_url: str,
    plan: ProfilePlan,
    *,
    run_id: str,
    now: dt.datetime,
    lease: Lease | None = None,
    owner: str = "",
    expected_digest: str | None = None,
    require_review: bool = True,
    require_pause: bool = True,
    at: Callable[[str], None] = nowhere,
) -> ApplyResult:
    """Apply the plan of one profile, or say why not.

    :param lease: the profile's lease that the caller holds; without it one is taken for ``owner`` and given back
    :param expected_digest: digest of the plan that was reviewed; None where nobody reviewed one
    :param at: called with the name of each of :data:`FAULT_POINTS`
    :raises ValueError: the plan was skipped, changed after it was made, or does not fit the batch of its id
    :raises ConservationError: the plan does not add up
    """
    if now.tzinfo is None:
        raise ValueError("now needs a time zone")
    totals = check_plan(plan)
    work = _Work(database_url, plan, run_id, now, expected_digest, totals, require_pause=require_pause, at=at)
    try:
        if not plan.proposals.empty:
            _check_review(plan, expected_digest, required=require_review)
        with leased(database_url, plan.profile_id, lease, owner or run_id) as held:
            return _carry_out(work, held)
    except Refused as refusal:
        return _refused(work, refusal)
    except (psycopg.Error, DatabaseUnavailableError, RowChangedError) as error:
        return _failed(work, error)
    except Exception as error:
        _close_failed(work, RefusedReason.APPLY_FAILED, f"{type(error).__name__}: {error}", Severity.ERROR)
        raise


def find_stuck_batches(database_url: str, *, older_than_seconds: float = 300.0) -> list[Row]:
    """Batches announced that long ago and without an outcome since, oldest first. Running the job again closes them."""
    with connect(database_url, READER, "recon stuck batches") as connection:
        return stuck_batches(connection, older_than_seconds=older_than_seconds)


@contextmanager
def leased(database_url: str, profile_id: str, lease: Lease | None, owner: str) -> Iterator[Lease]:
    """The caller's lease, or one taken for ``owner`` and given back at the end.

    :raises Refused: somebody else holds it
    """
    if lease is not None:
        yield lease
        return
    with connect(database_url, WRITER, "recon apply lease") as connection:
        taken = acquire_leases(connection, [profile_id], owner=owner, ttl_seconds=LEASE_SECONDS).get(profile_id)
    if taken is None:
        raise Refused(RefusedReason.LEASE_LOST)
    try:
        yield taken
    finally:
        # A lease that can't be given back expires by itself, and what was done under it has its own outcome.
        with (
            suppress(psycopg.Error, DatabaseUnavailableError),
            connect(database_url, WRITER, "recon apply lease") as connection,
        ):
            release_leases(connection, [taken])


@dataclass
class _Work:
    """One call of :func:`apply_plan`."""

    database_url: str
    plan: ProfilePlan
    run_id: str
    now: dt.datetime
    reviewed: str | None
    totals: dict[str, str]
    require_pause: bool
    at: Callable[[str], None]
    announced: bool = False
    """whether PENDING_APPLY was committed: only then is the batch this call's to close"""

    def result(self, state: ApplyState, **more: Any) -> ApplyResult:
        plan = self.plan
        base: dict[str, Any] = {
            "batch_id": plan.batch_id,
            "profile_id": plan.profile_id,
            "digest": plan.digest,
            "state": state,
            "proposed_rows": len(plan.proposals),
            "decision_rows": len(plan.decisions),
        }
        return ApplyResult(**(base | more))


def _check_review(plan: ProfilePlan, expected: str | None, *, required: bool) -> None:
    if expected is None and required:
        raise Refused(RefusedReason.REVIEW_REQUIRED, f"this plan's digest is {plan.digest}")
    if expected is not None and expected != plan.digest:
        raise Refused(RefusedReason.DIGEST_MISMATCH, f"reviewed {expected}, this plan is {plan.digest}")


def _carry_out(work: _Work, lease: Lease) -> ApplyResult:
    plan = work.plan
    with connect(work.database_url, WRITER, "recon apply") as connection:
        if plan.proposals.empty:
            return _only_decisions(connection, work, lease)
        work.at("before_announcing")
        with connection.transaction():
            done = _announce(connection, work, lease)
            work.at("announced")
        if done is not None:
            return done
        work.announced = True
        work.at("committed_announcement")
        with connection.transaction():
            result = _write(connection, work, lease)
            work.at("batch_applied")
        work.at("committed_apply")
    return result


def _only_decisions(connection: Connection, work: _Work, lease: Lease) -> ApplyResult:
    """Nothing to write: the decisions are recorded, and batches that a crash left behind are closed."""
    plan = work.plan
    with connection.transaction():
        gates.hold_lease(connection, lease, plan.profile_id)
        gates.need_audit_table(connection)
        recorded = any(not row["dry_run"] for row in audit_of_batch(connection, plan.batch_id))
        if not recorded:
            insert_audit_records(connection, decision_audit_records(plan, dry_run=False))
        superseded = _close_superseded(connection, work, "a later run found nothing left to apply")
    return work.result(
        ApplyState.NOTHING_TO_APPLY,
        refused_reason=RefusedReason.NOTHING_TO_APPLY.value,
        detail=EXPLANATIONS[RefusedReason.NOTHING_TO_APPLY],
        superseded_batches=superseded,
    )


def _announce(connection: Connection, work: _Work, lease: Lease) -> ApplyResult | None:
    """Write down what is about to be done; the outcome of this very batch where it was done before."""
    plan = work.plan
    gates.hold_lease(connection, lease, plan.profile_id)
    gates.need_audit_table(connection)
    if work.require_pause:
        gates.hold_pause(connection, plan.profile_id)
    record = batch_record(
        plan, BatchState.PENDING_APPLY, work.totals, run_id=work.run_id, reviewed_digest=work.reviewed
    )
    if not record_batches(connection, [record]):
        done = _resume(connection, work)
        if done is not None:
            return done
    earlier = audit_of_batch(connection, plan.batch_id)
    if not any(row["decision"] == Decision.PENDING_APPLY.value for row in earlier):
        insert_audit_records(
            connection,
            [*proposal_audit_records(plan, Decision.PENDING_APPLY), *decision_audit_records(plan, dry_run=False)],
        )
    return None


def _resume(connection: Connection, work: _Work) -> ApplyResult | None:
    """The batch exists: announced and crashed, failed, only planned, or done."""
    plan = work.plan
    row = connection.execute(statement("lock_batch"), {"batch_id": plan.batch_id}).fetchone()
    if row is None or row["profile_id"] != plan.profile_id or row["digest"] != plan.digest or row["kind"] != KIND:
        raise ValueError(f"batch id {plan.batch_id} belongs to another plan; give every plan its own")
    state = BatchState(row["state"])
    if state is BatchState.APPLIED:
        return _applied_before(connection, work)
    if state in {BatchState.REVERTED, BatchState.PARTLY_REVERTED}:
        raise Refused(RefusedReason.ALREADY_REVERTED, plan.batch_id)
    move_batch(connection, plan.batch_id, BatchState.PENDING_APPLY, from_states=[state], reviewed_digest=work.reviewed)
    return None


def _write(connection: Connection, work: _Work, lease: Lease) -> ApplyResult:
    plan = work.plan
    gates.hold_lease(connection, lease, plan.profile_id)
    row = connection.execute(statement("lock_batch"), {"batch_id": plan.batch_id}).fetchone()
    if row is not None and row["state"] == BatchState.APPLIED.value:
        return _applied_before(connection, work)
    if row is None or row["state"] != BatchState.PENDING_APPLY.value or row["digest"] != plan.digest:
        raise Refused(RefusedReason.LEASE_LOST, "the batch was closed by another run")
    if work.require_pause:
        gates.hold_pause(connection, plan.profile_id)
    gates.need_audit_table(connection)
    work.at("gates_held")

    gates.lock_account(connection, plan.account_id)
    slices = gates.trades_unchanged(connection, plan)
    existing = gates.existing_rows(connection, plan, list(plan.proposals["order_id"]))
    gates.evidence_is_free(connection, plan)
    work.at("ledger_compared")

    inserted, existing = _insert(connection, plan, existing)
    reapplied = _reapply(connection, existing)
    written = frozenset([*inserted, *reapplied])
    gates.written_exactly(connection, plan, sorted(written))
    work.at("rows_inserted")
    _consume(connection, plan, written | existing.same)
    work.at("consumption_recorded")
    insert_audit_records(connection, _outcome_records(work, written))
    work.at("audit_recorded")
    corrections = _order_corrections(connection, plan, written, existing)
    booked = update_books(connection, plan, slices, written) if written else []
    insert_corrections(connection, [*corrections, *booked])
    work.at("books_updated")
    superseded = _close_superseded(connection, work, f"superseded by {plan.batch_id}")
    if not move_batch(connection, plan.batch_id, BatchState.APPLIED, from_states=[BatchState.PENDING_APPLY]):
        raise RuntimeError(f"batch {plan.batch_id} left PENDING_APPLY although its row is locked")
    return work.result(
        ApplyState.APPLIED,
        inserted=tuple(sorted(inserted)),
        reapplied=tuple(sorted(reapplied)),
        already_there=tuple(sorted(existing.same)),
        books_updated=len(booked),
        superseded_batches=superseded,
        rows=_rows(plan, frozenset(inserted), frozenset(reapplied)),
    )


def _insert(connection: Connection, plan: ProfilePlan, existing: Existing) -> tuple[set[str], Existing]:
    """Insert what is not there yet; what was inserted is what the database returned."""
    known = existing.same | set(existing.canceled)
    records = [record for record in order_records(plan) if record["order_id"] not in known]
    inserted: set[str] = set()
    for chunk in json_rows(records):
        rows = connection.execute(statement("insert_backfill_orders"), {"records": chunk})
        inserted |= {row["order_id"] for row in rows}
    late = {record["order_id"] for record in records} - inserted
    if not late:
        return inserted, existing
    # Somebody who does not take the account's lock wrote the same ids in between.
    found = gates.existing_rows(connection, plan, sorted(late))
    if missing := late - found.same:
        raise Refused(RefusedReason.ID_COLLISION, f"{', '.join(sorted(missing))} can't be inserted")
    return inserted, Existing(existing.same | found.same, existing.canceled)


def _reapply(connection: Connection, existing: Existing) -> set[str]:
    """Set rows that a rollback canceled back to filled, each only as it was read."""
    if not existing.canceled:
        return set()
    records = [{"order_id": order_id, "before": image} for order_id, image in sorted(existing.canceled.items())]
    rows = connection.execute(statement("reapply_canceled_orders"), {"records": as_parameter(records)})
    done = {row["order_id"] for row in rows}
    if missing := set(existing.canceled) - done:
        raise Refused(RefusedReason.ID_COLLISION, f"{', '.join(sorted(missing))} can't be set back to filled")
    return done


def _consume(connection: Connection, plan: ProfilePlan, live: frozenset[str]) -> None:
    """Record which executed quantity the live rows use; rows that are on record already are not counted again."""
    on_record = connection.execute(statement("select_consumption_of_backfill_rows"), {"order_ids": sorted(live)})
    known = {row["backfill_order_id"] for row in on_record}
    cited = plan.proposals[~gates.is_dust(plan.proposals)]
    records = [
        {
            "account_id": plan.account_id,
            "exchange_order_id": row.exchange_order_id,
            "backfill_order_id": row.order_id,
            "profile_id": row.profile_id,
            "trade_id": row.trade_id,
            "batch_id": plan.batch_id,
            "qty": from_e9(row.qty_e9),
        }
        for row in tuples(cited)
        if row.order_id in live and row.order_id not in known
    ]
    for chunk in json_rows(records):
        connection.execute(statement("insert_consumption"), {"records": chunk})


def _outcome_records(work: _Work, written: frozenset[str]) -> list[AuditRecord]:
    """APPLIED for what was written, SKIP_EXISTING for what was there."""
    records = proposal_audit_records(work.plan, Decision.APPLIED, applied_at=work.now)
    there: AuditRecord = {
        "decision": Decision.SKIP_EXISTING.value,
        "reason": Reason.ALREADY_EXISTS.value,
        "applied_at": None,
    }
    return [record if record["backfill_order_id"] in written else record | there for record in records]


def _order_corrections(
    connection: Connection, plan: ProfilePlan, written: frozenset[str], existing: Existing
) -> list[CorrectionRow]:
    """Before and after images of the written backfill rows; an inserted row has no before."""
    rows = connection.execute(statement("lock_order_images"), {"order_ids": sorted(written)}).fetchall()
    images = {row["order_id"]: row["image"] for row in rows}
    return [
        {
            "batch_id": plan.batch_id,
            "profile_id": plan.profile_id,
            "table_name": ORDERS,
            "row_key": {"order_id": row.order_id},
            "before": existing.canceled.get(row.order_id),
            "after": images[row.order_id],
            "cause": {
                "kind": KIND,
                "trade_id": row.trade_id,
                "exchange_order_id": row.exchange_order_id,
                "matched_by": row.matched_by,
            },
        }
        for row in tuples(plan.proposals)
        if row.order_id in written
    ]


def _close_superseded(connection: Connection, work: _Work, error: str) -> tuple[str, ...]:
    rows = connection.execute(
        statement("close_superseded_batches"),
        {"profile_id": work.plan.profile_id, "batch_id": work.plan.batch_id, "kind": KIND, "error": error},
    ).fetchall()
    return tuple(sorted(row["batch_id"] for row in rows))


def _applied_before(connection: Connection, work: _Work) -> ApplyResult:
    """The outcome of a batch that was applied earlier, from its audit rows."""
    plan = work.plan
    audit = audit_of_batch(connection, plan.batch_id)
    by_decision: dict[str, set[str]] = {}
    for row in audit:
        by_decision.setdefault(row["decision"], set()).add(row["backfill_order_id"])
    applied = by_decision.get(Decision.APPLIED.value, set())
    again = set(plan.proposals["order_id"][plan.proposals["reapply"].to_numpy(dtype=bool)]) & applied
    there = by_decision.get(Decision.SKIP_EXISTING.value, set()) & set(plan.proposals["order_id"])
    return work.result(
        ApplyState.APPLIED,
        detail="the batch had been applied already",
        inserted=tuple(sorted(applied - again)),
        reapplied=tuple(sorted(again)),
        already_there=tuple(sorted(there)),
        rows=_rows(plan, frozenset(applied - again), frozenset(again)),
    )


def _rows(plan: ProfilePlan, inserted: frozenset[str], reapplied: frozenset[str]) -> pd.DataFrame:
    def outcome(order_id: str) -> str:
        if order_id in inserted:
            return Reason.INSERTED.value
        return "reapplied" if order_id in reapplied else Reason.ALREADY_EXISTS.value

    return plan.proposals.assign(outcome=[outcome(order_id) for order_id in plan.proposals["order_id"]])


# -- what did not work


def _refused(work: _Work, refusal: Refused) -> ApplyResult:
    finished = _close_failed(work, refusal.reason, refusal.detail, Severity.WARN)
    return finished or work.result(ApplyState.REFUSED, refused_reason=refusal.reason.value, detail=refusal.detail)


def _failed(work: _Work, error: Exception) -> ApplyResult:
    busy = isinstance(error, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected)
    reason = RefusedReason.BUSY if busy else RefusedReason.APPLY_FAILED
    said = redact(str(error), work.database_url).strip().splitlines()
    detail = f"{EXPLANATIONS[reason]}: {said[0] if said else type(error).__name__}"
    finished = _close_failed(work, reason, detail, Severity.ERROR)
    return finished or work.result(ApplyState.FAILED, refused_reason=reason.value, detail=detail)


def _close_failed(work: _Work, reason: RefusedReason, detail: str, severity: Severity) -> ApplyResult | None:
    """Set the batch to FAILED and leave an event, over a connection of its own.

    The applying transaction holds the batch's row from its beginning, so this waits for it to end. Where it turns out
    to have been committed (a connection lost while the commit's answer was on its way), the answer is its result;
    where that can't be known, the batch stays in PENDING_APPLY for the next run.
    """
    plan = work.plan
    try:
        with connect(work.database_url, WRITER, "recon apply outcome") as connection, connection.transaction():
            if work.announced and not move_batch(
                connection,
                plan.batch_id,
                BatchState.FAILED,
                from_states=[BatchState.PENDING_APPLY],
                error=f"{reason.value}: {detail}",
            ):
                batch = read_batch(connection, plan.batch_id)
                if batch is not None and batch["state"] == BatchState.APPLIED.value:
                    return _applied_before(connection, work)
            raise_events(connection, [_event(work, reason, detail, severity)], run_id=work.run_id, now=work.now)
    except (psycopg.Error, DatabaseUnavailableError) as error:
        lost = redact(str(error), work.database_url).strip().splitlines()
        return work.result(
            ApplyState.FAILED,
            refused_reason=RefusedReason.OUTCOME_UNKNOWN.value,
            detail=f"{EXPLANATIONS[RefusedReason.OUTCOME_UNKNOWN]}: {detail}; {lost[0] if lost else ''}",
        )
    return None


def _event(work: _Work, reason: RefusedReason, detail: str, severity: Severity) -> Event:
    plan = work.plan
    return Event(
        type=EventType.APPLY_FAILED,
        severity=severity,
        message=f"Backfill of profile {plan.profile_id}, batch {plan.batch_id}, was not applied: {reason.value}: {detail}",
        profile_id=plan.profile_id,
        user_id=plan.user_id,
        account_id=plan.account_id,
        details={"batch_id": plan.batch_id, "digest": plan.digest, "reason": reason.value, "detail": detail},
        scope=f"{plan.profile_id}:{EventType.APPLY_FAILED.value}:{KIND}:{reason.value}",
        throttle_ms=EVENT_THROTTLE_MS,
    )
