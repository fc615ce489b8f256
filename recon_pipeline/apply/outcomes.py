"""What an apply, a rollback and a verification answer: closed types, so that a caller forgets no case.

What does not belong here: anything that reads or writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import pandas as pd

from recon_pipeline.domain.rollback import RefusedRow, RollbackPlan


class RefusedReason(StrEnum):
    """Why nothing was written. An operator reads the :data:`EXPLANATIONS`."""

    NOTHING_TO_APPLY = "nothing_to_apply"
    REVIEW_REQUIRED = "review_required"
    DIGEST_MISMATCH = "digest_mismatch"
    AUDIT_TABLE_MISSING = "audit_table_missing"
    LEASE_LOST = "lease_lost"
    PAUSE_REQUIRED = "pause_required"
    PENDING_ORDER_BLOCKER = "pending_order_blocker"
    LEDGER_CHANGED = "ledger_changed"
    EVIDENCE_ALREADY_CONSUMED = "evidence_already_consumed"
    ID_COLLISION = "id_collision"
    NOT_WRITTEN_EXACTLY = "not_written_exactly"
    PREVIOUSLY_REVERTED = "previously_reverted"
    ALREADY_REVERTED = "already_reverted"
    BUSY = "busy"
    APPLY_FAILED = "apply_failed"
    OUTCOME_UNKNOWN = "outcome_unknown"
    UNKNOWN_BATCH = "unknown_batch"
    NOT_APPLIED = "not_applied"
    NOT_A_BACKFILL = "not_a_backfill"


EXPLANATIONS: Final[dict[RefusedReason, str]] = {
    RefusedReason.NOTHING_TO_APPLY: "the plan proposes nothing",
    RefusedReason.REVIEW_REQUIRED: "no reviewed digest was given: read the dry run and pass the digest it shows",
    RefusedReason.DIGEST_MISMATCH: "the plan is not the reviewed one: read the new dry run and pass its digest",
    RefusedReason.AUDIT_TABLE_MISSING: "reconciliation_backfill_audit can't be written: run `recon doctor`",
    RefusedReason.LEASE_LOST: "another run holds the profile's lease: wait for it to end and run again",
    RefusedReason.PAUSE_REQUIRED: "trading of the profile is not paused: pause it first and run again",
    RefusedReason.PENDING_ORDER_BLOCKER: "an order of the trade is pending: wait until it is over and plan again",
    RefusedReason.LEDGER_CHANGED: "rows of the trade changed after the plan was made: plan again",
    RefusedReason.EVIDENCE_ALREADY_CONSUMED: "executed quantity that the plan cites has been used since: plan again",
    RefusedReason.ID_COLLISION: "a backfill row with the same id says something else: look at that row",
    RefusedReason.NOT_WRITTEN_EXACTLY: "the ledger does not keep a row as it was written: run `recon doctor`",
    RefusedReason.PREVIOUSLY_REVERTED: "a rollback canceled the row: re-apply it on request only",
    RefusedReason.ALREADY_REVERTED: "the batch was rolled back: plan again, under a new batch id",
    RefusedReason.BUSY: "the rows are locked by another transaction for too long: run again",
    RefusedReason.APPLY_FAILED: "the database refused; nothing was written",
    RefusedReason.OUTCOME_UNKNOWN: "the connection was lost and the outcome can't be read: run again",
    RefusedReason.UNKNOWN_BATCH: "there is no such batch",
    RefusedReason.NOT_APPLIED: "the batch was never applied: there is nothing to take back",
    RefusedReason.NOT_A_BACKFILL: "only batches of the exit backfill are rolled back: the next cycle judges the order anew",
}


class ApplyState(StrEnum):
    """How an apply ended."""

    APPLIED = "applied"
    REFUSED = "refused"
    FAILED = "failed"
    NOTHING_TO_APPLY = "nothing_to_apply"


@dataclass(frozen=True)
class RecordedPlan:
    """What a dry run wrote."""

    batch_id: str
    audit_rows: int
    batch_recorded: bool


@dataclass(frozen=True)
class ApplyResult:
    """What became of a plan. ``refused_reason`` is empty where it was applied."""

    batch_id: str
    profile_id: str
    digest: str
    state: ApplyState
    refused_reason: str = ""
    detail: str = ""
    proposed_rows: int = 0
    inserted: tuple[str, ...] = ()
    """backfill rows that the database inserted"""
    reapplied: tuple[str, ...] = ()
    """backfill rows that a rollback had canceled and that were set back to filled"""
    already_there: tuple[str, ...] = ()
    """backfill rows that existed with the same content"""
    decision_rows: int = 0
    books_updated: int = 0
    """rows of positions, trade_history and capital_ledger that changed"""
    superseded_batches: tuple[str, ...] = ()
    """batches that a crash had left in PENDING_APPLY, closed by this one"""
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    """PROPOSALS with the column ``outcome``: inserted, reapplied, already_exists; empty where nothing was applied"""

    @property
    def ok(self) -> bool:
        """Whether there is nothing that a person has to look at."""
        return self.state in {ApplyState.APPLIED, ApplyState.NOTHING_TO_APPLY}

    @property
    def inserted_rows(self) -> int:
        """Rows of the ledger that now count and did not before."""
        return len(self.inserted) + len(self.reapplied)


class Postponed(StrEnum):
    """Why one change of a correction was not written, while the others were. The next cycle decides anew."""

    ROW_CHANGED = "row_changed"
    ROW_MISSING = "row_missing"
    ALREADY_EXISTS = "already_exists"
    EVIDENCE_ALREADY_CONSUMED = "evidence_already_consumed"
    STILL_NEEDED = "still_needed"
    TRADE_CHANGED = "trade_changed"
    PENDING_ORDER_BLOCKER = "pending_order_blocker"
    CONFLICTING_QUANTITIES = "conflicting_quantities"
    UNSUPPORTED_COLUMN = "unsupported_column"
    UNSUPPORTED_STATUS = "unsupported_status"


POSTPONEMENTS: Final[dict[Postponed, str]] = {
    Postponed.ROW_CHANGED: "the row changed after this was decided",
    Postponed.ROW_MISSING: "the row is gone",
    Postponed.ALREADY_EXISTS: "somebody has recorded the order meanwhile",
    Postponed.EVIDENCE_ALREADY_CONSUMED: "other rows represent the executed quantity that this one would",
    Postponed.STILL_NEEDED: "without the row the ledger would say less than the exchange executed",
    Postponed.TRADE_CHANGED: "the trade is not open as it was when this was decided",
    Postponed.PENDING_ORDER_BLOCKER: "an order of the trade may still execute",
    Postponed.CONFLICTING_QUANTITIES: "the row's quantity columns would contradict each other: mend the row",
    Postponed.UNSUPPORTED_COLUMN: "the table orders lacks the column",
    Postponed.UNSUPPORTED_STATUS: "the status of orders is an enumeration without this label: add it",
}


@dataclass(frozen=True)
class CorrectionResult:
    """What became of a correction plan. ``refused_reason`` is empty where nothing stood in its way as a whole."""

    batch_id: str
    profile_id: str
    digest: str
    state: ApplyState
    applied: tuple[str, ...] = ()
    """order ids of the rows that were inserted or updated, sorted"""
    postponed: Mapping[str, str] = field(default_factory=dict)
    """order id to a word of :class:`Postponed`, of the changes that were not written"""
    books_updated: int = 0
    """rows of positions, trade_history and capital_ledger that were inserted or changed"""
    refused_reason: str = ""
    detail: str = ""

    @property
    def corrections(self) -> int:
        """Rows of ``orders`` that were written."""
        return len(self.applied)

    @property
    def ok(self) -> bool:
        """Whether there is nothing that a person has to look at."""
        return self.state in {ApplyState.APPLIED, ApplyState.NOTHING_TO_APPLY}


class RollbackState(StrEnum):
    """How a rollback ended."""

    PREVIEW = "preview"
    REVERTED = "reverted"
    PARTLY_REVERTED = "partly_reverted"
    NOTHING_REVERTED = "nothing_reverted"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class RollbackResult:
    """What a rollback did, or would do."""

    batch_id: str
    profile_id: str
    state: RollbackState
    refused_reason: str = ""
    detail: str = ""
    plan: RollbackPlan = field(default_factory=lambda: RollbackPlan(""))
    canceled: tuple[str, ...] = ()
    """backfill rows whose status was (or would be) set to canceled"""
    restored: tuple[tuple[str, ...], ...] = ()
    """(table, profile, trade) of the rows whose before image was (or would be) put back"""
    released: tuple[str, ...] = ()
    """backfill rows whose consumption was (or would be) released"""

    @property
    def refused_rows(self) -> tuple[RefusedRow, ...]:
        """Rows that stay, each with its reason."""
        return self.plan.refused

    def refused_frame(self) -> pd.DataFrame:
        """The rows that stay, as an operator reads them."""
        return pd.DataFrame(
            [
                {
                    "table": row.table,
                    "row": "/".join(row.key[1:]),
                    "trade_id": row.trade_id,
                    "reason": row.reason.value,
                    "changed_columns": ", ".join(row.changed_columns),
                }
                for row in self.refused_rows
            ],
            columns=["table", "row", "trade_id", "reason", "changed_columns"],
        )


@dataclass(frozen=True)
class Check:
    """One statement about the ledger, and whether it holds."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class BatchVerification:
    """The ledger after a batch, read back from the database."""

    batch_id: str
    profile_id: str
    trades: pd.DataFrame
    """profile_id, trade_id, symbol, entry_e9, exit_e9, open_e9 of the batch's trades"""
    orders: pd.DataFrame
    """account_id, order_id, executed_e9, represented_e9, consumed_e9, excess_e9 of the exchange orders it cites"""
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.passed for check in self.checks)
