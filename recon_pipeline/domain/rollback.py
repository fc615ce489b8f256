"""The inverse of an applied batch: which rows go back, which stay because somebody changed them since, and why.

A rollback cancels backfill rows by status and puts the before images of positions, trade history and capital back. It
deletes nothing, and it takes back nothing that is not this batch's. Every row is judged by itself, against the image
that the apply left; ``updated_at`` says when, not what, and is not compared. What does not belong here: reading and
writing rows.

Reasons why a row stays
-----------------------
changed_since               somebody changed the row after the apply
row_missing                 somebody deleted it
inserted_by_another_batch   this batch found the row already there, and a live batch is the one that inserted it
not_as_audited              this batch found the row already there, and it no longer is what the audit says
trade_partly_reverted       the image of a trade is all or nothing, and not all backfill rows of the trade go back

A row that somebody canceled by hand is where a rollback would put it: it counts as reverted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeAlias

from recon_pipeline.domain.bookkeeping import Image, same_value
from recon_pipeline.domain.terms import Decision, normalise_status

ORDERS: Final = "orders"
CANCELED: Final = "canceled"
_UNCOMPARED: Final = frozenset({"updated_at"})

RowKey: TypeAlias = tuple[str, ...]
"""Table name, then the values of its key: ('orders', order_id) or ('positions', profile_id, trade_id)."""


class Refusal(StrEnum):
    """Why a row of a batch is not rolled back."""

    CHANGED_SINCE = "changed_since"
    ROW_MISSING = "row_missing"
    INSERTED_BY_ANOTHER_BATCH = "inserted_by_another_batch"
    NOT_AS_AUDITED = "not_as_audited"
    TRADE_PARTLY_REVERTED = "trade_partly_reverted"


@dataclass(frozen=True)
class AuditedRow:
    """An APPLIED or SKIP_EXISTING audit row of the batch that was not reverted yet."""

    audit_id: int
    decision: Decision
    order_id: str
    trade_id: str
    image: Image
    """what the audit says of the row: qty and price"""


@dataclass(frozen=True)
class Correction:
    """A row of ``recon.corrections`` that was not reverted yet."""

    correction_id: int
    table: str
    key: RowKey
    before: Image | None
    """None: the apply inserted the row"""
    after: Image


@dataclass(frozen=True)
class RowChange:
    """One row that goes back: compare-and-set from ``current`` to ``restored``."""

    table: str
    key: RowKey
    trade_id: str
    current: Image
    restored: dict[str, Any]


@dataclass(frozen=True)
class RefusedRow:
    """One row that stays, and why."""

    table: str
    key: RowKey
    trade_id: str
    reason: Refusal
    changed_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class RollbackPlan:
    """The inverse of a batch, as far as it can be taken back."""

    batch_id: str
    changes: tuple[RowChange, ...] = ()
    refused: tuple[RefusedRow, ...] = ()
    audit_ids: tuple[int, ...] = ()
    """audit rows to stamp with reverted_at"""
    released: tuple[str, ...] = ()
    """backfill rows whose consumption by this batch is released"""
    correction_ids: tuple[int, ...] = ()
    """corrections to stamp with reverted_at"""

    @property
    def complete(self) -> bool:
        """Whether nothing of the batch stays."""
        return not self.refused

    @property
    def empty(self) -> bool:
        """Whether there is nothing to take back at all."""
        return not self.changes and not self.audit_ids and not self.correction_ids


@dataclass(frozen=True)
class RollbackInputs:
    """Everything a rollback is decided from: what the batch did, and what is there now."""

    batch_id: str
    audited: tuple[AuditedRow, ...]
    corrections: tuple[Correction, ...]
    current: Mapping[RowKey, Image] = field(default_factory=dict)
    """rows as they are now; a row that is gone is absent"""
    inserted_elsewhere: frozenset[str] = frozenset()
    """backfill rows that another batch inserted and did not take back"""


def changed_columns(current: Image, expected: Image) -> tuple[str, ...]:
    """Columns of ``expected`` that read differently now. Columns that were added to the table since say nothing."""
    return tuple(sorted(name for name in expected if name not in _UNCOMPARED and current.get(name) != expected[name]))


def plan_rollback(inputs: RollbackInputs) -> RollbackPlan:
    """The inverse of the batch."""
    inserted = {c.key: c for c in inputs.corrections if c.table == ORDERS}
    changes: list[RowChange] = []
    refused: list[RefusedRow] = []
    audit_ids: list[int] = []
    released: list[str] = []
    correction_ids: list[int] = []
    kept_trades: set[str] = set()

    for row in inputs.audited:
        key: RowKey = (ORDERS, row.order_id)
        correction = inserted.get(key)
        refusal = _refusal(row, correction, inputs)
        if refusal is not None:
            refused.append(refusal)
            # A row that was merely found, and that another batch answers for, is no part of what this batch did.
            if refusal.reason is not Refusal.INSERTED_BY_ANOTHER_BATCH:
                kept_trades.add(row.trade_id)
            continue
        current = inputs.current[key]
        if normalise_status(current.get("status")) != CANCELED:
            changes.append(RowChange(ORDERS, key, row.trade_id, current, {"status": CANCELED}))
        audit_ids.append(row.audit_id)
        released.append(row.order_id)
        if correction is not None:
            correction_ids.append(correction.correction_id)

    # The newest image of a row first, so that several corrections of one row unwind in their order.
    images: dict[RowKey, Image] = {}
    blocked: set[RowKey] = set()
    for correction in sorted(inputs.corrections, key=lambda c: c.correction_id, reverse=True):
        if correction.table == ORDERS:
            continue
        trade_id = correction.key[-1]
        current_image = images.get(correction.key, inputs.current.get(correction.key))
        stays = _image_refusal(correction, trade_id, current_image, kept_trades, blocked)
        if stays is not None:
            if correction.key not in blocked:
                refused.append(stays)
            blocked.add(correction.key)
            continue
        correction_ids.append(correction.correction_id)
        if correction.before is None or current_image is None:
            continue
        restored = {name: correction.before.get(name) for name in _differing(correction.before, correction.after)}
        if restored:
            changes.append(RowChange(correction.table, correction.key, trade_id, current_image, restored))
            images[correction.key] = {**current_image, **restored}

    return RollbackPlan(
        batch_id=inputs.batch_id,
        changes=tuple(changes),
        refused=tuple(sorted(refused, key=lambda r: (r.key, r.reason))),
        audit_ids=tuple(audit_ids),
        released=tuple(released),
        correction_ids=tuple(correction_ids),
    )


def _refusal(row: AuditedRow, correction: Correction | None, inputs: RollbackInputs) -> RefusedRow | None:
    key: RowKey = (ORDERS, row.order_id)

    def stays(reason: Refusal, columns: Iterable[str] = ()) -> RefusedRow:
        return RefusedRow(ORDERS, key, row.trade_id, reason, tuple(columns))

    current = inputs.current.get(key)
    found_there = row.decision is Decision.SKIP_EXISTING
    if found_there and row.order_id in inputs.inserted_elsewhere:
        return stays(Refusal.INSERTED_BY_ANOTHER_BATCH)
    if current is None:
        return stays(Refusal.ROW_MISSING)
    if correction is not None:
        # A row that somebody canceled by hand is where the rollback would put it.
        columns = [c for c in changed_columns(current, correction.after) if not _is_cancel(c, current)]
        return stays(Refusal.CHANGED_SINCE, columns) if columns else None
    columns = [name for name in row.image if not same_value(current.get(name), row.image[name])]
    if normalise_status(current.get("status")) not in {"filled", CANCELED}:
        columns.append("status")
    reason = Refusal.NOT_AS_AUDITED if found_there else Refusal.CHANGED_SINCE
    return stays(reason, columns) if columns else None


def _image_refusal(
    correction: Correction, trade_id: str, current: Image | None, kept_trades: set[str], blocked: set[RowKey]
) -> RefusedRow | None:
    if current is None:
        return RefusedRow(correction.table, correction.key, trade_id, Refusal.ROW_MISSING)
    columns = changed_columns(current, correction.after)
    if columns or correction.key in blocked:
        return RefusedRow(correction.table, correction.key, trade_id, Refusal.CHANGED_SINCE, columns)
    if trade_id in kept_trades:
        return RefusedRow(correction.table, correction.key, trade_id, Refusal.TRADE_PARTLY_REVERTED)
    return None


def _is_cancel(column: str, current: Image) -> bool:
    return column == "status" and normalise_status(current.get("status")) == CANCELED


def _differing(before: Image, after: Image) -> tuple[str, ...]:
    return tuple(name for name in after if name not in _UNCOMPARED and before.get(name) != after[name])
