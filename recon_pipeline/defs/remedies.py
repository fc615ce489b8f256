"""What an operator does about a reason: one sentence each, shown beside the reason in the UI.

The runbook says the same at more length. Not here: reasons themselves (``domain.terms``, ``apply.outcomes``).
"""

from typing import Final

from recon_pipeline.apply import RefusedReason
from recon_pipeline.apply.outcomes import EXPLANATIONS
from recon_pipeline.domain.terms import Reason, RowDefect, SkippedReason
from recon_pipeline.ledger.cycle_state import LEASE_HELD

ENGINE_FAILED: Final = "failed"

SKIPPED: Final[dict[str, str]] = {
    SkippedReason.DISABLED: "The exit backfill is off: set ENABLE_RECON_EXIT_BACKFILL=true for the code location.",
    SkippedReason.PROFILE_NOT_ALLOWLISTED: "Add the profile to RECON_EXIT_BACKFILL_PROFILE_ALLOWLIST, or empty the list.",
    SkippedReason.PAUSE_REQUIRED: "Launch pause_trading (scope: this profile, or all), then launch this again.",
    SkippedReason.AUDIT_TABLE_MISSING: "Run `recon migrate`, then `recon doctor`: reconciliation_backfill_audit takes no rows.",
    SkippedReason.EVIDENCE_INCOMPLETE: "Launch this again in a minute; if it stays, read evidence_reasons below.",
    LEASE_HELD: "Another run works on the profile: wait for it to end, then launch this again.",
}

REASONS: Final[dict[str, str]] = {
    Reason.ELIGIBLE: "Covered by executions: apply it.",
    Reason.INSERTED: "Nothing: the row was written.",
    Reason.ALREADY_EXISTS: "Nothing: the row is in the ledger.",
    Reason.ID_COLLISION: "A backfill row with this id says something else: compare both by hand.",
    Reason.PREVIOUSLY_REVERTED: "A rollback took it back. If it was right after all, launch with reapply_reverted: true.",
    Reason.PENDING_ORDER_BLOCKER: "A pending order of the trade is in the ledger: wait until it is over, or correct its status.",
    Reason.EXCHANGE_NOT_FLAT: "The exchange holds the symbol and the ledger does not explain it: the trade is really open, or "
    "somebody else holds it. Find out which.",
    Reason.DUST_BLOCKED_NOT_FLAT: "The remainder is dust, but the exchange still holds the symbol: find out what it belongs to.",
    Reason.MISSING_EVIDENCE: "No execution proves the rest was closed: the position may be open, or the exit is untagged, "
    "foreign, or older than the look-back. Look at exchange_fill_evidence.",
    Reason.POSITION_UNKNOWN: "The position could not be read: launch this again.",
    Reason.NO_PRICE: "No price is known for the dust: book it by hand.",
    RowDefect.CONFLICTING_QUANTITIES: "qty and quantity of a ledger row differ: correct the row.",
    RowDefect.QUANTITY: "A ledger row has no readable quantity: correct the row.",
    RowDefect.SIDE: "A ledger row has no readable side: correct the row.",
    RowDefect.SYMBOL: "A ledger row has no symbol: correct the row.",
    RowDefect.TIME: "A ledger row has no readable time: correct the row.",
    RowDefect.CONFLICTING_ROWS: "Two ledger rows with one order id differ: correct one.",
    RowDefect.CONFLICTING_SYMBOLS: "The rows of the trade name different symbols: correct them.",
    RowDefect.CONFLICTING_ENTRY_SIDES: "The entries of the trade have both sides: correct them.",
    RowDefect.UNKNOWN_ENTRY_SIDE: "The trade has no readable entry: record the entry first.",
    RowDefect.EXIT_ON_ENTRY_SIDE: "An exit of the trade is on the side of its entries: correct the row.",
}


def for_skipped(reason: str) -> str:
    """Return what to do about a profile that was skipped."""
    return SKIPPED.get(reason, "See the runbook.")


def for_reason(reason: str) -> str:
    """Return what to do about a decision's reason; what follows a colon is its number."""
    return REASONS.get(reason.partition(":")[0], "See the runbook.")


def for_refusal(reason: str) -> str:
    """Return why an apply or a rollback refused, and what to do."""
    try:
        return EXPLANATIONS[RefusedReason(reason)]
    except ValueError:
        return "See the runbook."
