"""The rollback: the inverse of an applied batch, in one transaction, behind the gates of an apply.

What does not belong here: which rows go back and why the others stay (``domain.rollback``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from recon_pipeline.apply import gates
from recon_pipeline.apply.applying import leased, nowhere
from recon_pipeline.apply.books import (
    BOOKS,
    CorrectionRow,
    RowChangedError,
    RowImage,
    as_parameter,
    insert_corrections,
    lock_images,
    write_rows,
)
from recon_pipeline.apply.gates import Refused
from recon_pipeline.apply.outcomes import EXPLANATIONS, RefusedReason, RollbackResult, RollbackState
from recon_pipeline.apply.records import KIND
from recon_pipeline.domain.rollback import (
    ORDERS,
    AuditedRow,
    Correction,
    RollbackInputs,
    RollbackPlan,
    RowKey,
    plan_rollback,
)
from recon_pipeline.domain.terms import Decision
from recon_pipeline.ledger.audit import audit_of_batch
from recon_pipeline.ledger.batches import BatchState, move_batch, read_batch
from recon_pipeline.ledger.database import (
    READER,
    WRITER,
    Connection,
    DatabaseUnavailableError,
    Row,
    connect,
    redact,
)
from recon_pipeline.ledger.events import insert_events
from recon_pipeline.ledger.leases import Lease
from recon_pipeline.ledger.statements import statement

FAULT_POINTS: Final = ("gates_held", "orders_canceled", "books_restored", "batch_reverted", "committed_rollback")
ROLLBACK_PREFIX: Final = "RECON-ROLLBACK-"
ROLLBACK_KIND: Final = "rollback"
_LIVE: Final = (BatchState.APPLIED, BatchState.PARTLY_REVERTED)
_AUDITED: Final = frozenset({Decision.APPLIED.value, Decision.SKIP_EXISTING.value})


@dataclass(frozen=True)
class _Batch:
    """The batch as far as a rollback has to know it."""

    batch_id: str
    profile_id: str
    account_id: str
    state: BatchState | None
    """None: written before batches were recorded; its audit rows are all there is"""


def preview_rollback(database_url: str, batch_id: str) -> RollbackResult:
    """What a rollback of the batch would do now, and which rows would stay and why. Changes and locks nothing."""
    with connect(database_url, READER, "recon rollback preview") as connection:
        try:
            batch = _find(connection, batch_id)
        except Refused as refusal:
            return RollbackResult(batch_id, "", RollbackState.REFUSED, refusal.reason.value, refusal.detail)
        plan, _ = _plan(connection, batch)
    return _result(batch, RollbackState.PREVIEW, plan)


def rollback_batch(
    database_url: str,
    batch_id: str,
    *,
    run_id: str,
    now: dt.datetime,
    lease: Lease | None = None,
    owner: str = "",
    require_pause: bool = True,
    at: Callable[[str], None] = nowhere,
) -> RollbackResult:
    """Take the batch back as far as nobody changed it since. Rolling back twice changes nothing.

    :param lease: the profile's lease that the caller holds; without it one is taken for ``owner`` and given back
    """
    if now.tzinfo is None:
        raise ValueError("now needs a time zone")
    batch: _Batch | None = None
    try:
        with connect(database_url, READER, "recon rollback") as connection:
            batch = _find(connection, batch_id)
        with (
            leased(database_url, batch.profile_id, lease, owner or run_id) as held,
            connect(database_url, WRITER, "recon rollback") as connection,
        ):
            with connection.transaction():
                result = _take_back(connection, batch, held, now, run_id, at, require_pause=require_pause)
                at("batch_reverted")
            at("committed_rollback")
            return result
    except Refused as refusal:
        reason, detail, state = refusal.reason, refusal.detail, RollbackState.REFUSED
    except (psycopg.Error, DatabaseUnavailableError, RowChangedError) as error:
        busy = isinstance(error, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected)
        reason = RefusedReason.BUSY if busy else RefusedReason.APPLY_FAILED
        said = redact(str(error), database_url).strip().splitlines()
        detail, state = f"{EXPLANATIONS[reason]}: {said[0] if said else ''}", RollbackState.FAILED
    return _not_done(database_url, batch_id, batch, run_id, reason, detail, state)


def _find(connection: Connection, batch_id: str) -> _Batch:
    row = read_batch(connection, batch_id)
    if row is not None:
        state = BatchState(row["state"])
        if row["kind"] != KIND:
            raise Refused(RefusedReason.NOT_A_BACKFILL, f"{batch_id} is of {row['kind']}")
        if state not in {*_LIVE, BatchState.REVERTED}:
            raise Refused(RefusedReason.NOT_APPLIED, f"{batch_id} is {state.value}")
        return _Batch(batch_id, row["profile_id"], row["account_id"], state)
    audited = [row for row in audit_of_batch(connection, batch_id) if _is_outcome(row)]
    if not audited:
        raise Refused(RefusedReason.UNKNOWN_BATCH, batch_id)
    profile_id = audited[0]["profile_id"]
    profiles = connection.execute(statement("select_profiles"), {"profile_ids": [profile_id]}).fetchall()
    return _Batch(batch_id, profile_id, profiles[0]["account_id"] if profiles else "", None)


def _is_outcome(row: Row) -> bool:
    """An audit row that says of a backfill row that it was written or found; what a dry run says is none."""
    return row["decision"] in _AUDITED and bool(row["backfill_order_id"]) and not row["dry_run"]


def _plan(connection: Connection, batch: _Batch) -> tuple[RollbackPlan, dict[RowKey, RowImage]]:
    """The inverse of the batch, and the rows as they are now."""
    audited = tuple(
        AuditedRow(
            audit_id=row["id"],
            decision=Decision(row["decision"]),
            order_id=row["backfill_order_id"],
            trade_id=row["trade_id"] or "",
            image={"qty": row["filled_qty"], "price": row["filled_price"]},
        )
        for row in audit_of_batch(connection, batch.batch_id)
        if _is_outcome(row) and row["reverted_at"] is None
    )
    records = connection.execute(statement("select_corrections_of_batch"), {"batch_id": batch.batch_id}).fetchall()
    corrections = tuple(
        Correction(
            correction_id=row["id"],
            table=row["table_name"],
            key=_key(row["table_name"], row["row_key"]),
            before=None if row["before"] is None else RowImage.of(row["before"]).values,
            after=RowImage.of(row["after"]).values,
        )
        for row in records
    )
    ids = sorted({row.order_id for row in audited})
    current = _current(connection, batch.profile_id, ids, {c.key[-1] for c in corrections if c.table != ORDERS})
    elsewhere = connection.execute(
        statement("select_rows_inserted_elsewhere"), {"order_ids": ids, "batch_id": batch.batch_id}
    ).fetchall()
    inputs = RollbackInputs(
        batch_id=batch.batch_id,
        audited=audited,
        corrections=corrections,
        current={key: image.values for key, image in current.items()},
        inserted_elsewhere=frozenset(row["backfill_order_id"] for row in elsewhere),
    )
    return plan_rollback(inputs), current


def _key(table: str, row_key: Mapping[str, Any]) -> RowKey:
    if table == ORDERS:
        return (ORDERS, str(row_key["order_id"]))
    return (table, str(row_key["profile_id"]), str(row_key["trade_id"]))


def _current(
    connection: Connection, profile_id: str, order_ids: list[str], trade_ids: set[str]
) -> dict[RowKey, RowImage]:
    rows = connection.execute(
        statement("select_row_images"),
        {"order_ids": order_ids, "profile_id": profile_id, "trade_ids": sorted(trade_ids)},
    ).fetchall()
    images: dict[RowKey, RowImage] = {}
    for row in rows:
        table = row["table_name"]
        key: RowKey = (table, row["key"]) if table == ORDERS else (table, profile_id, row["key"])
        images[key] = RowImage.of(row["image"])
    return images


def _take_back(
    connection: Connection,
    batch: _Batch,
    lease: Lease,
    now: dt.datetime,
    run_id: str,
    at: Callable[[str], None],
    *,
    require_pause: bool,
) -> RollbackResult:
    gates.hold_lease(connection, lease, batch.profile_id)
    if batch.state is not None:
        row = connection.execute(statement("lock_batch"), {"batch_id": batch.batch_id}).fetchone()
        if row is not None and row["state"] == BatchState.REVERTED.value:
            nothing = RollbackPlan(batch.batch_id)
            return _result(batch, RollbackState.REVERTED, nothing, "the batch had been reverted already")
    if require_pause:
        gates.hold_pause(connection, batch.profile_id)
    gates.need_audit_table(connection)
    gates.lock_account(connection, batch.account_id)
    at("gates_held")

    hinted, _ = _plan(connection, batch)
    _lock_rows(connection, batch, hinted)
    plan, current = _plan(connection, batch)
    if plan.empty:
        return _result(batch, RollbackState.NOTHING_REVERTED, plan)
    cancels = [change for change in plan.changes if change.table == ORDERS]
    records = [{"order_id": change.key[1], "before": current[change.key].text} for change in cancels]
    rows = connection.execute(statement("cancel_backfill_orders"), {"records": as_parameter(records)}).fetchall()
    if len(rows) != len(cancels):
        raise RowChangedError("orders: rows are not as they were read although they are locked")
    canceled = connection.execute(
        statement("lock_order_images"), {"order_ids": [change.key[1] for change in cancels]}
    ).fetchall()
    images: dict[RowKey, str] = {(ORDERS, row["order_id"]): row["image"] for row in canceled}
    at("orders_canceled")
    for book in BOOKS:
        restored: dict[str, tuple[RowImage, dict[str, Any]]] = {}
        for change in plan.changes:
            if change.table == book.table:
                _, so_far = restored.get(change.trade_id, (None, {}))
                restored[change.trade_id] = (current[change.key], {**so_far, **change.restored})
        written = write_rows(connection, book, batch.profile_id, restored)
        images |= {(book.table, batch.profile_id, trade_id): image for trade_id, image in written.items()}
    insert_corrections(connection, _outbox_rows(batch, plan, current, images))
    at("books_restored")
    _mark(connection, batch, plan, now)
    state = RollbackState.REVERTED if plan.complete else RollbackState.PARTLY_REVERTED
    if batch.state is not None:
        target = BatchState.REVERTED if plan.complete else BatchState.PARTLY_REVERTED
        move_batch(connection, batch.batch_id, target, from_states=_LIVE)
    result = _result(batch, state, plan)
    insert_events(connection, [_reverted_event(batch, result, run_id)])
    return result


def _outbox_rows(
    batch: _Batch, plan: RollbackPlan, current: Mapping[RowKey, RowImage], images: Mapping[RowKey, str]
) -> list[CorrectionRow]:
    """What the rollback changed, for whoever reads the outbox; under a batch id of its own, for none of it is the batch's."""
    trades = {change.key: change.trade_id for change in plan.changes}
    return [
        {
            "batch_id": f"{ROLLBACK_PREFIX}{batch.batch_id}",
            "profile_id": batch.profile_id,
            "table_name": key[0],
            "row_key": {"order_id": key[1]} if key[0] == ORDERS else {"profile_id": key[1], "trade_id": key[2]},
            "before": current[key].text,
            "after": after,
            "cause": {"kind": ROLLBACK_KIND, "trade_id": trades[key], "reverted_batch_id": batch.batch_id},
        }
        for key, after in images.items()
    ]


def _lock_rows(connection: Connection, batch: _Batch, hinted: RollbackPlan) -> None:
    """Hold every row that the rollback may change; it is planned again on what is read behind the locks."""
    keys = [*(change.key for change in hinted.changes), *(row.key for row in hinted.refused)]
    ids = sorted({key[1] for key in keys if key[0] == ORDERS})
    connection.execute(statement("lock_order_images"), {"order_ids": ids})
    for book in BOOKS:
        lock_images(connection, book, batch.profile_id, {key[-1] for key in keys if key[0] == book.table})


def _mark(connection: Connection, batch: _Batch, plan: RollbackPlan, now: dt.datetime) -> None:
    """Stamp exactly what was reverted, and give the executed quantity back."""
    connection.execute(statement("mark_audit_reverted"), {"ids": list(plan.audit_ids), "reverted_at": now})
    connection.execute(statement("mark_corrections_reverted"), {"ids": list(plan.correction_ids), "reverted_at": now})
    connection.execute(
        statement("release_consumption"),
        {"batch_id": batch.batch_id, "order_ids": list(plan.released), "reverted_at": now},
    )


def _result(batch: _Batch, state: RollbackState, plan: RollbackPlan, detail: str = "") -> RollbackResult:
    return RollbackResult(
        batch_id=batch.batch_id,
        profile_id=batch.profile_id,
        state=state,
        detail=detail,
        plan=plan,
        canceled=tuple(change.key[1] for change in plan.changes if change.table == ORDERS),
        restored=tuple(dict.fromkeys(change.key for change in plan.changes if change.table != ORDERS)),
        released=plan.released,
    )


def _reverted_event(batch: _Batch, result: RollbackResult, run_id: str) -> dict[str, Any]:
    stays = [f"{row.table} {'/'.join(row.key[1:])}: {row.reason.value}" for row in result.refused_rows]
    return {
        "type": "backfill_reverted",
        "severity": "WARN" if stays else "INFO",
        "message": f"Batch {batch.batch_id} of profile {batch.profile_id} was rolled back: {len(result.canceled)} rows"
        f" canceled, {len(result.restored)} restored, {len(stays)} left as they are",
        "profile_id": batch.profile_id,
        "account_id": batch.account_id,
        "run_id": run_id,
        "details": {"batch_id": batch.batch_id, "canceled": list(result.canceled), "left": stays},
    }


def _not_done(
    database_url: str,
    batch_id: str,
    batch: _Batch | None,
    run_id: str,
    reason: RefusedReason,
    detail: str,
    state: RollbackState,
) -> RollbackResult:
    """Nothing was changed; say so to whoever reads events. Where even that fails, the result says it."""
    profile_id = batch.profile_id if batch else ""
    event = {
        "type": "rollback_failed",
        "severity": "ERROR" if state is RollbackState.FAILED else "WARN",
        "message": f"Batch {batch_id} was not rolled back: {reason.value}: {detail}",
        "profile_id": profile_id or None,
        "account_id": batch.account_id if batch else None,
        "run_id": run_id,
        "details": {"batch_id": batch_id, "reason": reason.value, "detail": detail},
    }
    try:
        with connect(database_url, WRITER, "recon rollback outcome") as connection:
            insert_events(connection, [event])
    except (psycopg.Error, DatabaseUnavailableError) as error:
        said = redact(str(error), database_url).strip().splitlines()
        detail = f"{detail}; the event could not be written: {said[0] if said else ''}"
    return RollbackResult(batch_id, profile_id, state, reason.value, detail)
