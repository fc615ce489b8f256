"""The corrections of a cycle's stage for one profile, in one transaction behind the profile's lease.

Order of things
---------------
One transaction: lease held; the batch recorded; the account's evidence locked; the rows locked, compared with what they were
when this was decided, and counted again per cited exchange order; rows updated and inserted, and read back; consumption given
back and taken; books of the touched trades updated; what changed recorded in ``recon.corrections``; the batch set to APPLIED.
A change that no longer fits is postponed and does not fail the others. No pause is needed: bots trade on, and whatever they
wrote meanwhile is what the comparison finds.

A crash leaves all of it or nothing, and nothing has to be tidied up: a batch is there when it was applied. A refusal or a
failure of the whole rolls back, and leaves an ``apply_failed`` event. What does not belong here: what may be written
(``correction_gates``), how rows are written (``correction_rows``), what is booked (``correction_books``), and any decision
about orders.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import psycopg

from recon_pipeline.apply import gates
from recon_pipeline.apply.applying import EVENT_THROTTLE_MS, leased, nowhere
from recon_pipeline.apply.books import RowChangedError, insert_corrections
from recon_pipeline.apply.correction_books import WrittenMeanwhileError, update_trade_books
from recon_pipeline.apply.correction_gates import (
    check_corrections,
    judge,
    judge_evidence,
    lock_rows,
    read_table,
    trade_states,
)
from recon_pipeline.apply.correction_rows import (
    check_represented,
    check_written,
    consume,
    order_corrections,
    write_orders,
)
from recon_pipeline.apply.gates import Refused
from recon_pipeline.apply.outcomes import EXPLANATIONS, ApplyState, CorrectionResult, RefusedReason
from recon_pipeline.domain.corrections import CorrectionPlan, Event, EventType, Handler, OrderChange, Severity
from recon_pipeline.domain.quantities import decimal_text_e9
from recon_pipeline.domain.rollback import ORDERS
from recon_pipeline.ledger.batches import BatchState, move_batch, read_batch, record_batches
from recon_pipeline.ledger.database import WRITER, Connection, DatabaseUnavailableError, connect, redact
from recon_pipeline.ledger.events import raise_events
from recon_pipeline.ledger.leases import Lease
from recon_pipeline.ledger.statements import statement

FAULT_POINTS: Final = (
    "gates_held",
    "rows_compared",
    "rows_written",
    "consumption_recorded",
    "books_updated",
    "batch_applied",
    "committed_corrections",
)
"""Where ``at`` is called, in this order: what a kill test kills at."""
ATTEMPTS: Final = 3
"""How often it is looked again where a bot inserts the same row in between."""
VERSION: Final = 1


Also: TypeAlias = Callable[[Connection, CorrectionResult], None]


class _NothingLeftError(Exception):
    """Every change was postponed: the transaction has nothing to commit."""

    def __init__(self, result: CorrectionResult) -> None:
        self.result = result
        super().__init__("nothing left to write")


def apply_corrections(
    database_url: str,
    plan: CorrectionPlan,
    *,
    run_id: str,
    now: dt.datetime,
    lease: Lease | None = None,
    owner: str = "",
    also: Also | None = None,
    at: Callable[[str], None] = nowhere,
) -> CorrectionResult:
    """Write the changes of the plan that still fit; say of every other one why not.

    :param lease: the profile's lease that the caller holds; without it one is taken for ``owner`` and given back
    :param also: what the caller writes into the pipeline's own tables in the same transaction, at its end; called only where
        something was written, and again where the transaction has to begin again
    :param at: called with the name of each of :data:`FAULT_POINTS`
    :raises ValueError: the plan is no plan of one profile, writes quantity that it does not cite, or reuses a batch id
    """
    if now.tzinfo is None:
        raise ValueError("now needs a time zone")
    check_corrections(plan)
    work = _Work(database_url, plan, run_id, now, at, also)
    if not plan.changes:
        return work.result(ApplyState.NOTHING_TO_APPLY)
    try:
        with leased(database_url, plan.profile_id, lease, owner or run_id) as held:
            return _carry_out(work, held)
    except Refused as refusal:
        return _refused(work, refusal)
    except (psycopg.Error, DatabaseUnavailableError, RowChangedError, WrittenMeanwhileError) as error:
        return _failed(work, error)


@dataclass
class _Work:
    """One call of :func:`apply_corrections`."""

    database_url: str
    plan: CorrectionPlan
    run_id: str
    now: dt.datetime
    at: Callable[[str], None]
    also: Also | None
    writing: bool = False
    """whether a transaction was begun whose outcome may be unknown"""

    def result(self, state: ApplyState, **more: Any) -> CorrectionResult:
        plan = self.plan
        return CorrectionResult(plan.batch_id, plan.profile_id, plan.digest, state, **more)


def _carry_out(work: _Work, lease: Lease) -> CorrectionResult:
    with connect(work.database_url, WRITER, "recon corrections") as connection:
        for attempt in range(ATTEMPTS):
            try:
                work.writing = True
                with connection.transaction():
                    result = _write(connection, work, lease)
                    if work.also is not None and result.state is ApplyState.APPLIED:
                        work.also(connection, result)
                    work.at("batch_applied")
                work.at("committed_corrections")
            except _NothingLeftError as nothing:
                return nothing.result
            except WrittenMeanwhileError:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return result
    raise RuntimeError("an attempt ended neither in a result nor in an error")


def _write(connection: Connection, work: _Work, lease: Lease) -> CorrectionResult:
    plan = work.plan
    gates.hold_lease(connection, lease, plan.profile_id)
    if not record_batches(connection, [_batch(work)]):
        return _applied_before(connection, work)
    work.at("gates_held")

    gates.lock_account(connection, plan.account_id)
    table = read_table(connection)
    images, rows = lock_rows(connection, plan)
    states = trade_states(connection, plan)
    judgement = judge(plan, table, images, rows, states)
    judge_evidence(connection, plan, judgement, rows)
    if not judgement.chosen:
        raise _NothingLeftError(work.result(ApplyState.NOTHING_TO_APPLY, postponed=judgement.postponed))
    work.at("rows_compared")

    chosen = [judgement.chosen[order_id] for order_id in sorted(judgement.chosen)]
    write_orders(connection, chosen)
    check_written(connection, chosen)
    work.at("rows_written")
    consume(connection, plan, chosen, work.now)
    check_represented(connection, plan, judgement, rows)
    work.at("consumption_recorded")
    booked = update_trade_books(
        connection,
        plan,
        [found.change for found in chosen if found.change.handler is not Handler.SUB_TAG],
        {trade_id: state for trade_id, (state, _) in states.items()},
        {trade_id: state for trade_id, (state, _) in trade_states(connection, plan).items()},
    )
    insert_corrections(connection, [*order_corrections(connection, plan, chosen), *booked])
    work.at("books_updated")
    if not move_batch(connection, plan.batch_id, BatchState.APPLIED, from_states=[BatchState.PENDING_APPLY]):
        raise RuntimeError(f"batch {plan.batch_id} left PENDING_APPLY although its row is locked")
    return work.result(
        ApplyState.APPLIED,
        applied=tuple(found.change.order_id for found in chosen),
        postponed=judgement.postponed,
        books_updated=len(booked),
    )


def _batch(work: _Work) -> dict[str, Any]:
    plan = work.plan
    return {
        "batch_id": plan.batch_id,
        "profile_id": plan.profile_id,
        "account_id": plan.account_id,
        "kind": plan.stage.value,
        "state": BatchState.PENDING_APPLY.value,
        "digest": plan.digest,
        "plan": {
            "version": VERSION,
            "changes": [_change(change) for change in plan.changes],
            "executed": {order_id: decimal_text_e9(units) for order_id, units in sorted(plan.executed_e9.items())},
        },
        "run_id": work.run_id,
    }


def _change(change: OrderChange) -> dict[str, Any]:
    return {
        "trade_id": change.trade_id,
        "order_id": change.order_id,
        "handler": change.handler.value,
        "values": dict(change.values),
        "expected": None if change.expected is None else dict(change.expected),
        "cause": dict(change.cause),
        "exchange_order_id": change.exchange_order_id,
        "represents": decimal_text_e9(change.represents_e9),
    }


def _applied_before(connection: Connection, work: _Work) -> CorrectionResult:
    """The outcome of a batch that was applied earlier, from what it recorded."""
    plan = work.plan
    row = read_batch(connection, plan.batch_id)
    if row is None or (row["profile_id"], row["digest"], row["kind"]) != (
        plan.profile_id,
        plan.digest,
        plan.stage.value,
    ):
        raise ValueError(f"batch id {plan.batch_id} belongs to another plan; give every plan its own")
    written = connection.execute(statement("select_written_corrections"), {"batch_id": plan.batch_id}).fetchall()
    orders = sorted(row["row_key"]["order_id"] for row in written if row["table_name"] == ORDERS)
    return work.result(
        ApplyState.APPLIED,
        detail="the batch had been applied already",
        applied=tuple(orders),
        books_updated=len(written) - len(orders),
    )


# -- what did not work


def _refused(work: _Work, refusal: Refused) -> CorrectionResult:
    lost = _tell(work, refusal.reason, refusal.detail, Severity.WARN)
    detail = f"{refusal.detail}; {lost}" if lost else refusal.detail
    return work.result(ApplyState.REFUSED, refused_reason=refusal.reason.value, detail=detail)


def _failed(work: _Work, error: Exception) -> CorrectionResult:
    busy = isinstance(error, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected | WrittenMeanwhileError)
    reason = RefusedReason.BUSY if busy else RefusedReason.APPLY_FAILED
    said = redact(str(error), work.database_url).strip().splitlines()
    detail = f"{EXPLANATIONS[reason]}: {said[0] if said else type(error).__name__}"
    if work.writing and isinstance(error, psycopg.OperationalError) and not busy:
        try:
            done = _outcome(work)
        except (psycopg.Error, DatabaseUnavailableError):
            reason = RefusedReason.OUTCOME_UNKNOWN
            detail = f"{EXPLANATIONS[reason]}: {detail}"
        else:
            if done is not None:
                return done
    lost = _tell(work, reason, detail, Severity.ERROR)
    return work.result(ApplyState.FAILED, refused_reason=reason.value, detail=f"{detail}; {lost}" if lost else detail)


def _outcome(work: _Work) -> CorrectionResult | None:
    """What became of a transaction whose answer was lost; None where it was rolled back.

    That transaction holds the account's lock to its end, so waiting for the lock waits for the end.
    """
    plan = work.plan
    with connect(work.database_url, WRITER, "recon corrections outcome") as connection, connection.transaction():
        gates.lock_account(connection, plan.account_id)
        return _applied_before(connection, work) if read_batch(connection, plan.batch_id) is not None else None


def _tell(work: _Work, reason: RefusedReason, detail: str, severity: Severity) -> str:
    """Leave an event; why that was not possible either, empty where it was."""
    plan = work.plan
    event = Event(
        type=EventType.APPLY_FAILED,
        severity=severity,
        message=f"Corrections ({plan.stage.value}) of profile {plan.profile_id}, batch {plan.batch_id}, were not applied:"
        f" {reason.value}: {detail}",
        profile_id=plan.profile_id,
        user_id=plan.user_id,
        account_id=plan.account_id,
        details={"batch_id": plan.batch_id, "digest": plan.digest, "reason": reason.value, "detail": detail},
        scope=f"{plan.profile_id}:{EventType.APPLY_FAILED.value}:{plan.stage.value}:{reason.value}",
        throttle_ms=EVENT_THROTTLE_MS,
    )
    try:
        with connect(work.database_url, WRITER, "recon corrections outcome") as connection:
            raise_events(connection, [event], run_id=work.run_id, now=work.now)
    except (psycopg.Error, DatabaseUnavailableError) as error:
        said = redact(str(error), work.database_url).strip().splitlines()
        return f"the event could not be written: {said[0] if said else type(error).__name__}"
    return ""
